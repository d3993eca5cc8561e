"""Stored results: the contents of a record, and its place on the disk."""
