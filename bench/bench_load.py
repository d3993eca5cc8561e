"""Time to the first token.

Loading and the first token count together: a new llama.cpp may move work from one to the other, which gains
nothing.
"""

import pytest

from ggufbench.pytest_plugin.clock import worker_clock

pytestmark = pytest.mark.measures("load")


@pytest.mark.benchmark(group="load and first token", timer=worker_clock)
def test_load(gguf_case, benchmark):
    """Seconds from loading the file, which is in memory, to the first token."""
    gguf_case.replay(benchmark, "ready_seconds")


@pytest.mark.benchmark(group="load from the disk and first token", timer=worker_clock)
def test_cold_load(gguf_case, benchmark):
    """The same, after the file's pages were dropped from memory."""
    gguf_case.replay(benchmark, "cold_ready_seconds")
