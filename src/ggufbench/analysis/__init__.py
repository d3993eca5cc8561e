"""Conclusions from stored records: pure functions without files, processes or clocks."""
