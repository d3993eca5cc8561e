"""Speed of generating an answer."""

import pytest

from ggufbench.pytest_plugin.clock import worker_clock

pytestmark = pytest.mark.measures("decode")


@pytest.mark.benchmark(group="decode, per token (OPS: tokens per second)", timer=worker_clock)
def test_decode(gguf_case, benchmark):
    """Seconds per generated token."""
    gguf_case.replay(benchmark, "decode_tokens_per_second")
