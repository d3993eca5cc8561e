"""Results of llama-bench: kept as they are, shown with a caveat, and never taken for records."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ggufbench
from ggufbench.cli.app import app
from ggufbench.export import EXPORTERS
from ggufbench.export.exporter import Wanted
from ggufbench.export.llama_bench_import import read_llama_bench
from ggufbench.records.runs import read_run
from ggufbench.records.store import run_folders

CHECKOUT = Path(__file__).resolve().parents[2]
RESULTS = CHECKOUT / "tests" / "fixtures" / "results"

# As llama-bench of llama-cpp-python 0.3.36 writes a test, shortened to the fields that are needed.
LINE = {
    "build_commit": "0c1e570", "build_number": 7777, "cpu_info": "AMD EPYC", "model_type": "llama 1B Q8_0",
    "model_filename": "/home/alice/models/a.gguf", "n_prompt": 512, "n_gen": 0, "n_depth": 0,
    "test_time": "2026-11-24T23:23:23Z", "avg_ns": 1000, "avg_ts": 34.5, "stddev_ts": 0.25,
    "samples_ns": [1000, 1001], "samples_ts": [34.4, 34.6],
}  # fmt: skip


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def imported(tmp_path) -> Path:
    """Results with the import of two lines, and of the run of a GPU."""
    (tmp_path / "a.jsonl").write_text(json.dumps(LINE) + "\n\n" + json.dumps({**LINE, "n_depth": 64}) + "\n")
    done = run("import", tmp_path / "a.jsonl", "--results", tmp_path / "results")
    assert done.exit_code == 0, done.output
    return tmp_path / "results"


def test_an_exported_run_comes_back_as_it_was(tmp_path):
    content = EXPORTERS["llama-bench-jsonl"].content(read_run(RESULTS, "first"), Wanted())
    (tmp_path / "first.jsonl").write_bytes(content)
    assert run("import", tmp_path / "first.jsonl", "--results", tmp_path / "results").exit_code == 0
    (stored,) = ggufbench.load(tmp_path / "results").runs
    rows = [json.loads(line) for line in content.splitlines()]
    assert len(stored.imported) == len(rows) == 24
    for result, row in zip(stored.imported, rows, strict=True):
        assert result.fields == row
        assert (result.tokens_per_second, result.build) == (row["avg_ts"], row["build_commit"])
    assert EXPORTERS["llama-bench-jsonl"].content(stored, Wanted()) == content


def test_imported_results_are_shown_with_a_caveat(imported):
    done = run("show", "--results", imported)
    assert done.exit_code == 0, done.output
    shown = " ".join(done.stdout.split())
    assert "pp512 @ d64" in shown and "34.5 t/s" in shown and "never gated" in shown
    document = json.loads(run("show", "--results", imported, "--json").stdout)
    assert len(document["imported"]) == 2 and "never gated" in document["imported"][0]["caveat"]
    (stored,) = ggufbench.load(imported).runs
    assert stored.records == [] and len(stored.samples()) == 0


def test_no_gate_comparison_report_or_history_takes_them(imported):
    (name,) = (folder.name for folder in run_folders(imported))
    first = RESULTS / "first"
    for words, code in (
        (("gate", name), 2),
        (("compare", name, first), 2),
        (("report", name), 2),
        (("card", name), 2),
        (("export", name, "--to", "csv"), 2),
        (("history",), 2),
    ):
        done = run(*words, "--results", imported)
        assert done.exit_code == code, (words, done.output)
        assert "34.5" not in done.output and done.stderr.count("\n") == 1
    with pytest.raises(ggufbench.GgufbenchError, match="no record to compare"):
        ggufbench.compare(imported / name, first)


@pytest.mark.parametrize("name", ["20200101T000000Z-0000", "first"])
def test_a_run_of_ggufbench_stays_the_newest(imported, name):
    folder = imported / name
    folder.mkdir()
    source = RESULTS / "first" / "llama-1.1b-Q8_0-cpu.json"
    (folder / source.name).write_bytes(source.read_bytes())
    assert read_run(imported).name == folder.name


def test_json_of_the_import_names_the_run(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(LINE))
    words = ("import", tmp_path / "a.jsonl", "--results", tmp_path / "results", "--json")
    document = json.loads(run(*words).stdout)
    assert (tmp_path / "results" / document["run"] / "imported" / "llama-bench.json").is_file()
    assert document["imported"][0]["fields"] == LINE


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no test"),
        (b"\xff", "is not UTF-8"),
        (b"[1]", "line 1: this is not a usable JSON object"),
        (b'{"a": 1}\n', "line 1: the field build_commit"),
        (json.dumps(LINE).encode() + b"\n{", "line 2: this is not a usable JSON object"),
        (json.dumps({**LINE, "avg_ts": float("nan")}).encode(), "tokens_per_second"),
        (json.dumps({**LINE, "avg_ts": "fast"}).encode(), "tokens_per_second"),
        (json.dumps({**LINE, "n_prompt": -1}).encode(), "prompt_tokens"),
        (json.dumps({**LINE, "n_prompt": 10**400}).encode(), "prompt_tokens"),
        (json.dumps({**LINE, "more": {"a": 1}}).encode(), "fields.more"),
        (json.dumps({**LINE, "model_type": "\ud800"}).encode(), "line 1"),
        (b"[" * 100_000, "line 1"),
        (b"9" * 10_000, "line 1"),
    ],
)
def test_what_is_not_of_llama_bench_is_one_sentence(tmp_path, content, reason):
    (tmp_path / "x.jsonl").write_bytes(content)
    done = run("import", tmp_path / "x.jsonl", "--results", tmp_path / "results")
    assert done.exit_code == 2 and reason in " ".join(done.stderr.split()), done.output
    assert done.stderr.count("\n") == 1 and not (tmp_path / "results").exists()


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ggufbench.GgufbenchError, match="cannot be read"):
        read_llama_bench(tmp_path / "nonesuch")


def test_hostile_names_steer_no_terminal(tmp_path):
    (tmp_path / "x.jsonl").write_text(json.dumps({**LINE, "model_type": "\x1b]0;x\x07[red]"}))
    done = run("import", tmp_path / "x.jsonl", "--results", tmp_path / "results")
    assert done.exit_code == 0 and "\x1b" not in done.output and "[red]" in done.output
    (stored,) = ggufbench.load(tmp_path / "results").runs
    for name in ("llama-bench-jsonl", "llama-bench-sql"):
        assert b"\x1b" not in EXPORTERS[name].content(stored, Wanted())


def test_a_broken_import_is_a_problem(imported):
    (document,) = imported.glob("*/imported/*.json")
    document.write_text("{}")
    with pytest.raises(ggufbench.GgufbenchError, match=r"llama-bench\.json"):
        ggufbench.load(imported)
