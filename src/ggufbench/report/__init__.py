"""Presentation of records: text for the terminal, figures, and the page."""
