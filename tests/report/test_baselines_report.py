"""Findings, baselines and migration of a run in the terminal and in `ggufbench show`."""

import functools
import json

import pytest

from ggufbench.records.store import write_record
from ggufbench.report.text.baselines import answers, baselines_table, findings_list, migration_table
from ggufbench.report.text.terminal import render, stack
from ggufbench.worker.job import TRANSFORMERS

RUN = "20260101T000000Z-aaaa"


def shown(records, width=160, everything=None):
    found = answers(records, [], everything or records)
    parts = findings_list(found.findings), baselines_table(found.versus), migration_table(found.migrations)
    return render(stack(*parts), width, color=False)


def test_ratios_notes_and_verdicts_are_shown(baseline_records):
    text = shown(baseline_records)
    assert "Findings" in text and "Baseline" in text and "Replace transformers?" in text
    assert "transformers hung in load (no answer for 60 s)" in text
    assert "2 pairs: llama.cpp generated 128 tokens and transformers 16: the first 16 are compared." in text
    line = next(line for line in text.splitlines() if "Q8_0-transformers-bf16" in line and "Q8_0-cpu" in line)
    assert "3.3x" in line and "0.45x" in line


@pytest.mark.parametrize("width", [40, 80, 200])
def test_control_characters_are_removed_at_any_width(make_record, width):
    evil = "\x1b[2Jx[bold]\n\u202e<script>"
    records = [
        make_record(name=evil),
        make_record(name=evil, provider=TRANSFORMERS, scenario="transformers-gguf", outcome="failed",
                    phase="load", reason=f"{evil} is not a model"),
    ]  # fmt: skip
    text = shown(records, width)
    assert "\x1b" not in text and "\u202e" not in text
    assert "[bold]" in text.replace("\n", "").replace(" ", "") or width == 40
    assert max(map(len, text.splitlines())) <= width


def test_thousands_of_cases_stay_readable(make_record):
    base, slow = make_record(), make_record(provider=TRANSFORMERS, scenario="transformers-gguf", speed=0.5)

    def copy(record, number):
        model = record.model.model_copy(update={"identity": f"{number}"})
        return record.model_copy(update={"case_id": f"{record.case_id}-{number}", "model": model})

    records = [copy(record, number) for number in range(1000) for record in (base, slow)]
    text = shown(records)
    assert len(text.splitlines()) < 600
    assert "800 more; select some with --match, or use --json" in text


def test_empty_run_has_no_tables():
    found = answers([], [], [])
    assert findings_list(found.findings) is None
    assert baselines_table(found.versus) is None
    assert migration_table(found.migrations) is None


@pytest.fixture
def results(baseline_records, tmp_path):
    for record in baseline_records:
        write_record(tmp_path / "results", record.model_copy(update={"run_id": RUN}))
    return tmp_path / "results"


@pytest.fixture
def show(results, ggufbench):
    """A function that runs `ggufbench show` with arguments."""
    return functools.partial(ggufbench, "show", "--results", results, COLUMNS="160")


def test_show_begins_with_findings_and_ends_with_migration(show):
    done = show()
    assert done.returncode == 0, done.stderr
    order = ["Findings", "Result", "Page cache", "  Baseline", "Replace transformers?"]
    places = [done.stdout.index(heading) for heading in order]
    assert places == sorted(places)


def test_selected_case_keeps_its_unselected_baseline(show):
    done = show("--match", "llama-1.1b-Q8_0-cpu")
    assert "llama-1.1b-Q8_0-transformers-bf16" in done.stdout
    assert "qwen3" not in done.stdout


def test_json_has_the_same_answers(show):
    document = json.loads(show("--json").stdout)
    assert {"bad", "warn", "good"} >= {finding["kind"] for finding in document["findings"]}
    by_case = {(one["case_id"], one["baseline_case_id"]): one for one in document["baselines"]}
    beside = by_case["llama-1.1b-Q8_0-cpu", "llama-1.1b-Q8_0-transformers-bf16"]
    assert beside["ratios"]["ready_seconds"]["value"] == pytest.approx(0.3, rel=1e-6)
    assert beside["ratios"]["ready_seconds"]["low"] < 0.3 < beside["ratios"]["ready_seconds"]["high"]
    hung = by_case["qwen3-0.6b-Q8_0-cpu", "qwen3-0.6b-Q8_0-transformers-gguf"]
    assert hung["ratios"] == {} and hung["baseline_outcome"] == "hung"
    row = next(row for row in document["migrations"] if row["case_id"] == "llama-1.1b-Q8_0-cpu")
    assert [answer["answer"] for answer in row["answers"]] == ["yes", "yes", "yes", "not measured"]
