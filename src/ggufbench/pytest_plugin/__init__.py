"""pytest plugin: `pytest bench --benchmark-only`, its options, its report and its gate."""
