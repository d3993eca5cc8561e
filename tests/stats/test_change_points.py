"""Change points: true changes are found, false ones are rare, and only the ranks of the values matter."""

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ggufbench.stats.change_points import Search, centered_ranks, change_points, rank_sum_p

QUICK = Search(permutations=199, alpha=0.05)


def places(values, *arguments):
    return [point.index for point in change_points(values, *arguments)]


def levels(seed, *parts):
    """A series of (length, level) parts with a spread of 0.01."""
    random = np.random.default_rng(seed)
    return np.concatenate([random.normal(level, 0.01, length) for length, level in parts])


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(40, 0), (20, 0.05)], [40]),
        ([(40, 0), (20, -0.05)], [40]),
        ([(60, 0), (10, 0.08)], [60]),
        ([(40, 0), (15, 0.05), (45, 0)], [40, 55]),
        ([(30, 0), (30, 0.05), (30, 0.10)], [30, 60]),
        ([(25, 0), (10, 0.06), (25, 0), (10, 0.06), (25, 0)], [25, 35, 60, 70]),
    ],
)
def test_changes_are_found_at_their_places(parts, expected):
    near = 0
    for seed in range(10):
        found = places(levels(seed, *parts))
        near += len(found) == len(expected) and all(
            abs(one - other) <= 2 for one, other in zip(found, expected, strict=True)
        )
    assert near >= 8


@pytest.mark.parametrize("length", [12, 40, 150])
def test_false_alarms_in_noise_stay_within_alpha(length):
    random = np.random.default_rng(length)
    runs, alpha = 400, QUICK.alpha
    found = sum(bool(change_points(random.standard_t(2, length), search=QUICK)) for _ in range(runs))
    # At the promised rate, 99.9 % of repetitions lie below. The rank test holds in heavy tails too.
    assert found <= scipy.stats.binom.ppf(0.999, runs, alpha)


def test_single_bad_session_is_not_a_change():
    values = levels(3, (40, 0))
    values[20] = 1.0
    assert places(values) == []


def test_shift_is_between_the_adjacent_levels():
    (up, down) = change_points(levels(1, (40, 0), (20, 0.05), (40, 0.02)))
    assert up.shift == pytest.approx(0.05, abs=0.006)
    assert down.shift == pytest.approx(-0.03, abs=0.006)


def test_only_changes_below_the_least_shift_are_dropped():
    values = levels(2, (40, 0), (40, 0.02), (40, 0.08))
    assert len(places(values)) == 2
    assert places(values, 0.04) == [pytest.approx(80, abs=2)]
    assert places(values, 1.0) == []


@pytest.mark.parametrize("values", [[], [1.0], [1.0] * 50, list(range(9))])
def test_short_or_constant_series_has_no_change_point(values):
    assert places(values) == []


def test_a_clean_step_of_the_shortest_length_is_found():
    assert places([0.0, 0.1, 0.2, 0.3, 0.4, 5.0, 5.1, 5.2, 5.3, 5.4], 0.0, Search(alpha=0.05)) == [5]


series = arrays(np.float64, st.integers(10, 60), elements=st.integers(-20, 20).map(float))


@settings(max_examples=40, deadline=None)
@given(series, st.sampled_from([lambda x: 3 * x + 7, lambda x: x / 1024, np.exp, lambda x: x**3]))
def test_only_the_ranks_of_the_values_matter(values, growing):
    assert places(values, 0.0, QUICK) == places(growing(values), 0.0, QUICK)


@settings(max_examples=40, deadline=None)
@given(series)
def test_negated_series_has_the_same_places_and_negated_shifts(values):
    up, down = (change_points(side, search=QUICK) for side in (values, -values))
    assert [(point.index, point.shift) for point in up] == [(point.index, -point.shift) for point in down]


@settings(max_examples=60, deadline=None)
@given(series)
def test_segments_are_long_enough_and_in_order(values):
    edges = [0, *places(values, 0.0, QUICK), len(values)]
    assert all(end - start >= QUICK.shortest for start, end in pairwise(edges))


@settings(max_examples=60, deadline=None)
@given(series)
def test_ranks_match_scipy(values):
    assert np.allclose(centered_ranks(values), scipy.stats.rankdata(values) - (len(values) + 1) / 2)


@settings(max_examples=60, deadline=None)
@given(series, st.integers(5, 30))
def test_rank_sum_matches_scipy(values, where):
    before, after = values[: where % len(values)], values[where % len(values) :]
    if not len(before) or not len(after) or len(set(values)) == 1:
        return
    oracle = scipy.stats.mannwhitneyu(before, after, method="asymptotic", use_continuity=False)
    assert rank_sum_p(before, after) == pytest.approx(oracle.pvalue, rel=1e-6, abs=1e-12)


def test_p_value_accounts_for_the_search():
    """In noise, the best place is significant by itself far more often than a change point is reported."""
    random = np.random.default_rng(11)
    naive = reported = 0
    for _ in range(150):
        values = random.normal(size=40)
        best = min(rank_sum_p(values[:place], values[place:]) for place in range(5, 36))
        naive += best <= QUICK.alpha
        reported += bool(change_points(values, search=QUICK))
    assert naive > 3 * max(reported, 150 * QUICK.alpha)


def test_same_series_gives_the_same_points():
    values = levels(5, (30, 0), (30, 0.008))
    assert change_points(values) == change_points(list(values))
    assert all(math.isfinite(point.p) for point in change_points(values))
