"""The mean over dependent tokens: its interval covers the truth, unlike one over independent tokens."""

import math
import random
import statistics

import pytest

from ggufbench.stats.clustered_mean import LEAST_CHUNKS, clustered_mean

CHUNKS = 28
TOKENS = 32


def session(source: random.Random, spread: float) -> list[list[float]]:
    """Chunks of tokens around a true mean of 1: each chunk has a level of its own, and both are skewed."""
    return [
        [level * source.gammavariate(0.3, 1 / 0.3) for _ in range(TOKENS)]
        for level in (source.lognormvariate(-(spread**2) / 2, spread) for _ in range(CHUNKS))
    ]


def covers(chunks: list[list[float]]) -> bool:
    mean = clustered_mean([sum(chunk) for chunk in chunks], [len(chunk) for chunk in chunks])
    assert mean.low is not None and mean.high is not None
    return mean.low <= 1 <= mean.high


def covers_if_independent(chunks: list[list[float]]) -> bool:
    values = [value for chunk in chunks for value in chunk]
    error = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    return abs(statistics.fmean(values) - 1) <= error


@pytest.mark.parametrize(
    ("spread", "count"),
    [
        (0.5, 400),
        pytest.param(0.2, 4000, marks=pytest.mark.nightly),
        pytest.param(0.5, 4000, marks=pytest.mark.nightly),
        pytest.param(0.8, 4000, marks=pytest.mark.nightly),
    ],
)
def test_the_interval_of_95_percent_covers_the_mean_in_93_percent(spread, count):
    source = random.Random(f"coverage {spread}")
    sessions = [session(source, spread) for _ in range(count)]
    noise = 2 * math.sqrt(0.93 * 0.07 / count)
    assert sum(map(covers, sessions)) / count >= 0.93 - noise
    assert sum(map(covers_if_independent, sessions)) / count < 0.92


def test_tokens_are_weighted_and_not_chunks():
    assert clustered_mean([10.0, 0.0], [10, 30]).value == 0.25


def test_equal_chunks_have_no_uncertainty():
    mean = clustered_mean([0.0] * LEAST_CHUNKS, [4] * LEAST_CHUNKS)
    assert (mean.value, mean.low, mean.high) == (0, 0, 0)


def test_symmetric_chunks_have_a_symmetric_interval():
    mean = clustered_mean([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], [1] * 8)
    assert mean.value == 4.5
    # t of 7 degrees of freedom is 2.365 (any table), and the standard error is sqrt(6 / 8)
    assert mean.high - 4.5 == pytest.approx(2.365 * math.sqrt(0.75), rel=1e-3)
    assert 4.5 - mean.low == pytest.approx(mean.high - 4.5)


def test_skewed_chunks_have_more_room_above():
    mean = clustered_mean([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 9.0], [1] * 8)
    assert mean.high - mean.value > mean.value - mean.low > 0


def test_few_chunks_have_no_interval():
    assert clustered_mean([1.0] * (LEAST_CHUNKS - 1), [1] * (LEAST_CHUNKS - 1)).low is None


@pytest.mark.parametrize(
    ("sums", "tokens", "words"),
    [
        ([], [], "at least one chunk"),
        ([1.0], [0], "at least one token"),
        ([math.inf], [1], "finite"),
        ([1.0], [1, 1], "1 sums"),
    ],
)
def test_unusable_chunks_are_refused(sums, tokens, words):
    with pytest.raises(ValueError, match=words):
        clustered_mean(sums, tokens)
