"""The public names: what they return, and what they raise for bad arguments."""

import json
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import ggufbench
from ggufbench.measuring.machine_lock import one_at_a_time
from ggufbench.outcomes import Outcome

CHECKOUT = Path(__file__).resolve().parents[2]
RESULTS = CHECKOUT / "tests" / "fixtures" / "results"


@pytest.mark.real
def test_the_import_loads_nothing_but_the_package_itself():
    code = "import sys; before = set(sys.modules); import ggufbench; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"pydantic", "duckdb", "numpy", "rich", "huggingface_hub", "typer", "psutil", "pandas"}
    assert not heavy & {name.partition(".")[0] for name in done.stdout.split()}
    assert "ggufbench.records" not in done.stdout.split()


def test_each_public_name_is_there_and_documented():
    page = (CHECKOUT / "docs" / "api.md").read_text()
    for name in ggufbench.__all__:
        assert getattr(ggufbench, name) is not None
        assert name in dir(ggufbench)
        assert re.search(rf"^\| `{name}\b", page, re.MULTILINE), f"{name} has no line in docs/api.md"
    with pytest.raises(AttributeError, match="nonesuch"):
        _ = ggufbench.nonesuch


def test_the_newest_run_comes_first():
    results = ggufbench.load(RESULTS)
    assert [run.name for run in results.runs] == ["h200", "first"]
    assert len(results.records) == 30 and results.problems == []


def test_one_run_and_one_record_can_be_loaded():
    (run,) = ggufbench.load(RESULTS / "first").runs
    assert run.name == "first" and len(run.records) == 24
    path = RESULTS / "first" / "llama-1.1b-Q8_0-cpu.json"
    assert [record.case_id for record in ggufbench.load(str(path)).records] == ["llama-1.1b-Q8_0-cpu"]


def test_what_cannot_be_read_is_a_problem_and_not_lost(two_builds):
    (two_builds / "after" / "broken.json").write_text("{")
    (two_builds / "stray.json").write_text("{}")
    (two_builds / "only-broken").mkdir()
    (two_builds / "only-broken" / "x.json").write_text("[]")
    (two_builds / "figures").mkdir()
    results = ggufbench.load(two_builds)
    assert [run.name for run in results.runs] == ["after", "before", "only-broken"]
    named = " ".join(map(str, results.problems))
    assert len(results.problems) == 3
    assert all(name in named for name in ("broken.json", "stray.json", "x.json"))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _path: None, "does not exist"),
        (lambda path: path.mkdir(), "holds no run"),
        (lambda path: path.write_text("no record"), "is not a record"),
    ],
)
def test_nothing_to_load_is_an_error(tmp_path, make, reason):
    make(tmp_path / "x")
    with pytest.raises(ggufbench.GgufbenchError, match=reason):
        ggufbench.load(tmp_path / "x")


def test_runs_are_compared_in_the_order_given(two_builds):
    after, before = ggufbench.load(two_builds).runs
    for arguments, ratio in (((before, after), 0.95), ((after, two_builds / "before"), 1 / 0.95)):
        found = ggufbench.compare(*arguments, metrics=["decode_tokens_per_second"]).found
        assert len(found.cases) == 6
        changes = [change for case in found.cases for change in case.changes]
        assert [change.ratio.value for change in changes] == pytest.approx([ratio] * 6, rel=0.02)
        assert all("llama-cpp-python" in case.versions for case in found.cases)


def test_the_runs_of_two_machines_have_no_ratio():
    newest, first = ggufbench.load(RESULTS).runs
    assert not ggufbench.compare(first, newest).found.is_comparable


def test_what_cannot_be_compared_is_an_error(two_builds):
    for arguments, reason in (
        ((two_builds, two_builds / "after"), "holds 2 runs"),
        ((two_builds / "after", two_builds / "after"), "both arguments name the run"),
        ((two_builds / "after", two_builds / "before", ["decode_tokens_per_secnd"]), "did you mean"),
        ((two_builds / "after", two_builds / "before", "decode_tokens_per_secnd"), "did you mean"),
        ((two_builds / "after", two_builds / "before", "ready_seconds", "gemma"), "matches gemma"),
        ((two_builds / "after", two_builds / "before", ["ready_seconds"], ["gemma"]), "matches gemma"),
    ):
        with pytest.raises(ggufbench.GgufbenchError, match=reason):
            ggufbench.compare(*arguments)


