"""The signed-rank test compared with scipy and with enumeration; properties of estimate and interval."""

import math
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ggufbench.stats.signed_rank import (
    hodges_lehmann,
    interval,
    p_above,
    p_below,
    strict_interval,
    upper_bound,
)

ratios = st.floats(min_value=-3, max_value=3).map(lambda value: round(value, 6))
several = st.lists(ratios, min_size=1, max_size=12)
tied = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=9)


@st.composite
def untied(draw, most=20):
    """Nonzero differences of distinct sizes from a shuffled grid."""
    sizes = draw(st.lists(st.integers(1, 10_000), unique=True, min_size=1, max_size=most))
    return [draw(st.sampled_from([-1, 1])) * size / 1024 for size in sizes]


@st.composite
def generic(draw, least=1, most=12):
    """Differences with distinct pairwise means, so that no shift makes more than two of them tie."""
    places = draw(st.lists(st.integers(0, 15), unique=True, min_size=least, max_size=most))
    return [float(3**place) for place in places]


def counted(differences, shift=0.0):
    """p-value by its definition: enumeration of all signs of the mean ranks."""
    moved = [value - shift for value in differences]
    ranks = [Fraction(rank) for rank in stats.rankdata([abs(value) for value in moved])]
    seen = sum((rank for rank, value in zip(ranks, moved, strict=True) if value > 0), Fraction(0))
    sums = [
        sum((rank for rank, sign in zip(ranks, signs, strict=True) if sign), Fraction(0))
        for signs in product((False, True), repeat=len(ranks))
    ]
    return sum(total >= seen for total in sums) / len(sums)


@settings(max_examples=150, deadline=None)
@given(untied())
def test_p_values_match_scipys_exact_test_without_ties(differences):
    above = stats.wilcoxon(differences, alternative="greater", method="exact").pvalue
    below = stats.wilcoxon(differences, alternative="less", method="exact").pvalue
    assert math.isclose(p_above(differences), above, rel_tol=1e-12)
    assert math.isclose(p_below(differences), below, rel_tol=1e-12)


@settings(max_examples=150, deadline=None)
@given(tied, st.integers(-3, 3).map(float))
def test_p_values_match_enumeration_with_ties_and_zeros(differences, shift):
    assert p_above(differences, shift) == counted(differences, shift)
    assert p_below(differences, shift) == counted([-value for value in differences], -shift)


def test_p_value_matches_scipys_permutation_test_with_ties():
    differences = [0.02, 0.02, -0.01, 0.03, 0.01, 0.05, 0.02, -0.03, 0.04, 0.01]

    def statistic(values, axis):
        ranks = stats.rankdata(abs(values), axis=axis)
        return (ranks * (values > 0)).sum(axis=axis)

    found = stats.permutation_test(
        (differences,), statistic, permutation_type="samples", alternative="greater", n_resamples=math.inf
    )
    assert math.isclose(p_above(differences), found.pvalue, rel_tol=1e-12)


@pytest.mark.parametrize("pairs", [1, 2, 5, 6, 10, 15, 30])
def test_smallest_p_is_one_over_the_number_of_sign_patterns(pairs):
    assert p_above([1.0 + place for place in range(pairs)]) == 0.5**pairs
    assert p_above([1.0] * pairs) == 0.5**pairs
    assert p_above([-1.0 - place for place in range(pairs)]) == 1.0


def test_zeros_are_no_evidence():
    assert p_above([0.0] * 15) == p_below([0.0] * 15) == 1.0
    assert p_above([0.5, 0.5, 0.5], 0.5) == 1.0
    assert p_above([0.0, 1, 2, 3, 4]) == counted([-0.1, 1, 2, 3, 4])


def test_no_differences_are_no_evidence():
    assert p_above([]) == p_below([]) == 1.0
    for needs_some in (hodges_lehmann, interval, lambda values: strict_interval(values, 0.05)):
        with pytest.raises(ValueError, match="at least one difference"):
            needs_some([])
    assert upper_bound([], 0.05) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_difference_is_refused(bad):
    for function in (p_above, p_below, hodges_lehmann, interval):
        with pytest.raises(ValueError, match="finite"):
            function([0.1, bad])


@pytest.mark.parametrize("level", [-0.1, 1.0, math.nan])
def test_invalid_confidence_level_is_refused(level):
    with pytest.raises(ValueError, match="level"):
        interval([0.1, 0.2], level)


