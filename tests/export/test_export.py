"""Every format from real and from hostile records, read again by the program's own rules."""

import csv
import io
import json
import sqlite3
import statistics
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from ggufbench.cli.app import app
from ggufbench.export import EXPORTERS
from ggufbench.export.exporter import Wanted
from ggufbench.export.llama_bench_rows import FIELDS
from ggufbench.records.runs import read_run

CHECKOUT = Path(__file__).resolve().parents[2]
RESULTS = CHECKOUT / "tests" / "fixtures" / "results"
EVIL = "x\x1b[31m\x00|`<b>\"';DROP TABLE llama_bench;--,\n=1\u202e"


@pytest.fixture
def command():
    """A function that runs the command line in this process."""

    def run(*words):
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


@pytest.fixture
def hostile(tmp_path) -> Path:
    """Results with one run, `evil`, whose record has a hostile text wherever one can be."""
    record = json.loads((RESULTS / "first" / "llama-1.1b-Q8_0-cpu.json").read_text())
    record["case_id"] = record["run_id"] = record["scenario"] = EVIL
    record["model"].update(name=EVIL, quantization=EVIL, architecture=EVIL, path=f"/home/alice/{EVIL}")
    record["machine"].update(cpu=EVIL, operating_system=EVIL, devices=[EVIL])
    record["provider"]["versions"] = {EVIL: EVIL, "llama.cpp": EVIL}
    for launch in record["launches"]:
        launch["effective"]["description"] = EVIL
    results = tmp_path / "results"
    (results / "evil").mkdir(parents=True)
    (results / "evil" / "x.json").write_text(json.dumps(record))
    return results


def exported(run, name, **wanted) -> str:
    return EXPORTERS[name].content(run, Wanted(**wanted)).decode()


def test_csv_is_the_table(command):
    run = read_run(RESULTS, "h200")
    for wanted, table in (({}, run.samples()), ({"summaries": True}, run.summaries())):
        rows = list(csv.DictReader(io.StringIO(exported(run, "csv", **wanted))))
        assert rows == [{key: str(value) for key, value in row.items()} for row in table.rows()]
    done = command("export", "h200", "--results", RESULTS, "--metric", "ready_seconds", "--match", "cuda")
    found = list(csv.DictReader(io.StringIO(done.stdout)))
    assert {row["metric"] for row in found} == {"ready_seconds"} and len(found) == 9
    assert {row["device"] for row in found} == {"cuda"}


@pytest.mark.parametrize("start", "=+-@")
def test_a_spreadsheet_computes_no_name(start, hostile, tmp_path):
    path = hostile / "evil" / "x.json"
    record = json.loads(path.read_text())
    record["model"]["name"] = f"{start}HYPERLINK(1)"
    record["summary"]["token_slope_seconds"]["median"] = -0.5
    path.write_text(json.dumps(record))
    text = exported(read_run(hostile, "evil"), "csv", summaries=True)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["model"] for row in rows} == {f"'{start}HYPERLINK(1)"}
    assert [row["median"] for row in rows if row["metric"] == "token_slope_seconds"] == ["-0.5"]


def test_parquet_is_the_table(tmp_path, command):
    out = tmp_path / "run.parquet"
    words = ("export", "first", "--results", RESULTS, "--to", "parquet")
    assert command(*words, "--out", out).exit_code == 0
    table = read_run(RESULTS, "first").samples()
    relation = duckdb.read_parquet(str(out))
    assert relation.columns == list(table.columns)
    assert relation.fetchall() == [tuple(row) for row in table.values]
    refused = command(*words)
    assert refused.exit_code == 2 and "--out" in refused.stderr


def test_markdown_has_one_line_for_each_case():
    run = read_run(RESULTS, "h200")
    lines = exported(run, "markdown").splitlines()
    assert len(lines) == 4 + len(run.records)
    assert r"| llama-1.1B-Q8\_0-cuda | 0.32 s | 1.4 GiB | 37851 t/s | 752 t/s | measured |" in lines


