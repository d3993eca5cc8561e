"""The gate: verdicts, and error rates from all sign patterns and from simulation with a fixed seed."""

import math
import random
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ggufbench.stats.sequential_test import STANDARD, Design, Series, holm, judge, order_effect
from ggufbench.stats.signed_rank import hodges_lehmann, p_above, p_below

ratios = st.floats(min_value=-0.3, max_value=0.3).map(lambda value: round(value, 5))
series = st.builds(Series, st.lists(ratios, max_size=18), st.sampled_from([0.0, 0.02, 0.05, 0.2]))
families = st.dictionaries(st.integers(0, 9), series, min_size=1, max_size=6)
quick = settings(max_examples=60, deadline=None)


def one(differences, tolerance=0.05, design=STANDARD):
    return judge({"cell": Series(differences, tolerance)}, design)["cell"]


def around(middle, pairs, spread=0.01):
    """Log ratios spread evenly around a centre, in an order without a trend."""
    steps = [spread * (2 * place / max(1, pairs - 1) - 1) for place in range(pairs)]
    return [middle + step for step in random.Random(pairs).sample(steps, pairs)]


@pytest.mark.parametrize(
    ("change", "pairs", "verdict", "decided"),
    [
        (0.0, 6, "no regression", True),
        (0.0, 5, "inconclusive", False),
        (0.10, 6, "inconclusive", False),
        (0.10, 9, "inconclusive", False),
        (0.10, 10, "regression", True),
        (0.10, 15, "regression", True),
        (0.045, 6, "inconclusive", False),
        (0.03, 10, "no regression", True),
        (-0.10, 6, "improvement", True),
        (-0.03, 15, "no regression", True),
        (math.log(1.05) - 0.001, 15, "inconclusive", True),
    ],
)
def test_verdicts(change, pairs, verdict, decided):
    found = one(around(change, pairs))
    assert (found.verdict, found.decided) == (verdict, decided)


def test_large_noise_alone_is_no_regression():
    found = one(around(0.06, 15, spread=0.5))
    assert (found.verdict, found.decided) == ("inconclusive", True)
    assert found.change > 0.05
    assert found.p_regression > STANDARD.alpha


def test_significant_change_within_tolerance_is_marked():
    found = one(around(0.03, 10, spread=0.004))
    assert (found.verdict, found.real_but_small) == ("no regression", True)
    assert found.p_regression <= STANDARD.alpha
    assert not one(around(0.0, 10)).real_but_small
    assert not one(around(0.1, 10)).real_but_small


def test_figures_of_a_plain_case():
    differences = around(0.10, 10)
    found = one(differences)
    assert (found.pairs, found.tolerance) == (10, 0.05)
    assert math.isclose(found.change, math.expm1(hodges_lehmann(differences)))
    assert found.low < found.change < found.high < found.excluded_above
    assert 0.90 <= found.level < 0.95
    assert found.p_regression == p_above(differences) / 0.4 == 1 / 1024 / 0.4
    assert found.p_no_regression == 1
    assert found.pairs_needed is None
    assert 0.05 < found.smallest_detectable < 0.08


def test_only_pairs_up_to_a_look_count():
    start = around(0.0, 6)
    assert one([*start, 0.9]) == one([*start, 0.9, 0.9]) == one(start)
    assert one([*around(0.1, 15), -0.9]) == one(around(0.1, 15))


def test_result_of_an_early_look_is_kept():
    # Ten pairs are clearly worse, the next five are not. The p-value of ten stays, and so does its size.
    differences = [*around(0.12, 10), *around(-0.01, 5, spread=0.002)]
    found = one(differences)
    assert found.p_regression == p_above(differences[:10]) / 0.4
    assert found.verdict == "regression"
    # Six pairs pass, nine worse ones follow. What six excluded does not pass against the estimate.
    differences = [*around(-0.02, 6), *around(0.2, 9)]
    found = one(differences)
    assert found.p_no_regression <= 0.05 < found.change
    assert found.verdict == "regression"
    assert found.excluded_above >= found.change
    # If that is not significant either, the verdict is inconclusive.
    found = one([*around(-0.02, 6), *around(0.5, 4)])
    assert found.p_no_regression <= 0.05 < found.change
    assert (found.verdict, found.excluded_above) == ("inconclusive", found.change)


