"""`ggufbench selftest`: its sessions, their tally, and the worker of the positive control."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ggufbench.comparing.ab import AbRequest, measure, plan
from ggufbench.comparing.selftest import CONTROL, NULL, Selftest, SessionTally, slow_candidate, tallies
from ggufbench.measuring.preparation import Request
from ggufbench.records.comparison import Cell, Verdict
from ggufbench.records.comparisons import read_all_comparisons

HIDDEN_WORK = Path(__file__).parents[1] / "workers" / "hidden_work.py"


@pytest.fixture
def selftest(tmp_path, gate_scenarios, llama_folder):
    """Options of `ggufbench selftest --json` on one tiny model that all tests share."""
    return [
        "selftest", "--models", str(llama_folder), "--scenarios", str(gate_scenarios),
        "--results", str(tmp_path / "results"), "--json",
    ]  # fmt: skip


def check_tally(printed: str) -> None:
    null, control = json.loads(printed)["tally"]
    assert (null["kind"], null["sessions"], null["regressions"]) == (NULL, 2, 0)
    assert null["bound"] == pytest.approx(1 - 0.05**0.5)
    assert "0 false alarms in 2 sessions" in null["sentence"]
    assert (control["kind"], control["sessions"]) == (CONTROL, 0)


@pytest.mark.usefixtures("small_design", "one_probe")
def test_aa_sessions_are_added_up_over_runs(selftest, ggufbench):
    first, second = (ggufbench(*selftest, "--sessions", "1", "--controls", "0") for _ in range(2))

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    check_tally(second.stdout)


@pytest.mark.nightly
@pytest.mark.timeout(300)
def test_selftest_command_uses_the_default_design(selftest):
    for _ in range(2):
        command = [sys.executable, "-m", "ggufbench.cli", *selftest, "--sessions", "1", "--controls", "0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
    check_tally(done.stdout)


@pytest.mark.timing
@pytest.mark.usefixtures("one_probe")
def test_worker_with_doubled_work_is_a_regression(
    llama_folder, gate_scenarios, tmp_path, small_design, monkeypatch
):
    monkeypatch.setenv("LLAMA_TEST_HIDDEN_WORK", "1.0")
    request = Request([llama_folder], scenario_folder=gate_scenarios, results=tmp_path)
    design = replace(small_design, looks=(6,))
    # Other tests run at the same time and slow it down, so only the test below checks an upper bound.
    check_control(AbRequest(request, ".", purpose=CONTROL, design=design))


@pytest.mark.nightly
def test_doubled_work_is_a_regression_with_the_default_design(
    llama_folder, gate_scenarios, tmp_path, monkeypatch
):
    monkeypatch.setenv("LLAMA_TEST_HIDDEN_WORK", "1.0")
    request = Request([llama_folder], scenario_folder=gate_scenarios, results=tmp_path)
    cell = check_control(AbRequest(request, ".", purpose=CONTROL))
    assert cell.change < 2


def check_control(question) -> Cell:
    (comparison,) = measure(question, slow_candidate(plan(question), HIDDEN_WORK)).comparisons

    cells = {cell.metric: cell for cell in comparison.cells}
    assert comparison.verdict == cells["decode_tokens_per_second"].verdict == "regression"
    assert cells["decode_tokens_per_second"].change > 0.6
    assert cells["peak_rss_bytes"].verdict == "no regression"
    (kept,) = read_all_comparisons(question.request.results)
    null, control = tallies([kept], kept.machine.fingerprint, kept.model.identity)
    assert (null.sessions, control.sessions, control.regressions) == (0, 1, 1)
    assert control.bound == pytest.approx(0.05)
    assert [tally.sessions for tally in tallies([kept], "another machine", kept.model.identity)] == [0, 0]
    check_exit_codes(kept)
    return cells["decode_tokens_per_second"]


def check_exit_codes(control) -> None:
    """Check that 0 needs a session without a false alarm and a detected control."""
    null = control.model_copy(update={"purpose": NULL, "verdict": Verdict.NO_REGRESSION})
    alarm = null.model_copy(update={"verdict": Verdict.REGRESSION})
    missed = control.model_copy(update={"verdict": Verdict.NO_REGRESSION})
    ended = null.model_copy(update={"reason": "9 of 9 blocks had interference"})
    for found, code in (
        ([null, control], 0), ([alarm, control], 10), ([null, missed], 11), ([ended], 14), ([], 14),
    ):  # fmt: skip
        assert Selftest([Answered(found)], [], "case").exit_code == code


class Answered:
    """A result with these comparisons."""

    interrupted = False

    def __init__(self, comparisons, problems=()):
        self.comparisons, self.problems = comparisons, problems


def test_tally_bounds_and_mean():
    clean = SessionTally(NULL, 20, 0, 280)
    assert clean.bound == pytest.approx(0.139, abs=5e-4) and clean.mean_launches == 14
    assert replace(clean, kind=CONTROL, regressions=20).bound == pytest.approx(0.861, abs=5e-4)
    assert SessionTally(NULL, 0, 0, 0).mean_launches is None
