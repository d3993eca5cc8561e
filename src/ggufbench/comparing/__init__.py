"""Comparing arms side by side: what is asked, measured and concluded; the commands built on it."""