@given(several)
def test_negated_differences_exchange_the_sides(differences):
    mirrored = [-value for value in differences]
    assert p_above(differences) == p_below(mirrored)
    assert hodges_lehmann(differences) == -hodges_lehmann(mirrored)
    there, back = interval(differences), interval(mirrored)
    assert (there.low, there.high, there.level) == (-back.high, -back.low, back.level)


@given(several, st.randoms())
def test_the_order_does_not_matter(differences, random):
    shuffled = random.sample(differences, len(differences))
    assert p_above(shuffled) == p_above(differences)
    assert interval(shuffled) == interval(differences)


@given(st.one_of(several, tied), ratios, ratios)
def test_p_values_are_monotonic_in_the_shift(differences, one, other):
    low, high = sorted((one, other))
    assert p_above(differences, low) <= p_above(differences, high)
    assert p_below(differences, low) >= p_below(differences, high)


@given(st.one_of(several, tied), st.floats(0, 0.999))
def test_p_values_are_probabilities_that_add_up_to_at_least_one(differences, shift):
    above, below = p_above(differences, shift), p_below(differences, shift)
    assert 0 < above <= 1
    assert 0 < below <= 1
    assert above + below >= 1


@given(tied, st.integers(-100, 100))
def test_estimate_and_interval_move_with_the_differences(differences, shift):
    moved = [value + shift for value in differences]
    assert hodges_lehmann(moved) == hodges_lehmann(differences) + shift
    assert interval(moved).low == interval(differences).low + shift


@given(several)
def test_the_estimate_is_the_median_of_all_means(differences):
    means = [(a + b) / 2 for place, a in enumerate(differences) for b in differences[place:]]
    assert math.isclose(hodges_lehmann(differences), stats.scoreatpercentile(means, 50), abs_tol=1e-12)


@given(several, st.floats(0, 0.99), st.floats(0, 0.99))
def test_interval_contains_the_estimate_and_grows_with_its_level(differences, one, other):
    less, more = (interval(differences, level) for level in sorted((one, other)))
    middle = hodges_lehmann(differences)
    assert min(differences) <= more.low <= less.low <= middle <= less.high <= more.high <= max(differences)
    assert less.level <= more.level
    assert more.level >= max(one, other) - 1e-12 or (more.low, more.high) == (
        min(differences),
        max(differences),
    )


@pytest.mark.parametrize(
    ("pairs", "level"), [(1, 0.0), (4, 0.875), (5, 0.9375), (6, 0.90625), (10, 0.916015625), (15, 0.9053955)]
)
def test_levels_match_published_tables(pairs, level):
    found = interval([float(value) for value in range(1, pairs + 1)])
    assert math.isclose(found.level, level, abs_tol=1e-7)


@given(generic(least=5))
def test_interval_contains_what_the_test_does_not_reject(differences):
    found = interval(differences)
    tail, step = (1 - found.level) / 2, 1e-6
    assert p_above(differences, found.low - step) <= tail + 1e-12 < p_above(differences, found.low + step)
    assert p_below(differences, found.high + step) <= tail + 1e-12 < p_below(differences, found.high - step)


@given(generic(), st.floats(0.001, 0.49))
def test_test_rejects_exactly_above_the_upper_bound(differences, tail):
    bound = upper_bound(differences, tail)
    if bound is None:
        assert 0.5 ** len(differences) > tail
    else:
        assert p_below(differences, bound + 1e-6) <= tail < p_below(differences, bound - 1e-6)


@given(several, st.floats(0.0001, 0.5))
def test_strict_interval_has_at_least_the_given_tail(differences, tail):
    found = strict_interval(differences, tail)
    strictest = 0.5 ** len(differences)
    assert (1 - found.level) / 2 >= min(tail, strictest) - 1e-12
    if tail <= strictest:
        assert (found.low, found.high) == (min(differences), max(differences))


@pytest.mark.parametrize("pairs", [6, 10])
def test_interval_coverage_equals_its_level(pairs):
    # Around zero every sign pattern is equally likely. Count those whose interval contains zero.
    sizes = [2.0**place for place in range(pairs)]
    held, level = 0, interval(sizes).level
    for signs in product((-1, 1), repeat=pairs):
        found = interval([sign * size for sign, size in zip(signs, sizes, strict=True)])
        held += found.low <= 0 <= found.high
    assert held / 2**pairs == level


def test_large_values_stay_finite():
    assert hodges_lehmann([1e308, 1.5e308]) == 1.25e308
    assert p_above([1e308, -1.5e308], -1e308) == 0.5
