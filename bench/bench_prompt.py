"""Speed of reading a prompt."""

import pytest

from ggufbench.pytest_plugin.clock import worker_clock

pytestmark = pytest.mark.measures("prompt")


@pytest.mark.benchmark(group="prompt, per token (OPS: tokens per second)", timer=worker_clock)
def test_prompt(gguf_case, benchmark):
    """Seconds per token of the prompt."""
    gguf_case.replay(benchmark, "prompt_tokens_per_second")
