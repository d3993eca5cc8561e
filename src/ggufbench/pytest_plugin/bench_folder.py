"""Hooks of the conftest in a folder of benchmarks: its files are collected, and options have short names."""

from __future__ import annotations

from pathlib import Path

import pytest

from ggufbench.pytest_plugin.options import add_options


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--models` beside `--gguf-models`, and so on, for a session that names this folder.

    A short name that another plugin has is left to that plugin.
    """
    add_options(parser, "ggufbench, short names", prefix="--")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Collect `bench_*.py` where its folder is named, or with `--benchmark-only`.

    A plain `pytest` in a project that has such a folder runs the project's tests, and measures nothing.
    """
    session = parent.session
    wanted = session.isinitpath(file_path.parent) or parent.config.getoption("benchmark_only")
    if not wanted or not file_path.match("bench_*.py") or session.isinitpath(file_path):
        return None  # pytest itself collects a file that is named
    return pytest.Module.from_parent(parent, path=file_path)
