"""The benchmarks, one short file for each question: `pytest bench --benchmark-only`."""