def test_improvement_by_chance_is_not_reported():
    found = one([-0.1, -0.11, -0.12, -0.13, -0.14, 0.02])
    assert found.change < -0.05
    assert found.verdict == "no regression"


def test_cell_without_pairs_has_all_figures():
    found = one([])
    assert (found.verdict, found.decided, found.pairs) == ("inconclusive", False, 0)
    assert (found.change, found.low, found.high, found.level) == (0, 0, 0, 0)
    assert (found.p_regression, found.p_no_regression) == (1, 1)
    assert found.smallest_detectable is found.excluded_above is found.pairs_needed is None
    assert judge({}) == {}


def test_estimate_and_interval_before_the_first_look():
    found = one(around(0.1, 5))
    assert (found.verdict, found.decided, found.pairs) == ("inconclusive", False, 5)
    assert found.low < found.change < found.high
    assert found.excluded_above is None
    assert found.smallest_detectable > 0.05
    assert found.pairs_needed == 6
    assert one([0.1]).level == 0


def test_equal_values_as_measured_for_memory():
    found = one([0.0] * 6, tolerance=0.02)
    assert (found.verdict, found.change, found.smallest_detectable) == (
        "no regression",
        0,
        pytest.approx(0.02),
    )
    assert one([0.0] * 6, tolerance=0.0).verdict == "inconclusive"
    assert one([0.03] * 10, tolerance=0.02).verdict == "regression"


def test_pairs_needed_are_rounded_up_to_a_look():
    assert one(around(0.10, 6)).pairs_needed == 10
    wide = one(around(0.02, 15, spread=0.12))
    assert wide.verdict == "inconclusive"
    assert 15 < wide.pairs_needed < 100
    # Above the tolerance the interval must exclude zero, not the tolerance, which is nearer.
    worse = one(around(0.06, 15, spread=0.25))
    assert (worse.verdict, worse.low < 0) == ("inconclusive", True)
    assert 15 < worse.pairs_needed < 60
    assert one(around(math.log(1.05) - 1e-6, 15, spread=0.2)).pairs_needed is None


def test_larger_family_makes_only_regressions_harder():
    differences = around(0.10, 10)
    rest = {f"other {place}": Series(around(0.0, 10), 0.05) for place in range(11)}
    found = judge({"cell": Series(differences, 0.05), **rest})
    assert found["cell"].p_regression == 12 * p_above(differences) / 0.4
    assert found["cell"].verdict == "regression"  # the smallest p of ten pairs is enough for 12 cells
    assert all(found[key].p_no_regression == one(around(0.0, 10)).p_no_regression for key in rest)
    more = judge({"cell": Series(differences, 0.05), "one more": Series([], 0.05), **rest})
    assert more["cell"].verdict == "inconclusive"
    assert more["cell"].smallest_detectable > one(differences).smallest_detectable


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.9}) == {"a": 0.04, "c": 0.09, "b": 0.09, "d": 0.9}
    assert holm({"a": 0.5, "b": 0.5}) == {"a": 1.0, "b": 1.0}


@given(st.dictionaries(st.integers(0, 20), st.floats(0, 1), min_size=1), st.floats(0, 1))
def test_holm_keeps_the_order_and_grows_with_the_family(p_values, another):
    adjusted = holm(p_values)
    for key, value in p_values.items():
        assert value <= adjusted[key] <= 1
        assert all(adjusted[key] <= adjusted[other] for other in p_values if value <= p_values[other])
    more = holm({**p_values, "another": another})
    assert all(more[key] >= adjusted[key] for key in p_values)


@quick
@given(families, st.randoms())
def test_the_order_of_cells_does_not_matter(family, shuffle):
    keys = shuffle.sample(sorted(family), len(family))
    assert judge({key: family[key] for key in keys}) == judge(family)


