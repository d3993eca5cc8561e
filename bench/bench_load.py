"""How long until the model can answer?"""

import pytest

from ggufbench.pytest_plugin import worker_clock


@pytest.mark.benchmark(group="load", timer=worker_clock)
def test_load(gguf_case, benchmark):
    """Seconds from loading the file to a context ready for tokens."""
    gguf_case.replay(benchmark, "load_seconds")
