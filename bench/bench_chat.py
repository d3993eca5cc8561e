"""Waiting time of an application's user, and the application's part of it."""

import pytest

from ggufbench.pytest_plugin.clock import worker_clock

pytestmark = pytest.mark.measures("chat")


@pytest.mark.benchmark(group="chat: from the question to the first text", timer=worker_clock)
def test_first_token(gguf_case, benchmark):
    """Seconds until the first text of an answer."""
    gguf_case.replay(benchmark, "time_to_first_token_seconds")


@pytest.mark.benchmark(group="chat: what a layer adds to each token", timer=worker_clock)
def test_overhead(gguf_case, benchmark):
    """Seconds per token in addition to llama.cpp's own decoding."""
    gguf_case.replay(benchmark, "token_overhead_seconds")
