"""Terminal picker: choose one of the models on this machine, listed with its measurements."""
