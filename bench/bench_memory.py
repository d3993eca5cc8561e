"""Memory use."""

import pytest

from ggufbench.pytest_plugin.clock import worker_clock

pytestmark = pytest.mark.measures("load")


@pytest.mark.benchmark(group="peak memory (1 s stands for 1 GiB)", timer=worker_clock)
def test_memory(gguf_case, benchmark):
    """Peak resident memory of the whole process, including mapped pages of the file."""
    gguf_case.replay(benchmark, "peak_rss_bytes")
