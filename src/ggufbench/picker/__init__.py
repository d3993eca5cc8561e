"""The picker: the models of this machine with what was measured of them, to choose one from."""
