"""A run, a case, supervision of a launch, and building its record."""
