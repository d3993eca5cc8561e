"""One launch under supervision: every sample is judged once, for both the answer and the record."""

import dataclasses
import os
import shutil

import pytest

from ggufbench.comparing.llama_bench import LlamaBenchArm, LlamaBenchError
from ggufbench.launching.launcher import Ended, LaunchRefusedError
from ggufbench.measuring import supervisor as supervising
from ggufbench.measuring.case import Bench
from ggufbench.measuring.record_builder import build_launch
from ggufbench.measuring.supervisor import LaunchSupervisor
from ggufbench.outcomes import Outcome
from ggufbench.records.parts import Disturbance
from ggufbench.worker import protocol
from ggufbench.worker.protocol import AGAIN, GO

WAITING = Disturbance("waiting", 0.5)
LOADED = protocol.Loaded(1.0, 0.5, {"wall_seconds": 1.5}, None, protocol.EffectiveSetting(n_ctx=256), [], [])


class Judge:
    """A judge that takes its reasons from the evidence, and counts its calls."""

    def __init__(self):
        self.asked = 0

    def reasons(self, evidence, _phase):
        self.asked += 1
        return [WAITING] if "disturbed" in evidence else []


@pytest.fixture
def supervise(llama_folder, plan_cases, monkeypatch):
    """A function that returns the supervisor of a launch of two repetitions, on the CPU or on that device."""
    monkeypatch.setattr(supervising, "busiest_processes", lambda _seconds: ["a browser"])
    case = plan_cases(llama_folder, launches=1).cases[0]

    def make(device="cpu"):
        setting = dataclasses.replace(case.setting, device=device)
        return LaunchSupervisor(dataclasses.replace(case, setting=setting), Judge(), lambda _launch: None)

    return make


def sample(phase, *, disturbed=False, warmup=False):
    evidence = {"disturbed": 1.0} if disturbed else {}
    return protocol.TimedSample(phase, warmup, 4, 0.5, [], [], evidence)


def test_each_sample_is_judged_once(supervise):
    launch = supervise()
    events = [
        LOADED,
        sample("prompt", disturbed=True, warmup=True),
        sample("prompt"),
        *[sample("prompt", disturbed=True)] * 3,
        sample("decode", disturbed=True),
    ]
    answers = [launch(event, 1) for event in events]
    assert answers == [GO, GO, GO, AGAIN, AGAIN, GO, AGAIN], "one retry per sample on average"
    assert launch.judge.asked == len(events)
    assert (launch.disturbed, launch.processes) == (4, ["a browser"]), "a warm-up does not count"
    launch.ended = Ended(Outcome.MEASURED, [], 1.0)
    record = build_launch(launch, keep_log=True)
    assert launch.judge.asked == len(events), "the record calls no judge"
    assert [bool(kept.disturbed) for kept in record.samples] == [False, True, False, True, True, True, True]
    assert [kept.phase for kept in record.samples] == ["load", *["prompt"] * 5, "decode"]
    assert record.samples[0].seconds == record.model_seconds + record.context_seconds == 1.5


def test_a_refused_load_is_still_recorded(supervise):
    launch = supervise("cuda")
    with pytest.raises(LaunchRefusedError):
        launch(LOADED, 1)
    launch.ended = Ended(Outcome.FAILED, [], 1.0, "load", "it is on the CPU")
    record = build_launch(launch, keep_log=False)
    assert [kept.phase for kept in record.samples] == ["load"]
    assert record.effective.n_ctx == 256


def test_observers_get_the_launch(supervise):
    launch, shown = supervise(), []
    launch.observer = lambda found: shown.append((found.number, found.phase, found.pid))
    launch(protocol.Phase("prompt"), 77)
    launch(protocol.Mark("prompt", {"rss_bytes": 5}, {}, []), 77)
    launch(protocol.Digest("abc"), 77)
    assert shown == [(1, "prompt", 77)]
    assert (launch.phase, launch.digest, launch.marks[0].memory) == ("prompt", "abc", {"rss_bytes": 5})


def replaced(path):
    other = path.with_suffix(".other")
    shutil.copy2(path, other)  # the same size and time of modification
    other.replace(path)


def grown(path):
    with path.open("ab") as file:
        file.write(b"0")


def fifo(path):
    path.unlink()
    os.mkfifo(path)


@pytest.fixture
def own_case(llama_folder, plan_cases, tmp_path):
    """A case of a model that this test may change."""
    shutil.copy(llama_folder / "llama-tiny-Q8_0.gguf", tmp_path)
    return plan_cases(tmp_path, launches=1).cases[0]


@pytest.mark.parametrize("change", [replaced, grown, fifo, os.unlink])
@pytest.mark.parametrize("event", [protocol.Phase("load"), LOADED])
def test_a_file_that_changed_after_planning_is_not_measured(own_case, change, event):
    launch = LaunchSupervisor(own_case, Judge(), lambda _launch: None)
    assert launch(protocol.Phase("load"), 1) == GO
    change(own_case.model.path)
    with pytest.raises(LaunchRefusedError, match="was replaced, changed or removed after it was found"):
        launch(event, 1)


def test_llama_bench_does_not_measure_a_changed_file(own_case, tmp_path):
    replaced(own_case.model.path)
    arm = LlamaBenchArm(tmp_path / "llama-bench", {own_case.id: []})
    with pytest.raises(LlamaBenchError, match="was replaced, changed or removed after it was found"):
        arm.measure(own_case, Bench("run", None, None), {})