def test_github_action_benchmark_has_one_direction(command):
    run = read_run(RESULTS, "h200")
    values = json.loads(exported(run, "github-action-benchmark"))
    assert len(values) == 8  # two rates of four measured cases; two were skipped
    by_name = {entry["name"]: entry for entry in values}
    decode = by_name["llama-1.1B-Q8_0-cuda decode_tokens_per_second"]
    assert decode["unit"] == "tokens/s" and decode["value"] == pytest.approx(752.03, abs=0.01)
    words = ("export", "h200", "--results", RESULTS, "--to", "github-action-benchmark", "--metric")
    smaller = command(*words, "ready_seconds", "--metric", "peak_rss_bytes")
    assert {entry["unit"] for entry in json.loads(smaller.stdout)} == {"s", "bytes"}
    assert "llama-1.1B-Q4_K_M-cpu" in smaller.stderr
    mixed = command(*words, "ready_seconds", "--metric", "decode_tokens_per_second")
    assert mixed.exit_code == 2 and "one direction" in mixed.stderr


def test_bencher_has_a_value_between_its_bounds():
    cases = json.loads(exported(read_run(RESULTS, "h200"), "bencher"))
    assert len(cases) == 4
    for measures in cases.values():
        assert "decode_tokens_per_second" in measures
        for value in measures.values():
            assert value["lower_value"] <= value["value"] <= value["upper_value"]


def test_llama_bench_rows_have_its_fields_and_say_what_avg_ts_is():
    run = read_run(RESULTS, "first").only(["llama-1.1b-Q8_0"])
    rows = [json.loads(line) for line in exported(run, "llama-bench-jsonl").splitlines()]
    prompt, decode = (row for row in rows if row["backends"] == "CPU")
    assert list(prompt)[: len(FIELDS)] == list(FIELDS)
    assert (prompt["n_prompt"], prompt["n_gen"], decode["n_prompt"], decode["n_gen"]) == (512, 0, 0, 128)
    record = next(one for one in run.records if one.case_id == "llama-1.1b-Q8_0-cpu")
    summary = record.summary["decode_tokens_per_second"]
    assert decode["avg_ts"] == summary.median == statistics.median(decode["samples_ts"])
    assert decode["avg_ns"] == pytest.approx(128e9 / summary.median, rel=1e-6)
    assert decode["ggufbench_avg_ts"] == f"median of {summary.samples} samples in 3 launches"
    assert decode["model_filename"] == "llama-1.1b-Q8_0.gguf"


def test_llama_bench_leaves_out_what_is_not_llama_cpp(command):
    done = command("export", "first", "--results", RESULTS, "--to", "llama-bench-jsonl")
    assert "transformers" not in done.stdout and "transformers" in done.stderr
    nothing = command(
        *("export", "first", "--results", RESULTS, "--to", "llama-bench-sql", "--match", "transformers")
    )
    assert nothing.exit_code == 2 and "nothing to export" in nothing.stderr


def test_two_sql_exports_share_a_database():
    database = sqlite3.connect(":memory:")
    for name in ("first", "h200"):
        database.executescript(exported(read_run(RESULTS, name), "llama-bench-sql"))
    query = "select gpu_info, avg_ts, typeof(n_gen), typeof(avg_ts) from llama_bench where n_gen = 128"
    rows = database.execute(query + " and backends = 'CUDA' order by avg_ts").fetchall()
    assert [row[0] for row in rows] == ["NVIDIA H200"] * 3
    assert rows[0][1] == pytest.approx(752.03, abs=0.01) and rows[0][2:] == ("integer", "real")


