"""Speed of encoding texts: embedding models, rerankers, and the encoder of an encoder-decoder model."""

import pytest

from ggufbench.pytest_plugin.clock import worker_clock

pytestmark = pytest.mark.measures("encode")


@pytest.mark.benchmark(group="encode, per token (OPS: tokens per second)", timer=worker_clock)
def test_encode(gguf_case, benchmark):
    """Seconds per token of all sequences of a batch."""
    gguf_case.replay(benchmark, "encode_tokens_per_second")


@pytest.mark.benchmark(group="encode, one batch", timer=worker_clock)
def test_batch(gguf_case, benchmark):
    """Seconds until the vectors of a whole batch are ready."""
    gguf_case.replay(benchmark, "encode_seconds")
