"""`ggufbench report` and `pytest --report`, from stored runs and from real ones."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from ggufbench.cli.app import app
from ggufbench.records.store import write_record

CHECKOUT = Path(__file__).resolve().parents[2]
OLD, NEW = "20260101T000000Z-aaaa", "20260202T000000Z-bbbb"


@pytest.fixture
def results(make_record, tmp_path):
    """Two runs; the newer one has a case in common with the older, and one of its own."""
    folder = tmp_path / "results"
    write_record(folder, make_record(run_id=OLD, created="2026-01-01T00:00:00+00:00"))
    write_record(folder, make_record(name="older", run_id=OLD, created="2026-01-01T00:00:00+00:00"))
    write_record(folder, make_record(run_id=NEW, created="2026-02-02T00:00:00+00:00", speed=2))
    write_record(folder, make_record(name="newer", run_id=NEW, created="2026-02-02T00:00:00+00:00"))
    return folder


@pytest.fixture
def ask(results):
    """A function: the command with arguments."""

    def ask(*arguments: str):
        return CliRunner().invoke(
            app, ["report", *arguments, "--results", str(results)], catch_exceptions=False
        )

    return ask


def cases_of(done) -> list[str]:
    return sorted(json.loads(done.stdout)["cases"])


def test_the_newest_run_is_written_with_its_picture(ask, results):
    done = ask()
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [str(results / "report.html"), str(results / "report.png")]
    page = (results / "report.html").read_text()
    assert "newer-" in page and "older-" not in page


def test_the_extra_that_is_missing_is_named(ask, results, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = ask()
    assert done.exit_code == 2
    assert 'the report needs matplotlib; install with pip install "ggufbench[report]"' in done.output
    assert not (results / "report.html").exists()


def test_runs_are_merged_and_of_one_case_the_newest_counts(ask, results):
    done = ask(NEW, OLD, "--json")
    cases = cases_of(done)
    assert len(cases) == 3 == len(set(cases))
    page = (results / "report.html").read_text()
    shared = next(case for case in cases if not case.startswith(("older", "newer")))
    record = page.split(f"<bdi>{shared}</bdi>")[-1].split("</details>")[0]
    assert NEW in record and OLD not in record


def test_filters_select_cases_models_and_scenarios(ask):
    assert cases_of(ask("--match", "newer", "--json"))[0].startswith("newer")
    assert len(cases_of(ask("--model", "NEW*", "--json"))) == 1
    assert len(cases_of(ask("--scenario", "cpu", "--json"))) == 2
    nothing = ask("--scenario", "cpu", "--model", "gemma")
    assert nothing.exit_code == 2
    assert f"{NEW}: no case matches cpu, gemma; the cases are" in nothing.output


def test_against_adds_the_comparison(ask, results):
    assert ask("--against", OLD).exit_code == 0
    page = (results / "report.html").read_text()
    assert f"Comparison with the earlier run {OLD}" in page and "0.500" in page
    itself = ask("--against", NEW)
    assert itself.exit_code == 2 and "the report is about this run itself" in itself.output


def test_message_for_missing_run_and_broken_record(ask, results):
    assert "nonesuch is not a run" in ask("nonesuch").output
    (results / NEW / "broken.json").write_text("{")
    done = ask()
    assert done.exit_code == 0 and "broken.json is not a record" in done.output
    assert "broken.json" in (results / "report.html").read_text()


def test_foreign_file_is_not_replaced(ask, results):
    (results / "report.html").write_text("mine")
    refused = ask()
    assert refused.exit_code == 2 and "is not a report of ggufbench" in refused.output
    assert (results / "report.html").read_text() == "mine"
    assert ask("--overwrite").exit_code == 0


def test_figures_are_written_to_the_folder(ask, tmp_path):
    done = ask("--figures", str(tmp_path / "figures"), "--json")
    written = [Path(path) for path in json.loads(done.stdout)["figures"]]
    assert {path.suffix for path in written} == {".svg", ".png"}
    assert all(path.stat().st_size for path in written)


@pytest.mark.real
def test_open_starts_the_browser(ask, results, tmp_path, monkeypatch):
    seen = tmp_path / "seen"
    program = tmp_path / "browser"
    program.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    program.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{program} %s")
    command = [sys.executable, "-m", "ggufbench.cli", "report", "--open", "--results", str(results)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert seen.read_text().strip() == (results / "report.html").resolve().as_uri()


def test_many_cases_are_read_without_logs(ask, results, make_record):
    base = make_record(run_id="20260303T000000Z-cccc")
    for number in range(301):
        write_record(
            results, base.model_copy(update={"case_id": f"many-{number}", "scenario": f"many-{number}"})
        )
    done = ask()
    assert done.exit_code == 0, done.output
    page = (results / "report.html").read_text()
    assert "All records are below. Samples, settings and logs are left out" in page
    assert page.count('<details class="record"') == 301 and "load_tensors:" not in page


def test_pytest_writes_the_page_of_its_run(run_pytest, llama_folder):
    done = run_pytest("--models", str(llama_folder), "--scenario", "cpu", "--report")
    assert done.returncode == 0, done.stdout
    (page,) = run_pytest.results.glob("*/report.html")
    assert f"Report: {page}\nPicture: {page.with_suffix('.png')}" in done.stdout
    assert "llama-tiny-Q8_0-cpu" in page.read_text()


def test_page_that_cannot_be_written_keeps_the_exit_code(run_pytest, llama_folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "report.html"
    done = run_pytest("--models", str(llama_folder), "--scenario", "cpu", f"--report={out}")
    assert done.returncode == 0
    assert "Report: not written: " in done.stdout and "try again with: ggufbench report 2" in done.stdout
    assert "t/s" in done.stdout and "Traceback" not in done.stdout


def test_trial_run_writes_no_page(run_pytest, llama_folder):
    trial = ("--models", str(llama_folder), "--scenario", "cpu", "--benchmark-disable", "--report")
    done = run_pytest(*trial, only=False)
    assert done.returncode == 0 and "Report:" not in done.stdout
    assert not run_pytest.results.exists()
    wrong = run_pytest("--models", str(llama_folder), "--report", "bench_load.py")
    assert wrong.returncode == 4
    assert "--report bench_load.py is not an HTML file" in wrong.stdout + wrong.stderr


def test_ctrl_c_writes_a_page_of_the_measured_cases(run_pytest, llama_folder, wait_until):
    command = run_pytest.command(
        "--models", str(llama_folder), "--scenario", "cpu", "--repetitions", "2000", "--report"
    )
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=CHECKOUT, env={**os.environ}
    )
    worker = wait_until(lambda: worker_of(process.pid), "a worker to start")
    wait_until(lambda: worker.cpu_times().user > 1.0, "the worker to be measuring")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    (page,) = run_pytest.results.glob("*/report.html")
    assert f"Report: {page}" in output
    assert "interrupted by Ctrl-C" in page.read_text()


def worker_of(pid: int) -> psutil.Process | None:
    """The measuring worker among a process's children."""
    try:
        children = psutil.Process(pid).children(recursive=True)
        workers = [child for child in children if "worker/__main__.py" in " ".join(child.cmdline())]
        # The first worker only answers which devices there are, and is gone in a moment.
        return next((worker for worker in workers if worker.cpu_times().user > 0.4), None)
    except psutil.Error:
        return None
