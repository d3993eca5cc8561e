"""The equivalence test of a ratio: its verdicts, its error rate, and the number of pairs that it needs."""

import math
import random
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufbench.stats.equivalence import LEAST_PAIRS, equivalence
from ggufbench.stats.signed_rank import interval

logs = st.floats(min_value=-1, max_value=1)


def ratios(*values: float) -> list[float]:
    return [math.log(value) for value in values]


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [
        (0.97, "differs"),
        (0.979, "differs"),
        (0.98, "agrees"),
        (1.0, "agrees"),
        (1.02, "agrees"),
        (1.03, "differs"),
    ],
)
def test_without_spread_the_ratio_decides(ratio, verdict):
    found = equivalence(ratios(*[ratio] * 5), 0.02)
    assert (found.verdict, found.pairs_needed) == (verdict, None)
    assert found.ratio == pytest.approx(ratio)


def test_interval_across_the_bound_is_inconclusive():
    # The bound of 0.98 lies between the ratio, 0.977, and the upper end of its interval.
    found = equivalence(ratios(0.966, 0.964, 0.977, 0.971, 1.054, 1.027, 0.971, 0.961, 1.045, 0.966), 0.02)
    assert [round(value, 3) for value in (found.ratio, found.low, found.high)] == [0.977, 0.966, 1.009]
    assert (found.verdict, found.pairs_needed) == ("inconclusive", 506)


@pytest.mark.parametrize(
    ("centre", "verdict"),
    [(1.0, "agrees"), (1.015, "inconclusive"), (1.022, "inconclusive"), (1.1, "differs"), (0.9, "differs")],
)
def test_the_whole_interval_decides(centre, verdict):
    spread = [-0.012, -0.008, -0.005, -0.002, 0.0, 0.001, 0.004, 0.007, 0.009, 0.012]
    found = equivalence([math.log(centre) + step for step in spread], 0.02)
    assert (found.verdict, found.low < found.ratio < found.high) == (verdict, True)
    assert found.level >= 0.90
    assert (found.pairs_needed is None) == (verdict != "inconclusive")


def test_pairs_needed_decide_at_the_same_spread():
    quantiles = [NormalDist(0.006, 0.03).inv_cdf((n + 0.5) / 8) for n in range(8)]
    needed = equivalence(quantiles, 0.02).pairs_needed
    assert needed is not None and 8 < needed < 100
    more = [NormalDist(0.006, 0.03).inv_cdf((n + 0.5) / needed) for n in range(needed)]
    assert equivalence(more, 0.02).verdict == "agrees"


@pytest.mark.parametrize("count", range(1, LEAST_PAIRS))
def test_fewer_than_five_pairs_are_inconclusive(count):
    for ratio in (1.0, 9.0):
        found = equivalence(ratios(*[ratio] * count), 0.02)
        assert (found.verdict, found.pairs_needed) == ("inconclusive", LEAST_PAIRS)
        assert found.level < 0.90


def test_a_90_percent_interval_needs_five_pairs():
    assert interval([0.0] * LEAST_PAIRS).level >= 0.90 > interval([0.0] * (LEAST_PAIRS - 1)).level


def test_the_widest_tolerance_has_no_lower_bound():
    assert equivalence(ratios(*[1e-9] * 5), 1.0).verdict == "agrees"
    assert equivalence(ratios(*[2.1] * 5), 1.0).verdict == "differs"


@given(st.lists(logs, min_size=1, max_size=20))
def test_exchanged_sides_give_the_inverse(values):
    there, back = equivalence(values, 0.02), equivalence([-value for value in values], 0.02)
    assert math.isclose(there.ratio * back.ratio, 1, rel_tol=1e-9)
    assert math.isclose(there.low * back.high, 1, rel_tol=1e-9)
    assert there.level == back.level


def test_false_agreement_at_the_tolerance_is_at_most_5_percent():
    noise, sessions = random.Random(7), 600
    agreed = sum(
        equivalence([noise.gauss(math.log(1.02), 0.005) for _ in range(10)], 0.02).verdict == "agrees"
        for _ in range(sessions)
    )
    assert agreed <= 0.05 * sessions + 2 * math.sqrt(sessions * 0.05 * 0.95)


@pytest.mark.parametrize(
    ("values", "tolerance", "words"),
    [
        ([], 0.02, "needs at least one difference"),
        ([math.inf], 0.02, "inf is not a finite number; leave that pair out"),
        ([0.0], -0.1, "tolerance -0.1 is outside"),
        ([0.0], 1.1, "tolerance 1.1 is outside"),
        ([0.0], math.nan, "tolerance nan is outside"),
    ],
)
def test_invalid_input_is_refused(values, tolerance, words):
    with pytest.raises(ValueError, match=words):
        equivalence(values, tolerance)
