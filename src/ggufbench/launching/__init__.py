"""Start a worker process, enforce its timeouts and report how it ended."""
