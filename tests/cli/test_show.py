"""`ggufbench show`, run as a user runs it, on the records of a real case."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ggufbench.launching.launcher import Interpreter
from ggufbench.machine.facts import source_state
from ggufbench.measuring.case import Bench, measure_case
from ggufbench.measuring.preparation import Request, prepare_run
from ggufbench.records.schema import Record
from ggufbench.records.store import write_record


@pytest.fixture(scope="module")
def record(model_folder, scenario_folder, tmp_path_factory, one_probe) -> Record:
    """A tiny llama, measured with a cold launch."""
    request = Request(
        places=[model_folder / "llama-tiny-Q8_0.gguf"], scenarios=["cpu"], scenario_folder=scenario_folder,
        launches=1, cold_launches=1, results=tmp_path_factory.mktemp("none"),
    )  # fmt: skip
    prepared = prepare_run(request, Interpreter())
    return measure_case(
        prepared.cases[0], Bench("20260101T000000Z-aaaa", prepared.machine, source_state(model_folder))
    )


@pytest.fixture
def results(record, tmp_path):
    """Two runs; the newer one has two cases."""
    write_record(tmp_path / "results", record)
    newer = record.model_copy(update={"run_id": "20260202T000000Z-bbbb"})
    write_record(tmp_path / "results", newer)
    write_record(tmp_path / "results", newer.model_copy(update={"case_id": "second\x1b[31m-cpu"}))
    return tmp_path / "results"


@pytest.fixture
def show(ggufbench, results):
    """A function: `ggufbench show` with arguments."""
    return functools.partial(ggufbench, "show", "--results", results, COLUMNS="160")


def test_the_newest_run_is_shown_with_everything_behind_its_table(show):
    done = show()
    assert done.returncode == 0, done.stderr
    for heading in ("Result", "Page cache", "Peak memory", "One token"):
        assert heading in done.stdout
    assert "0 % cold" in done.stdout and "100 % warm" in done.stdout
    assert "KV cache" in done.stdout and "interpreter" in done.stdout
    assert "second\\x1b[31m-cpu" in done.stdout, "control characters are shown as escapes"
    assert "\x1b" not in done.stdout


def test_unused_memory_is_shown_apart_from_the_parts(ggufbench):
    """A stored run of a context that reserved the logits of a whole ubatch."""
    stored, match = Path(__file__).parents[1] / "fixtures" / "results", "llama-1.1b-Q8_0"
    text = " ".join(ggufbench("show", "first", "--results", stored, "--match", match).stdout.split())
    assert "reserved but not used" in text
    assert "vocabulary" in text


def test_a_run_is_chosen_by_name_and_a_case_by_a_part_of_its_id(show, results):
    assert "second" not in show("20260101T000000Z-aaaa").stdout
    assert "second" not in show(str(results / "20260101T000000Z-aaaa")).stdout
    chosen = show("--match", "llama-tiny")
    assert "llama-tiny-Q8_0-cpu" in chosen.stdout and "second" not in chosen.stdout


def test_json_has_the_record_the_advice_and_the_memory_by_part(show, record):
    document = json.loads(show("--json").stdout)
    assert document["run"] == "20260202T000000Z-bbbb"
    case = next(case for case in document["cases"] if case["record"]["case_id"] == record.case_id)
    assert case["memory"]["measured_bytes"] > case["memory"]["parts_bytes"]["interpreter"] > 0
    assert isinstance(case["advice"], list)
    assert case["record"]["launches"][0]["page_cache"]["state"] == "cold"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nonesuch",), "nonesuch is not a run"),
        (("/nowhere/at/all",), "/nowhere/at/all is not a run"),
        (("--match", "gemma"), "matches --match gemma; its cases are llama-tiny-Q8_0-cpu"),
    ],
)
def test_what_is_not_there_is_one_sentence_and_exit_2(show, arguments, sentence):
    done = show(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_record_is_named_and_costs_no_other(show, results):
    (results / "20260202T000000Z-bbbb" / "broken.json").write_text('{"schema_version": 99')
    done = show()
    assert done.returncode == 0
    assert "broken.json is not a record" in done.stderr
    assert "llama-tiny-Q8_0-cpu" in done.stdout


def test_an_empty_folder_says_how_to_make_a_run(ggufbench, tmp_path):
    done = ggufbench("show", "--results", tmp_path / "none")
    assert done.returncode == 2
    assert "contains no run; make one with `ggufbench run`" in done.stderr


@pytest.mark.real
def test_a_variable_names_the_folder_of_runs_for_pytest_and_for_show(model_folder, tmp_path):
    """A case that is skipped, which leaves a record too: no GPU of any kind is asked for here."""
    variables = {**os.environ, "GGUFBENCH_RESULTS": str(tmp_path / "mine"), "COLUMNS": "160"}
    run = functools.partial(
        subprocess.run, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    bench = Path(__file__).parents[2] / "bench"
    options = ("--models", model_folder / "llama-tiny-Q8_0.gguf", "--scenario", "vulkan")
    done = run(
        [sys.executable, "-m", "pytest", bench, "--benchmark-only", "-p", "no:cacheprovider", *options]
    )
    assert done.returncode == 14, done.stdout + done.stderr
    (file,) = (tmp_path / "mine").glob("*/*.json")
    assert file.name.startswith("llama-tiny-Q8_0-vulkan-")
    shown = run([sys.executable, "-m", "ggufbench.cli", "show"])
    assert shown.returncode == 0 and "no vulkan device" in shown.stdout, shown.stderr
    assert not (tmp_path / "results").exists()
