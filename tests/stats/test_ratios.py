"""Ratios of two records: the estimate, its exact interval, and input without one."""

import itertools
import math
import random
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from ggufbench.analysis.baselines import advantage
from ggufbench.stats.ratios import ratio_of, usable

positive = st.floats(min_value=1e-9, max_value=1e12)
samples = st.lists(positive, min_size=1, max_size=7)


def test_estimate_and_interval_of_a_hand_computed_case():
    # The ratios of all pairs are 2, 4, 4, 8. The median of their logarithms is that of 4 and 4.
    ratio = ratio_of([8, 16], [2, 4])
    assert ratio.value == pytest.approx(4)
    assert (ratio.low, ratio.high) == (pytest.approx(2), pytest.approx(8))
    assert ratio.level == pytest.approx(1 - 2 / 6)


@pytest.mark.parametrize(("ours", "theirs"), [(3, 3), (4, 4), (5, 3), (6, 7), (10, 10)])
def test_interval_matches_scipys_exact_mann_whitney_test(ours, theirs):
    rng = random.Random(ours * 100 + theirs)
    candidate = [rng.lognormvariate(0.3, 0.2) for _ in range(ours)]
    reference = [rng.lognormvariate(0, 0.2) for _ in range(theirs)]
    ratio = ratio_of(candidate, reference, level=0.9)

    def p_value(shift: float) -> float:
        moved = [value / shift for value in candidate]
        return mannwhitneyu(moved, reference, alternative="two-sided", method="exact").pvalue

    assert p_value(ratio.low * (1 + 1e-9)) > 1 - ratio.level + 1e-12
    assert p_value(ratio.high * (1 - 1e-9)) > 1 - ratio.level + 1e-12
    assert p_value(ratio.low * (1 - 1e-9)) <= 1 - ratio.level + 1e-12
    assert p_value(ratio.high * (1 + 1e-9)) <= 1 - ratio.level + 1e-12
    assert ratio.level >= 0.9 - 1e-12


@pytest.mark.parametrize(("ours", "theirs"), [(2, 2), (2, 3), (3, 3), (4, 4), (3, 6)])
def test_interval_coverage_equals_its_level(ours, theirs):
    """Without a difference all orders of the values are equally likely; each is tried."""
    places = range(ours + theirs)
    covered = total = 0
    for chosen in itertools.combinations(places, ours):
        # The sizes grow so quickly that no two pairs have the same difference.
        candidate = [math.exp(1.7**place) for place in chosen]
        reference = [math.exp(1.7**place) for place in places if place not in chosen]
        ratio = ratio_of(candidate, reference)
        total += 1
        covered += ratio.low <= 1 <= ratio.high
    assert covered / total == pytest.approx(ratio.level)


def test_interval_is_conservative_with_ties():
    """With the values of a coarse clock, the coverage is at least the level."""
    values = [1.0, 1.0, 1.1, 1.1, 1.1, 1.2]
    covered = total = 0
    for chosen in itertools.combinations(range(6), 3):
        ratio = ratio_of([values[n] for n in chosen], [values[n] for n in range(6) if n not in chosen])
        total += 1
        covered += ratio.low <= 1 <= ratio.high
    assert covered / total >= ratio.level


@given(samples, samples)
def test_exchanged_sides_invert_estimate_and_interval(candidate, reference):
    ratio, turned = ratio_of(candidate, reference), ratio_of(reference, candidate)
    assert ratio.value * turned.value == pytest.approx(1)
    if ratio.low is None:
        assert turned.low is None
        return
    assert ratio.low * (1 - 1e-12) <= ratio.value <= ratio.high * (1 + 1e-12)
    assert ratio.low * turned.high == pytest.approx(1)
    assert ratio.level == turned.level


@given(samples, samples, st.floats(min_value=1e-3, max_value=1e3))
def test_factor_on_one_side_scales_the_ratio(candidate, reference, factor):
    plain = ratio_of(candidate, reference)
    scaled = ratio_of([factor * value for value in candidate], reference)
    assert scaled.value == pytest.approx(factor * plain.value, rel=1e-6)


@given(samples, samples)
def test_the_order_of_launches_does_not_matter(candidate, reference):
    assert ratio_of(candidate, reference) == ratio_of(candidate[::-1], sorted(reference))


@pytest.mark.parametrize(
    ("ours", "theirs", "level"), [(1, 1, None), (1, 2, None), (1, 3, 0.5), (2, 2, 2 / 3), (3, 3, 0.9)]
)
def test_few_launches_have_a_lower_level_or_no_interval(ours, theirs, level):
    ratio = ratio_of([2.0 + n / 10 for n in range(ours)], [1.0 + n / 100 for n in range(theirs)])
    assert ratio.level == (None if level is None else pytest.approx(level))
    assert (ratio.low is None) == (ratio.high is None) == (level is None)


def test_more_launches_narrow_the_interval():
    rng = random.Random(1)

    def of(count: int):
        sides = [[rng.lognormvariate(0, 0.1) for _ in range(count)] for _ in range(2)]
        return ratio_of(*sides)

    wide, narrow = of(5), of(40)
    assert narrow.high / narrow.low < wide.high / wide.low
    assert 0.95 <= narrow.level < 0.953


def test_more_than_fifty_launches_are_thinned():
    many = [1 + n / 1e6 for n in range(100_000)]
    ratio = ratio_of([2 * value for value in many], many)
    assert ratio.value == pytest.approx(2, rel=1e-6)
    assert ratio.low < 2 < ratio.high


def test_extreme_ratios_stay_finite():
    ratio = ratio_of([1e300, 1.1e300, 1.2e300], [1e-300, 1.1e-300, 1.2e-300])
    assert math.isfinite(ratio.high) and ratio.value > 1e300


@pytest.mark.parametrize("bad", [[], [0.0], [-1.0], [math.nan], [math.inf], [1.0, 0.0]])
def test_empty_sides_and_invalid_values_are_refused(bad):
    words = "needs finite values above zero" if bad else "needs at least one launch of each side"
    with pytest.raises(ValueError, match=words):
        ratio_of(bad, [1.0])
    with pytest.raises(ValueError, match=words):
        ratio_of([1.0], bad)


@pytest.mark.parametrize("level", [1.0, -0.1, math.nan])
def test_invalid_confidence_level_is_refused(level):
    with pytest.raises(ValueError, match=r"confidence level .* is invalid"):
        ratio_of([1.0], [1.0], level)


def test_usable_keeps_only_finite_positive_values():
    assert usable([1.0, 0.0, -2.0, math.nan, math.inf, 3.0]) == [1.0, 3.0]


def test_advantage_is_above_one_if_the_candidate_is_better():
    ratio = ratio_of([0.5, 0.51, 0.52], [1.0, 1.01, 1.02])
    faster = advantage(ratio, "ready_seconds")
    assert faster.value == pytest.approx(1 / ratio.value)
    assert faster.low == pytest.approx(1 / ratio.high) and faster.high == pytest.approx(1 / ratio.low)
    assert advantage(ratio, "decode_tokens_per_second") is ratio
    assert advantage(ratio_of([1.0], [2.0]), "peak_rss_bytes").low is None


def test_interval_ends_are_measured_ratios():
    candidate, reference = [3.0, 5.0, 7.0, 11.0], [1.0, 2.0, 13.0, 17.0]
    ratio = ratio_of(candidate, reference)
    pairs = sorted(a / b for a, b in itertools.product(candidate, reference))
    for end in (ratio.low, ratio.high):
        place = bisect_left(pairs, end * (1 - 1e-9))
        assert pairs[place] == pytest.approx(end)
