"""Rules of the history, checked against formulas and simulations, and selection of sessions."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ggufbench.history.gate import HistoryGateRequest, gate
from ggufbench.history.judgement import State, creep, judge, other_host
from ggufbench.history.series import ABSOLUTE, ANCHORED, HistoryQuery, history
from ggufbench.records.comparison import Verdict
from ggufbench.records.store import StoreError

OUT = (State.SUSPECT, State.REGRESSION)


def states(values, tolerance=0.05, *, hold_out=True):
    return [found.state for found in judge(values, tolerance, hold_out=hold_out)]


def noise(seed, count=40, spread=0.01):
    return list(np.random.default_rng(seed).normal(0, spread, count))


# Rules.


numbers = st.lists(st.floats(-0.2, 0.2), min_size=1, max_size=45)


@given(numbers, st.floats(0.001, 0.3))
def test_outlier_rule_matches_the_formula(values, tolerance):
    *before, newest = values
    last = np.array(before[-20:])
    expected = False
    if len(last) >= 10:
        center = np.median(last)
        spread = np.median(np.abs(last - center))
        bounds = math.log(1 + tolerance), 3.5 * 1.4826 * spread * math.sqrt(1 + 1.57 / 20)
        assume(all(abs(newest - center - bound) > 1e-12 for bound in bounds))
        expected = newest - center > max(bounds)
    found = judge(values, tolerance, hold_out=False)[-1]
    assert (found.state in OUT) == expected
    assert found.before == len(last)
    assert (found.state is State.TOO_FEW) == (len(last) < 10)


@settings(max_examples=50)
@given(numbers, st.sampled_from([-0.5, 0.25, 1.0]), st.booleans())
def test_states_do_not_depend_on_a_common_level(values, level, hold_out):
    rounded = [round(value * 1024) / 1024 for value in values]  # makes the addition exact
    shifted = [value + level for value in rounded]
    assert states(rounded, hold_out=hold_out) == states(shifted, hold_out=hold_out)


def test_nine_sessions_are_too_few_and_ten_are_enough():
    assert states([0.0] * 9 + [1.0])[-1] is State.TOO_FEW
    assert states([0.0] * 10 + [1.0])[-1] is State.SUSPECT


def test_second_bad_session_in_a_row_is_a_regression():
    quiet = noise(1, 20)
    assert states([*quiet, 0.2])[-1] is State.SUSPECT
    assert states([*quiet, 0.2, 0.2])[-1] is State.REGRESSION
    assert states([*quiet, 0.2, 0.0, 0.2])[-3:] == [State.SUSPECT, State.OK, State.SUSPECT]
    assert states([*quiet, -0.2, -0.2])[-1] is State.OK, "faster is not a regression"


def test_hold_out_keeps_a_regression_visible():
    values = noise(2, 30) + [value + math.log(1.08) for value in noise(3, 30)]
    assert set(states(values)[-20:]) == {State.REGRESSION}
    assert set(states(values, hold_out=False)[-10:]) == {State.OK}


def test_drift_is_detected_from_first_and_last_sessions():
    values = [value + 0.004 * step for step, value in enumerate(noise(4, 60, 0.004))]
    assert not set(states(values)) & set(OUT), "the window follows it"
    assert creep(values, 0.05) == pytest.approx(0.004 * 45, abs=0.01)
    assert creep(values[:39], 0.05) is None
    assert creep(values, 0.25) is None
    assert creep(noise(5, 200), 0.05) is None
    assert creep(values[::-1], 0.05) is None


def test_error_rates_of_the_history_are_as_documented():
    """Spread of 1 %, one session in 25 of 5 %; no change for ten sessions, or 10 % slower for three."""
    random = np.random.default_rng(20)
    count, alarms, found = 300, 0, 0
    for _ in range(count):
        values = random.normal(0, 0.01, 50) + (random.random(50) < 0.04) * random.normal(0, 0.05, 50)
        alarms += State.REGRESSION in states(values)[40:]
        values[40:] += math.log(1.10)
        found += State.REGRESSION in states(values[:43])[40:]
    assert alarms <= 0.01 * count
    assert found >= 0.95 * count


def test_anchor_shift_in_every_figure_indicates_another_host():
    quiet = {name: noise(seed, 20) for seed, name in enumerate("abc")}
    moved = {name: [*values, 0.15] for name, values in quiet.items()}
    assert other_host({name: [*values, 0.01] for name, values in quiet.items()}) is None
    assert other_host(moved) == pytest.approx(0.15, abs=0.01)
    assert other_host({name: [*values, -0.15] for name, values in quiet.items()}) < -0.1
    assert other_host({**moved, "a": [*quiet["a"], 0.05]}) is None, "one figure is nearly unchanged"
    assert other_host({**moved, "a": [*quiet["a"], -0.15]}) is None, "the directions differ"
    assert other_host({"a": moved["a"]}) is None, "one figure is not enough"
    assert other_host({name: values[-8:] for name, values in moved.items()}) is None, "too few sessions"


# Selection of sessions.


def nights(stored, count, change=0.0, first=0, **more):
    for day in range(first, first + count):
        stored.comparison(day, change=change + 0.002 * (-1) ** day, **more)


def rows_of(stored, **options):
    return {
        (row.series.kind, row.series.metric): row
        for row in history(HistoryQuery(stored.results, **options)).rows
    }


def decode(stored, kind=ANCHORED, **options):
    return rows_of(stored, **options)[kind, "decode_tokens_per_second"]


def test_anchored_series_use_ratios_and_absolute_ones_values(stored):
    for day in range(13):
        stored.record(day, slower=1.2 if day >= 11 else 1.0)
    nights(stored, 11)
    nights(stored, 2, 0.08, first=11)
    assert decode(stored).state is State.REGRESSION
    assert decode(stored).change == pytest.approx(0.08, abs=0.01)
    slower = decode(stored, ABSOLUTE)
    assert slower.state is State.REGRESSION
    assert slower.change == pytest.approx(0.2, abs=0.001), "a lower rate is worse"
    assert rows_of(stored)[ABSOLUTE, "peak_rss_bytes"].state is State.OK


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"purpose": "positive control"}, "was made slower on purpose"),
        ({"purpose": "a/a selftest"}, "compares an arm with itself"),
        ({"purpose": "bisect"}, "measured an old commit"),
        ({"verdict": Verdict.BROKEN}, "did other work"),
        ({"cell": {"pairs": 5}}, "is too short to tell"),
        ({"cell": {"verdict": Verdict.BROKEN}}, "did other work"),
        ({"cell": {"change": None}}, "has no figure"),
        ({"cell": {"change": -1.0}}, "is impossible"),
        ({"anchor": "llama-cpp-python==0.3.40"}, "is a ratio to something else"),
    ],
)
def test_session_without_the_metric_is_not_in_the_series(stored, other, why):
    nights(stored, 12)
    count = decode(stored).series.count
    stored.comparison(20, change=other.pop("change", 0.5), **other)
    series = [row for row in history(HistoryQuery(stored.results)).rows if row.series.count > 1]
    assert {row.series.count for row in series} == {count}, why


def test_anchor_build_and_settings_begin_new_series(stored):
    nights(stored, 2)
    stored.comparison(5, anchor="llama-cpp-python==0.3.40")
    provider = stored.base.provider
    rebuilt = provider.model_copy(update={"system_info": provider.system_info + " AVX512 = 1 |"})
    patched = provider.model_copy(update={"versions": {**provider.versions, "python": "3.11.99"}})
    before = stored.base
    for day, changes in enumerate(
        [{"provider": rebuilt}, {"provider": patched}, {"scenario": "cpu-other"}], 6
    ):
        stored.base = before.model_copy(update=changes)
        stored.comparison(day)
    counts = sorted(row.series.count for row in history(HistoryQuery(stored.results)).rows)
    assert counts == sorted([3, 1, 1, 1] * 2), "Python's patch version alone does not make a new anchor"


def test_stored_tolerance_of_the_scenario_is_used(stored):
    nights(stored, 12)
    nights(stored, 1, 0.08, first=12, cell={"tolerance": 0.2})
    assert decode(stored).state is State.OK
    nights(stored, 1, 0.08, first=13, cell={"tolerance": None})
    assert decode(stored).state in OUT, "default tolerance of the metric"


def test_short_load_has_an_absolute_tolerance(stored):
    figures = stored.base.summary["ready_seconds"]
    stored.base = stored.base.model_copy(
        update={"summary": {"ready_seconds": type(figures)(**{**_fields(figures), "median": 0.05})}}
    )
    for day in range(12):
        stored.record(day, slower=1.6 if day == 11 else 1.0)
    assert rows_of(stored)[ABSOLUTE, "ready_seconds"].state is State.OK, "30 ms more are within 50 ms"


def _fields(figures):
    return {name: getattr(figures, name) for name in figures.__slots__}


def test_change_points_name_the_run_and_the_changed_versions(stored):
    before = stored.base.provider
    after = before.model_copy(update={"versions": {**before.versions, "llama-cpp-python": "0.3.99"}})
    random = np.random.default_rng(0)
    for day in range(24):
        stored.base = stored.base.model_copy(update={"provider": before if day < 14 else after})
        stored.record(day, slower=(1.0 if day < 14 else 1.1) * math.exp(random.normal(0, 0.01)))
    (level,) = decode(stored, ABSOLUTE).levels
    assert level.run == stored.run(14)
    assert level.changes == ["llama-cpp-python 0.3.36 -> 0.3.99"]
    assert math.expm1(level.point.shift) == pytest.approx(0.1, abs=0.02)


def test_since_ignores_earlier_sessions(stored):
    nights(stored, 12)
    nights(stored, 4, 0.10, first=12)
    assert decode(stored).state is State.REGRESSION
    found = decode(stored, since=stored.run(12))
    assert found.state is State.TOO_FEW and found.series.count == 4
    with pytest.raises(StoreError, match="has no run 'nightly'"):
        history(HistoryQuery(stored.results, since="nightly"))


# Gate.


def judged(stored, run=None, **options):
    return gate(HistoryGateRequest(stored.results, run, **options))


def test_named_run_is_judged_by_earlier_sessions_only(stored):
    nights(stored, 12)
    nights(stored, 5, 0.10, first=12)
    by_run = [judged(stored, stored.run(day)).exit_code(strict=False) for day in (11, 12, 13)]
    assert by_run == [0, 0, 10]


def test_regression_on_another_host_stays_suspect(stored):
    nights(stored, 12)
    nights(stored, 2, 0.10, first=12, anchor_slower=1.3)
    found = judged(stored)
    assert found.other_host == pytest.approx(math.log(1.3), abs=0.01)
    assert {row.state for row in found.rows} == {State.SUSPECT}
    assert found.exit_code(strict=False) == 0 and found.exit_code(strict=True) == 13


def test_case_of_a_single_run_is_not_expected(stored):
    for day in range(6):
        stored.record(day)
    stored.record(6)
    stored.record(6, "tried once")
    stored.record(7)
    assert judged(stored).lost == []
    stored.record(8)
    stored.record(8, "tried once")
    stored.record(9)
    assert [case.case_id for case in judged(stored).lost] == ["tried once-Q8_0-cpu"]


def test_renamed_file_is_not_missing(stored):
    for day in range(3):
        stored.record(day)
    stored.record(3, case_id="renamed-Q8_0-cpu")
    assert judged(stored).lost == []


def test_case_with_a_changed_model_or_workload_is_not_missing(stored):
    for day in range(3):
        stored.record(day)
    stored.record(3, workload=type(stored.base.workload)(prompt_tokens=7))
    assert judged(stored).lost == []
    stored.record(4, model=stored.base.model.model_copy(update={"identity": "ab"}))
    assert judged(stored).lost == []
