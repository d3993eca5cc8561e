"""Quality of the answers: how far a file or a setting is from its reference."""

import pytest

from ggufbench.pytest_plugin.clock import worker_clock

pytestmark = pytest.mark.measures("quality")


@pytest.mark.benchmark(group="divergence from the reference (1 s stands for 1 nat)", timer=worker_clock)
def test_divergence(gguf_case, benchmark):
    """Mean Kullback-Leibler divergence of a token's distribution from that of the reference."""
    gguf_case.replay(benchmark, "kl_divergence")
