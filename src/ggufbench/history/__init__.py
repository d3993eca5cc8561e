"""Series over stored sessions, and their gate."""
