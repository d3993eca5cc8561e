"""Facts and conditions of this machine, and control of its page cache."""
