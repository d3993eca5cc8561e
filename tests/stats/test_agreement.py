"""Ratios in pairs, the exact interval of a median, and whether two builds are one."""

import math
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufbench.stats.agreement import agreement, build_problem, median_interval

rates = st.floats(min_value=1e-3, max_value=1e6)


def coverage(count: int, rank: int) -> Fraction:
    """The same probability by counting: of all outcomes of `count` coins, those that enclose the median."""
    enclosed = sum(rank <= sum(coins) <= count - rank for coins in product((0, 1), repeat=count))
    return Fraction(enclosed, 2**count)


@pytest.mark.parametrize("count", range(1, 16))
def test_the_interval_is_the_shortest_of_the_exact_ones(count):
    values = [float(value) for value in range(1, count + 1)]
    interval = median_interval(values)
    rank = int(interval.low)
    assert interval.high == count + 1 - rank
    assert math.isclose(interval.level, coverage(count, rank))
    enough = [r for r in range(1, count // 2 + 1) if coverage(count, r) >= Fraction(95, 100)]
    assert rank == max(enough, default=1)


def test_ten_pairs_have_the_interval_of_the_tables():
    interval = median_interval([3, 9, 1, 7, 5, 10, 2, 8, 6, 4])
    assert (interval.low, interval.high) == (2, 9)
    assert math.isclose(interval.level, 1 - 22 / 1024)


@given(st.lists(rates, min_size=1, max_size=40))
def test_the_interval_encloses_the_median_and_no_more_than_the_values(values):
    interval, ordered = median_interval(values), sorted(values)
    middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
    assert ordered[0] <= interval.low <= middle <= interval.high <= ordered[-1]
    assert 0 <= interval.level <= 1
    assert len(values) < 6 or interval.level >= 0.95


@given(st.lists(st.tuples(rates, rates), min_size=1, max_size=20))
def test_sides_exchanged_give_the_inverse_ratios(pairs):
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = agreement("pp1", ours, theirs, 0.02), agreement("pp1", theirs, ours, 0.02)
    assert all(math.isclose(a * b, 1, rel_tol=1e-9) for a, b in zip(there.ratios, back.ratios, strict=True))
    assert (there.ours_median, there.theirs_median) == (back.theirs_median, back.ours_median)


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        (0.97, "differs"),
        (0.979, "differs"),
        (0.98, "agrees"),
        (1.0, "agrees"),
        (1.02, "agrees"),
        (1.03, "differs"),
    ],
)
def test_the_verdict_is_that_of_the_median_ratio(ours, verdict):
    # One pair of three is far off, and does not matter.
    found = agreement("tg64", [ours, ours, 9.0], [1.0, 1.0, 1.0], 0.02)
    assert (found.ratio_median, found.verdict) == (ours, verdict)


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0]), ([1.0], [0.0]), ([-1.0], [1.0])])
def test_what_is_no_pair_of_rates_is_refused(ours, theirs):
    with pytest.raises(ValueError, match="give"):
        agreement("pp512", ours, theirs, 0.02)


def test_no_values_have_no_interval():
    with pytest.raises(ValueError, match="at least one"):
        median_interval([])


@pytest.mark.parametrize("llama_bench", ["0c1e570", "0c1e57098bba", "0c1e570-dirty"])
def test_one_commit_is_one_build(llama_bench):
    assert build_problem("0c1e570-dirty", llama_bench) is None


@pytest.mark.parametrize(
    ("library", "llama_bench", "words"),
    [
        ("0c1e570", "1234567", "another llama.cpp (1234567) than the library (0c1e570)"),
        ("0c1e570", "unknown", "is not known"),
        ("", "0c1e570", "the library says 'nothing'"),
    ],
)
def test_other_builds_are_named(library, llama_bench, words):
    assert words in build_problem(library, llama_bench)
