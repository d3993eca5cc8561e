"""Output and exit codes of the commands `gate` and `history`."""

import json
import os
import subprocess
import sys

import pytest

from ggufbench.outcomes import Outcome
from ggufbench.records.comparison import Verdict

CRASHED = {"outcome": Outcome.CRASHED, "reason": "SIGSEGV while it decoded", "summary": {}}


def nights(stored, count, change=0.0, first=0, **more):
    for day in range(first, first + count):
        stored.comparison(day, change=change + 0.002 * (-1) ** day, **more)


def test_exit_0_if_nothing_became_worse(stored, ask_program):
    nights(stored, 12)
    done = ask_program("gate", "--strict")
    assert done.exit_code == 0
    assert f"Run {stored.run(11)} of 2026-01-12T00:00: no regression" in done.output
    assert "Relative to llama-cpp-python==0.3.36 (build" in done.output


def test_suspect_session_fails_only_with_strict(stored, ask_program):
    nights(stored, 12)
    nights(stored, 1, 0.08, first=12)
    done = ask_program("gate")
    assert done.exit_code == 0
    assert "8.2 % worse than the median of the 12 sessions before, limit 5.0 %" in done.output
    assert "measure again, a second one decides" in done.output
    assert ask_program("gate", "--strict").exit_code == 13


def test_exit_10_for_second_bad_session_until_accepted(stored, ask_program):
    nights(stored, 12)
    nights(stored, 3, 0.08, first=12)
    assert ask_program("gate", stored.run(12)).exit_code == 0
    done = ask_program("gate")
    assert done.exit_code == 10
    assert "one-Q8_0-cpu, decode: " in done.output and "so was the session before" in done.output
    assert f"--since {stored.run(14)}" in done.output
    assert ask_program("gate", "--since", stored.run(12)).exit_code == 0


def test_absolute_series_are_reported_as_advisory(stored, ask_program):
    for day in range(14):
        stored.record(day, slower=2.0 if day > 11 else 1.0)
    done = ask_program("gate")
    assert done.exit_code == 0
    assert "+100.0 %" in done.output and "regression" in done.output
    assert "Absolute series are advisory" in done.output and "nothing can fail" in done.output
    assert ask_program("gate", "--strict").exit_code == 13


def test_hanging_or_slower_baseline_does_not_fail_the_gate(stored, ask_program):
    """Transformers is a baseline, which is not gated."""
    transformers = stored.base.provider.model_copy(update={"name": "transformers"})
    for day in range(14):
        stored.record(day)
        broken = {"outcome": Outcome.HUNG, "summary": {}} if day == 13 else {}
        stored.record(day, "two", slower=3.0 if day > 11 else 1.0, provider=transformers, **broken)
    done = ask_program("gate")
    assert done.exit_code == 0, done.output
    assert "two" not in ask_program("history").output


@pytest.mark.parametrize("outcome", [Outcome.CRASHED, Outcome.HUNG, Outcome.FAILED, Outcome.OUT_OF_MEMORY])
def test_exit_11_if_a_measured_case_breaks(stored, ask_program, outcome):
    for day in range(3):
        stored.record(day)
        stored.record(day, "two")
    stored.record(3)
    stored.record(3, "two", **{**CRASHED, "outcome": outcome})
    stored.record(3, "never measured", **CRASHED)
    done = ask_program("gate")
    assert done.exit_code == 11
    assert "two-Q8_0-cpu" in done.output and "broken" in done.output and "SIGSEGV" in done.output
    assert "never" not in done.output


def test_exit_11_takes_precedence_over_10_and_14(stored, ask_program):
    nights(stored, 12)
    nights(stored, 12, case="two")
    nights(stored, 2, 0.08, first=12)
    nights(stored, 1, case="two", first=12)
    broken = {"verdict": Verdict.BROKEN, "reason": "the candidate crashed: SIGSEGV"}
    stored.comparison(13, "two", **broken)
    assert ask_program("gate").exit_code == 11
    stored.comparison(14, **broken)
    stored.comparison(14, "two", **broken)
    assert ask_program("gate").exit_code == 11, "nothing was measured, because all of it broke"


