"""What judges one launch: interference, page cache, native log, memory, roofline, targets."""
