"""Makes this a folder of benchmarks: `bench_*.py` is collected, and options have short names (`--models`)."""

from ggufbench.pytest_plugin.bench_folder import pytest_addoption, pytest_collect_file

__all__ = ["pytest_addoption", "pytest_collect_file"]