@quick
@given(families, series)
def test_additional_cell_never_adds_a_regression(family, another):
    before, after = judge(family), judge({**family, "another": another})
    for key, found in before.items():
        assert after[key].p_regression >= found.p_regression
        assert after[key].p_no_regression == found.p_no_regression
        assert found.verdict == "regression" or after[key].verdict != "regression"
        assert (after[key].change, after[key].excluded_above) == (found.change, found.excluded_above)


@quick
@given(series)
def test_figures_of_a_judgement_are_consistent(cell):
    found = judge({0: cell})[0]
    numbers = (found.change, found.low, found.high, found.level, found.p_regression, found.p_no_regression)
    assert all(map(math.isfinite, numbers))
    assert found.low <= found.change <= found.high
    assert 0 < found.p_regression <= 1
    assert 0 < found.p_no_regression <= 1
    assert found.decided or found.verdict == "inconclusive"
    assert (found.pairs_needed is None) or (
        found.verdict == "inconclusive" and found.pairs_needed > found.pairs
    )
    if found.verdict == "regression":
        assert found.change >= cell.tolerance - 1e-12
        assert found.low > 0
    if found.verdict in ("improvement", "no regression"):
        assert found.change < cell.tolerance + 1e-12
    if found.smallest_detectable is not None:
        assert found.smallest_detectable >= cell.tolerance - 1e-12


@quick
@given(
    st.integers(2, 12),
    st.lists(st.sampled_from([-1, 1]), min_size=6, max_size=15),
    st.sampled_from([0.05, 0.3]),
)
def test_cell_passes_exactly_if_the_tolerance_is_excluded(scale, signs, tolerance):
    # Sizes in powers of three have no ties under any shift.
    differences = [0.02 + sign * scale * 3.0**-place for place, sign in enumerate(signs)]
    found = one(differences, tolerance)
    assume(abs(found.excluded_above - tolerance) > 1e-9)
    passed = found.verdict in ("improvement", "no regression")
    assert passed == (found.excluded_above < tolerance)


@quick
@given(st.lists(ratios, min_size=6, max_size=15), st.floats(0, 0.2))
def test_worse_data_never_improve_the_verdict(differences, shift):
    before, after = one(differences), one([value + shift for value in differences])
    order = ["improvement", "no regression", "inconclusive", "regression"]
    assert order.index(after.verdict) >= order.index(before.verdict)


SMALL = Design(
    looks=(3, 5, 8), regression_weights=(0.2, 0.3, 0.5), pass_weights=(0.5, 0.2, 0.3), alpha=0.4, beta=0.4
)


def test_interim_looks_keep_the_permitted_errors():
    # Without a change every pattern of signs is equally likely. Count those significant at any look.
    sizes = [0.5**place for place in range(8)]
    patterns = list(product((-1, 1), repeat=8))
    crossed = passed = 0
    for signs in patterns:
        differences = [sign * size for sign, size in zip(signs, sizes, strict=True)]
        crossed += any(
            one(differences[:look], 0.0, SMALL).p_regression <= SMALL.alpha for look in SMALL.looks
        )
        shifted = [math.log(1.05) + value for value in differences]
        passed += any(one(shifted[:look], 0.05, SMALL).p_no_regression <= SMALL.beta for look in SMALL.looks)
    assert 0 < crossed / len(patterns) <= SMALL.alpha
    assert 0 < passed / len(patterns) <= SMALL.beta


def test_family_wise_error_stays_within_alpha():
    design = Design(looks=(3, 5), regression_weights=(0.5, 0.5), pass_weights=(0.5, 0.5), alpha=0.45)
    cells = [[sign / 2**place for place, sign in enumerate(signs)] for signs in product((-1, 1), repeat=5)]
    crossed = 0
    for first, second in product(cells, cells):
        found = judge({0: Series(first, 0.0), 1: Series(second, 0.0)}, design)
        crossed += any(cell.p_regression <= design.alpha for cell in found.values())
    assert 0 < crossed / len(cells) ** 2 <= design.alpha


