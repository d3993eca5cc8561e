"""Confidence bounds of a rate, compared with scipy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ggufbench.stats.binomial import lower_bound, upper_bound


@pytest.mark.parametrize(("runs", "percent"), [(20, 13.9), (59, 5.0)])
def test_upper_bound_without_events_matches_the_formula(runs, percent):
    assert 100 * upper_bound(0, runs) == pytest.approx(percent, abs=0.06)
    assert upper_bound(0, runs) == pytest.approx(1 - 0.05 ** (1 / runs))


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.99))
def test_bounds_match_scipys_clopper_pearson(counts, level):
    events, trials = counts
    exact = stats.binomtest(events, trials).proportion_ci(2 * level - 1, method="exact")
    assert upper_bound(events, trials, level) == pytest.approx(exact.high, abs=1e-9)
    assert lower_bound(events, trials, level) == pytest.approx(exact.low, abs=1e-9)


def test_no_trials_and_impossible_counts():
    assert (upper_bound(0, 0), lower_bound(0, 0)) == (1.0, 0.0)
    with pytest.raises(ValueError, match="3 events in 2 trials are impossible"):
        upper_bound(3, 2)
