"""Command-line interface: each command parses its options, calls the library and prints the result."""