@pytest.mark.parametrize("how", ["absent", "skipped", "unreadable", "the candidate cannot run it"])
def test_exit_11_if_a_measured_case_is_missing(stored, ask_program, how):
    for day in range(3):
        stored.comparison(day)
        stored.comparison(day, "two")
        stored.record(day)
        stored.record(day, "two")
    stored.comparison(3)
    stored.record(3)
    if how == "skipped":
        stored.record(3, "two", outcome=Outcome.SKIPPED, reason="needs more memory", summary={})
    elif how == "unreadable":
        stored.record(3, "two").write_text("{}")
    elif how != "absent":
        stored.comparison(3, "two", verdict=Verdict.MISSING, lacking="candidate", reason=how)
    done = ask_program("gate")
    assert done.exit_code == 11
    assert "two-Q8_0-cpu" in done.output and "missing" in done.output


def test_exit_12_lists_differing_keys_of_other_machines(stored, ask_program):
    for day in range(3):
        stored.comparison(day)
    other = stored.machine(cpu="Apple M4", usable_cores=10, devices=["Metal: M4"])
    stored.comparison(3, machine=other)
    done = ask_program("gate")
    assert done.exit_code == 12
    said = " ".join(done.output.split())
    assert "no earlier session of this machine (00112233445566aa)" in said
    for difference in (
        "cpu AMD EPYC (here Apple M4)",
        "usable_cores 2 (here 10)",
        "devices none (here Metal: M4)",
    ):
        assert difference in said
    assert "memory_gib" not in said
    document = json.loads(ask_program("gate", "--json").output)
    keys = [difference["key"] for difference in document["other_machines"][0]["differing"]]
    assert keys == ["cpu", "usable_cores", "devices"]


def test_exit_12_for_a_new_anchor_and_for_the_first_session(stored, ask_program):
    stored.comparison(0)
    done = ask_program("gate")
    assert done.exit_code == 12 and "No earlier session on this machine measured the same" in done.output
    stored.comparison(1, anchor="llama-cpp-python==0.3.40")
    done = ask_program("gate")
    assert done.exit_code == 12
    assert (
        "anchor is llama-cpp-python==0.3.40" in done.output and "had llama-cpp-python==0.3.36" in done.output
    )


def test_strict_needs_ten_earlier_sessions(stored, ask_program):
    nights(stored, 10)
    assert ask_program("gate").exit_code == 0
    done = ask_program("gate", "--strict")
    assert done.exit_code == 13 and "fewer than 10 earlier sessions" in done.output
    nights(stored, 1, first=10)
    assert ask_program("gate", "--strict").exit_code == 0


def test_strict_exits_13_for_a_case_without_a_result(stored, ask_program):
    nights(stored, 12)
    nights(stored, 12, case="two")
    stored.comparison(12)
    stored.comparison(12, "two", cell={"pairs": 3})
    assert ask_program("gate").exit_code == 0
    done = ask_program("gate", "--strict")
    assert done.exit_code == 13 and "No result of two-Q8_0-cpu counts" in done.output


@pytest.mark.parametrize("left", ["a broken file", "blocks only", "all skipped", "no run at all"])
def test_exit_14_when_newest_run_is_empty(stored, ask_program, left):
    folder = stored.results / stored.run(20)
    if left != "no run at all":
        nights(stored, 12)
    if left == "a broken file":
        stored.record(20).write_text("{")
    elif left == "blocks only":
        (folder / "comparisons" / "one-Q8_0-cpu").mkdir(parents=True)
        (folder / "comparisons" / "one-Q8_0-cpu" / "block-00.json").write_text("{}")
    elif left == "all skipped":
        stored.record(20, outcome=Outcome.SKIPPED, reason="no memory", summary={})
    done = ask_program("gate")
    assert done.exit_code == 14
    assert "nothing measured" in done.output
    if left != "no run at all":
        assert stored.run(20) in done.output


def test_newer_run_outside_the_history_is_skipped(stored, ask_program):
    nights(stored, 12)
    stored.comparison(20, purpose="a/a selftest")
    done = ask_program("gate")
    assert done.exit_code == 0 and stored.run(11) in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gate", "20250101T000000Z-0000"), "has no run '20250101T000000Z-0000'; its newest runs are"),
        (("gate", "--since", "yesterday"), "has no run 'yesterday' to begin the history with"),
        (("history", "--metric", "decode_tokens"), "is not a metric; did you mean decode_tokens_per_second?"),
        (("history", "--machine", "ffff"), "has no machine 'ffff'; give one of"),
        (("history", "--match", "three"), "has no measured session of machine"),
        (("history", "--since", "x' or 1=1 --"), "has no run"),
    ],
)
def test_exit_2_for_an_invalid_request(stored, ask_program, arguments, said):
    stored.record(0)
    done = ask_program(*arguments)
    assert done.exit_code == 2
    assert said in done.output and done.output.startswith("ggufbench: ")
    assert done.output.count("\n") == 1


