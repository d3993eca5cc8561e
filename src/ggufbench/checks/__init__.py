"""Checks of one launch: interference, page cache, native log, memory, roofline, targets."""
