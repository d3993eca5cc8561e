"""Interference rules on the kernel's counters."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufbench.checks.interference import Judge, environment_sentence, is_environment, main_reason
from ggufbench.records.parts import Disturbance
from ggufbench.thresholds import Tolerance

QUIET = {
    "wall_seconds": 1.0,
    "cpu_seconds": 0.999,
    "waiting_seconds": 0.001,
    "major_faults": 0,
    "machine_busy_seconds": 1.02,
    "machine_steal_seconds": 0.0,
}


def kinds(evidence, *, device="cpu", threads=1, cores=2, phase="decode", **tolerance):
    judge = Judge(device, threads, cores, Tolerance(**tolerance))
    return [reason.kind for reason in judge.reasons(evidence, phase)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"waiting_seconds": 0.05}, ["waiting"]),
        ({"machine_busy_seconds": 2.0}, ["other work"]),
        ({"machine_busy_seconds": 1.2}, []),
        ({"machine_steal_seconds": 0.3}, ["stolen"]),
        ({"major_faults": 11}, ["disk"]),
        ({"throttle_count": 1}, ["heat"]),
        ({"throttled_seconds": 0.02}, []),
        ({"throttled_seconds": 0.5, "waiting_seconds": 0.5}, ["throttled"]),
        ({"waiting_seconds": 0.5, "machine_busy_seconds": 2.0}, ["waiting", "other work"]),
    ],
)
def test_each_kind_of_interference_has_a_rule(change, expected):
    assert kinds({**QUIET, **change}) == expected


def test_gpu_samples_ignore_only_other_work():
    busy = {**QUIET, "machine_busy_seconds": 2.0}
    assert kinds(busy, device="cuda") == []
    assert kinds({**busy, "machine_steal_seconds": 0.4}, device="cuda") == ["stolen"]
    assert kinds({**busy, "waiting_seconds": 0.2}, device="metal") == ["waiting"]
    assert kinds({**busy, "waiting_seconds": 0.2}, device="rpc") == [], "its server takes turns with it"


def test_loading_is_allowed_to_read_the_disk():
    faults = {**QUIET, "major_faults": 5000}
    assert kinds(faults, phase="load") == kinds(faults, phase="first_decode") == []
    assert kinds(faults, phase="prompt") == ["disk"]


def test_idle_time_counts_as_waiting_without_a_counter():
    counters = {name: value for name, value in QUIET.items() if name != "waiting_seconds"}
    assert kinds(counters) == []
    assert kinds({**counters, "cpu_seconds": 0.7, "machine_busy_seconds": 0.8}) == ["waiting"]
    assert kinds({**counters, "cpu_seconds": 1.0, "machine_busy_seconds": 1.0}, threads=2) == ["waiting"]
    assert kinds({**counters, "cpu_seconds": 0.1, "machine_busy_seconds": 0.1}, device="metal") == []


def test_short_sample_is_not_judged_by_ticks_of_10_ms():
    short = {"wall_seconds": 0.006, "cpu_seconds": 0.006, "machine_busy_seconds": 0.03, "waiting_seconds": 0}
    assert kinds(short) == []
    assert kinds({**short, "waiting_seconds": 0.003}) == []
    assert kinds({**short, "waiting_seconds": 0.0055}) == ["waiting"]


def test_tolerance_comes_from_the_scenario():
    busy = {**QUIET, "machine_busy_seconds": 2.0, "waiting_seconds": 0.2}
    assert kinds(busy, most_other_work=0.6) == ["waiting"]
    assert kinds(busy, most_other_work=1.0, most_waiting=1.0) == []


def test_no_evidence_gives_no_reason():
    assert kinds({}) == []
    assert kinds({"wall_seconds": 0.0, "major_faults": 100}) == []


COUNTERS = dict.fromkeys((name for name in QUIET if name != "wall_seconds"), st.floats(0, 1e6))


@given(st.fixed_dictionaries({"wall_seconds": st.floats(1e-6, 1e4)}, optional=COUNTERS))
def test_more_interference_never_clears_a_sample(evidence):
    worse = {**evidence}
    for name in ("waiting_seconds", "machine_steal_seconds", "major_faults", "machine_busy_seconds"):
        if name in worse:
            worse[name] = worse[name] * 2
    assert set(kinds(evidence)) <= set(kinds(worse))
    for reason in Judge("cpu", 1, 2, Tolerance()).reasons(evidence, "decode"):
        assert reason.share >= 0
        assert reason.kind == "disk" or reason.share <= 1


def test_environment_needs_more_than_half_of_the_samples():
    assert not is_environment(0, 0)
    assert not is_environment(6, 12)
    assert is_environment(7, 12)


def test_sentence_names_reason_process_and_remedy():
    reasons = [
        [Disturbance("other work", 0.5), Disturbance("waiting", 0.05)],
        [Disturbance("other work", 0.4)],
        [Disturbance("other work", 0.6)],
        [],
    ]
    main = main_reason(reasons)
    assert main == Disturbance("other work", 0.5)
    busy = [SimpleNamespace(name="stress", core_share=0.98)]
    assert environment_sentence(3, 4, main, busy) == (
        "3 of 4 samples had interference: other processes used 50 % of the machine "
        "(stress used 98 % of a core); end other work and measure again"
    )
    assert main_reason([[], []]) is None