def test_hostile_texts_break_no_format(hostile, command, tmp_path):
    run = read_run(hostile, "evil")
    for name in EXPORTERS:
        done = command("export", "evil", "--results", hostile, "--to", name, "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
        if name != "parquet":
            text = (tmp_path / name).read_text()
            assert not any(character in text for character in "\x1b\x00\u202e")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "csv").read_text())))
    assert len(rows) == len(run.samples()) and all(len(row) == 16 for row in rows)
    (line,) = (tmp_path / "markdown").read_text().splitlines()[4:]
    assert line.replace("\\|", "").count("|") == 7 and "<b>" not in line
    database = sqlite3.connect(":memory:")
    database.executescript((tmp_path / "llama-bench-sql").read_text())
    assert database.execute("select count(*) from llama_bench").fetchone() == (2,)
    assert len(json.loads((tmp_path / "bencher").read_text())) == 1
    for words in (("card", "evil"), ("export", "evil", "--to", "csv"), ("show", "evil")):
        assert "\x1b" not in command(*words, "--results", hostile).output


def test_extreme_numbers_break_no_format(hostile, tmp_path, command):
    path = hostile / "evil" / "x.json"
    record = json.loads(path.read_text())
    record["model"]["file_size_bytes"] = 1
    for number, sample in enumerate(one for launch in record["launches"] for one in launch["samples"]):
        sample["seconds"] = (0, 1e-12, 1e15)[number % 3]
        sample["tokens"] = (0, 2**62)[number % 2]
    record["summary"]["ready_seconds"]["samples"] = 10**15
    path.write_text(json.dumps(record))
    for name in EXPORTERS:
        for more in ((), ("--summaries",)):
            words = ("export", "evil", "--results", hostile, "--to", name, "--out", tmp_path / name)
            done = command(*words, "--overwrite", *more)
            assert done.exit_code == 0, done.output
    assert "Infinity" not in (tmp_path / "llama-bench-jsonl").read_text()
    assert command("card", "evil", "--results", hostile).exit_code == 0


def test_bad_requests_are_one_sentence(command, tmp_path):
    (tmp_path / "there").write_text("kept")
    for words, reason in (
        (("first", "--to", "cvs"), "did you mean csv?"),
        (("first", "--metric", "decode_tokens"), "did you mean decode_tokens_per_second?"),
        (("first", "--to", "llama-bench-sql", "--metric", "ready_seconds"), "--metric has no effect"),
        (("nonesuch",), "is not a run"),
        (("first", "--match", "gemma"), "no case that matches gemma"),
        (("first", "--out", tmp_path / "there"), "--overwrite"),
        (("first", "--out", "/dev/null/x"), "cannot be written"),
    ):
        done = command("export", *words, "--results", RESULTS)
        assert done.exit_code == 2 and reason in " ".join(done.stderr.split()), done.output
        assert done.stderr.count("\n") == 1
    assert (tmp_path / "there").read_text() == "kept"
    out = ("--out", tmp_path / "there", "--overwrite")
    assert command("export", "first", "--results", RESULTS, *out).exit_code == 0
    assert (tmp_path / "there").read_text().startswith("run,case,")


def test_the_card_fits_an_issue_and_names_nobody(command, hostile):
    done = command("card", "first", "--results", RESULTS, "--match", "1.1b-Q4_K_M-cpu")
    lines = done.stdout.splitlines()
    assert len(lines) <= 14
    for line in ("Processor: AMD EPYC, x86_64, 2 cores", "Decode: 19.0 t/s", "Interference: none"):
        assert line in lines
    whole = command("card", "h200", "--results", RESULTS).stdout
    assert len(whole.splitlines()) == 12 and "interference 1 of 27 samples" in whole
    for run in ("first", "h200"):
        found = read_run(RESULTS, run)
        text = command("card", run, "--results", RESULTS).stdout
        processes = {one.name for r in found.records if r.environment for one in r.environment.processes}
        assert not any(name in text for name in processes)
        assert not any(record.model.path in text for record in found.records)
    assert "alice" not in command("card", "evil", "--results", hostile).stdout


def test_the_help_and_the_package_know_the_same_formats(command):
    text = "".join(command("export", "--help").stdout.split())  # lines break at hyphens
    assert all(name in text for name in EXPORTERS)