def test_models_are_found_where_they_are_looked_for(llama_folder):
    (llama_folder / "broken.gguf").write_bytes(b"GGUF")
    found = ggufbench.discover([str(llama_folder)])
    assert [model.label for model in found.models] == ["llama-tiny-Q8_0"]
    assert found.rejected[0].path.name == "broken.gguf" and found.rejected[0].reason
    with pytest.raises(ggufbench.GgufbenchError, match="nonesuch"):
        ggufbench.discover(["/nonesuch"])


@pytest.mark.real
def test_a_case_is_measured_and_stored_only_where_asked(llama_folder, scenario_folder, one_probe, tmp_path):
    (model,) = ggufbench.discover([llama_folder]).models
    record = ggufbench.measure(model, scenario_folder / "cpu.toml", results=tmp_path / "kept")
    assert record.outcome in (Outcome.MEASURED, Outcome.FAILED) and record.summary
    assert record.summary["decode_tokens_per_second"].samples == 4
    assert ggufbench.load(tmp_path / "kept").records == [record]

    skipped = ggufbench.measure(model.path, scenario_folder / "rpc.toml")  # nobody listens there
    assert skipped.outcome is Outcome.SKIPPED and "127.0.0.1" in skipped.reason
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "models"]


@pytest.mark.real
def test_a_measurement_waits_while_another_one_runs(llama_folder, scenario_folder, one_probe):
    waiting, records = threading.Event(), []
    arguments = (llama_folder / "llama-tiny-Q8_0.gguf", scenario_folder / "cpu.toml")
    thread = threading.Thread(
        target=lambda: records.append(ggufbench.measure(*arguments, tell=lambda _sentence: waiting.set()))
    )
    with one_at_a_time(print):
        thread.start()
        assert waiting.wait(60) and not records
    thread.join(120)
    assert records[0].summary


def test_bad_arguments_of_measure_are_errors(model_folder, scenario_folder, tmp_path):
    for model, scenario, reason in (
        (model_folder, "cpu", "holds 3 models"),
        (tmp_path, "cpu", "cannot be measured"),
        (model_folder / "llama-tiny-Q8_0.gguf", "cpuu", "did you mean cpu"),
        (model_folder / "llama-tiny-Q8_0.gguf", tmp_path / "x.toml", "x.toml"),
    ):
        with pytest.raises(ggufbench.GgufbenchError, match=reason):
            ggufbench.measure(model, scenario)


def test_the_blocks_of_the_notebook_run(two_builds, monkeypatch, capsys):
    pytest.importorskip("pandas")
    monkeypatch.chdir(two_builds.parent)
    monkeypatch.setenv("MPLBACKEND", "agg")
    page = (CHECKOUT / "docs" / "notebook.md").read_text()
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(block, names)  # noqa: S102  # a page of this repository
    assert (two_builds.parent / "decode.png").stat().st_size > 10_000
    assert (two_builds.parent / "builds.png").stat().st_size > 10_000
    decoding = names["decoding"]
    assert len(decoding) == 6 and decoding["ratio"].tolist() == pytest.approx([0.95] * 6, rel=0.02)
    assert "after" in capsys.readouterr().out


def test_hostile_results_stay_data(tmp_path):
    (tmp_path / "run").mkdir()
    record = json.loads((RESULTS / "first" / "llama-1.1b-Q8_0-cpu.json").read_text())
    record["model"]["name"] = 'a\x1b[31m,"b"\n'
    (tmp_path / "run" / "x.json").write_text(json.dumps(record))
    shutil.copy("/dev/null", tmp_path / "run" / "empty.json")
    results = ggufbench.load(tmp_path)
    assert {row["model"] for row in results.samples().rows()} == {'a\\x1b[31m,"b"\\n'}
    assert "empty.json" in str(results.problems[0])