def test_history_lists_the_worst_first_and_other_machines(stored, ask_program):
    for case, worse in (("fine", 0.0), ("bad", 0.1), ("odd", 0.1)):
        nights(stored, 12, case=case)
        nights(stored, 1, 0.0 if case == "odd" else worse, first=12, case=case)
        nights(stored, 1, worse, first=13, case=case)
    for day in range(2):
        stored.record(day, "elsewhere", machine=stored.machine(memory_gib=64))
    (stored.results / stored.run(0) / "bad\x1b[31m.json").write_text("{}")
    done = ask_program("history")
    assert done.exit_code == 0
    cases = [line.split()[0] for line in done.output.splitlines() if "-Q8_0-cpu" in line]
    assert cases == [f"{case}-Q8_0-cpu" for case in ("bad", "bad", "odd", "odd", "fine", "fine")]
    assert "00112233445566aa: 2 documents, differs in memory_gib 64 (here 24)" in done.output
    assert "elsewhere" not in done.output
    assert "bad\\x1b[31m.json is not a record" in done.output and "\x1b" not in done.output
    other = ask_program("history", "--machine", "0011")
    assert "elsewhere" in other.output and "bad-Q8" not in other.output


def test_drawn_series_marks_suspects_and_change_points(stored, ask_program):
    nights(stored, 30)
    stored.comparison(30, change=0.15)
    nights(stored, 14, first=31)
    nights(stored, 12, 0.08, first=45)
    done = ask_program("history", "--metric", "decode_tokens_per_second")
    assert "▲" in done.output and "┊" in done.output and "2026-01-01" in done.output
    assert f"worse since {stored.run(45)}" in done.output
    (series,) = json.loads(ask_program("history", "--metric", "decode_tokens_per_second", "--json").output)[
        "series"
    ]
    assert [value["run_id"] for value in series["values"]] == [stored.run(day) for day in range(57)]
    marked = [
        place for place, value in enumerate(series["values"]) if value["state"] in ("suspect", "regression")
    ]
    assert marked == [30, *range(45, 57)]
    assert [point["run_id"] for point in series["change_points"]] == [stored.run(45)]
    assert series["worse_by"] == pytest.approx(0.08, abs=0.01)


def test_table_limits_series_and_json_has_all(stored, ask_program):
    for case in range(20):
        stored.record(0, f"case{case}")
    done = ask_program("history")
    assert "20 more series (20 too few); select some with --match and --metric" in done.output
    document = json.loads(ask_program("history", "--json").output)
    assert len(document["series"]) == 80
    assert document["machine"]["fingerprint"] == stored.base.machine.fingerprint
    assert "values" not in document["series"][0]
    chosen = ask_program("history", "--match", "case7-", "--metric", "load_seconds")
    assert "case7-Q8_0-cpu" in chosen.output and "case8" not in chosen.output


def test_long_series_fits_the_terminal(stored, ask_program, monkeypatch):
    for day in range(150):
        stored.record(day, slower=1.3 if day == 70 else 1.0)
    monkeypatch.setenv("COLUMNS", "60")
    done = ask_program("history", "--metric", "decode_tokens_per_second")
    picture = [line for line in done.output.splitlines() if "─" in line or "•" in line or "▲" in line]
    assert picture and all(len(line) <= 60 for line in picture)
    assert sum(line.count("▲") for line in picture) - 1 == 1, "one in the legend, one for the bad session"


@pytest.mark.parametrize(("command", "code"), [("gate", 10), ("history", 0)])
@pytest.mark.real
def test_commands_run_as_a_process(stored, command, code):
    nights(stored, 12)
    nights(stored, 2, 0.08, first=12)
    done = subprocess.run(
        [sys.executable, "-m", "ggufbench.cli", command, "--results", str(stored.results)],
        capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "120"}, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert "regression" in done.stdout and done.stderr == ""