def sessions(change, runs, seed, spread=0.03):
    """Verdicts and mean launches of sessions with normal noise, judged look by look until decided."""
    draw = random.Random(seed)
    verdicts, launches = [], 0
    for _ in range(runs):
        differences = [draw.gauss(math.log1p(change), spread) for _ in range(15)]
        found = next(found for look in STANDARD.looks if (found := one(differences[:look])).decided)
        verdicts.append(found.verdict)
        launches += 2 * found.pairs
    return verdicts, launches / runs


def test_no_change_rarely_alarms_and_ten_percent_is_found():
    verdicts, launches = sessions(0.0, 400, seed=1)
    assert verdicts.count("regression") <= 2
    assert verdicts.count("no regression") >= 380
    assert launches < 18
    verdicts, launches = sessions(0.10, 400, seed=2)
    assert verdicts.count("regression") >= 390
    assert verdicts.count("no regression") == 0
    assert launches < 24


@pytest.mark.parametrize("spread", [0.01, 0.04, 0.15])
def test_minimum_detectable_effect_has_the_stated_power(spread):
    draw = random.Random(3)
    found = []
    for _ in range(300):
        reported = one([draw.gauss(0, spread) for _ in range(15)]).smallest_detectable
        again = [draw.gauss(math.log1p(reported), spread) for _ in range(15)]
        found.append(any(one(again[:look]).verdict == "regression" for look in (10, 15)))
    assert 0.75 <= sum(found) / len(found) <= 0.95


def test_order_effect_is_two_sided():
    worse = around(0.02, 10)
    assert order_effect(worse) == order_effect([-value for value in worse]) == 2 / 1024
    assert order_effect(around(0.0, 10)) > 0.5
    assert order_effect([]) == order_effect([0.0] * 9) == 1
    assert order_effect(worse[:3]) == 2 * p_above(worse[:3]) < 2 * p_below(worse[:3])


def test_extended_design_has_later_looks():
    design = STANDARD.extended(2)
    assert design.looks == (12, 20, 30)
    assert (design.pass_weights, design.alpha) == (STANDARD.pass_weights, STANDARD.alpha)
    assert one(around(0.1, 15), design=design).pairs == 12
    with pytest.raises(ValueError, match="looks"):
        STANDARD.extended(0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"looks": ()}, "looks"),
        ({"looks": (10, 6, 15)}, "ascending"),
        ({"looks": (6, 6, 15)}, "ascending"),
        ({"looks": (0, 6, 15)}, "looks"),
        ({"looks": (6, 10)}, "3 weights for 2 looks"),
        ({"regression_weights": (0.5, 0.4, 0.6)}, "their sum at most 1"),
        ({"regression_weights": (0.4, 0.6, 0.0)}, "the last above 0"),
        ({"pass_weights": (-0.1, 0.5, 0.6)}, "0 or more"),
        ({"pass_weights": (math.nan, 0.5, 0.5)}, "weights"),
        ({"alpha": 0.0}, "permitted error"),
        ({"alpha": math.nan}, "permitted error"),
        ({"beta": 0.5}, "permitted error"),
    ],
)
def test_invalid_design_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Design(**wrong)


@pytest.mark.parametrize(
    ("differences", "tolerance"), [([math.nan], 0.05), ([math.inf], 0.05), ([0.0], -0.01), ([0.0], math.nan)]
)
def test_invalid_series_is_refused(differences, tolerance):
    with pytest.raises(ValueError, match=r"leave that pair out|not a finite number of 0 or more"):
        Series(differences, tolerance)


def test_extreme_log_ratios_have_finite_figures():
    found = one([1e300] * 10)
    assert found.verdict == "regression"
    assert all(
        map(math.isfinite, (found.change, found.high, found.excluded_above, found.smallest_detectable))
    )
    assert one([-1e300] * 10).change == -1
