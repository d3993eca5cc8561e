"""How much memory does it take?"""

import pytest

from ggufbench.pytest_plugin.clock import worker_clock


@pytest.mark.benchmark(group="peak memory (1 s stands for 1 GiB)", timer=worker_clock)
def test_memory(gguf_case, benchmark):
    """Peak resident memory of the whole process, mapped pages of the file included."""
    gguf_case.replay(benchmark, "peak_rss_bytes")
