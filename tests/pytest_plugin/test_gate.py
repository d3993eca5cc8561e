"""`pytest bench --benchmark-only --gate-baseline`, run as a user runs it."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from ggufbench.records.comparisons import read_all_comparisons

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def gated(tmp_path, llama_folder):
    """A function: the benchmarks in a folder, compared with a baseline."""

    def run(*arguments, scenarios, cwd=CHECKOUT):
        return subprocess.run(
            [
                sys.executable, "-m", "pytest", str(CHECKOUT / "bench"), "--benchmark-only",
                "--rootdir", str(cwd), "-c", str(CHECKOUT / "pyproject.toml"),
                "--scenarios", str(scenarios), "--models", str(llama_folder),
                "--results", str(tmp_path / "results"), "--benchmark-storage", str(tmp_path / "storage"),
                "-p", "no:cacheprovider", *arguments,
            ],
            cwd=cwd,
            env={**os.environ, "COLUMNS": "160"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )  # fmt: skip

    run.results = tmp_path / "results"
    return run


def test_the_same_environment_passes_and_pytest_benchmark_has_its_numbers(gated, gate_scenarios, tmp_path):
    saved = tmp_path / "pb.json"

    done = gated("-rs", "--gate-baseline", ".", "--benchmark-json", str(saved), scenarios=gate_scenarios)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "llama-tiny-Q8_0-cpu: no regression" in done.stdout
    (comparison,) = read_all_comparisons(gated.results)
    benchmarks = json.loads(saved.read_text())["benchmarks"]
    decode = next(one for one in benchmarks if one["name"].startswith("test_decode"))
    assert decode["extra_info"]["verdict"] == "no regression"
    (cell,) = [cell for cell in comparison.cells if cell.metric == "decode_tokens_per_second"]
    assert decode["stats"]["min"] == pytest.approx(1 / max(cell.candidate_values))
    assert "cold_ready_seconds is not among the gated metrics of its scenario" in done.stdout


def test_a_slower_provider_fails_its_test_with_one_sentence(
    gated, app_scenarios, provider_repository, tmp_path
):
    repository = provider_repository(0, 1.0)
    report = tmp_path / "junit.xml"

    done = gated(
        "--gate-baseline", "main~1", "--junit-xml", str(report), scenarios=app_scenarios, cwd=repository
    )

    assert done.returncode == 10, done.stdout + done.stderr
    (failure,) = ElementTree.parse(report).iter("failure")
    sentence = failure.get("message")
    assert "llama-tiny-Q8_0-app: decode_tokens_per_second: regression: " in sentence
    assert "% slower than the baseline" in sentence and "interval" in sentence
    assert "tolerance 5 %" in sentence and re.search(r"1[05] pairs", sentence)
    assert "Traceback" not in done.stdout


def test_strict_fails_what_stays_inconclusive(gated, gate_scenarios):
    done = gated("--gate-baseline", ".", "--gate-strict", "--time-budget", "3s", scenarios=gate_scenarios)

    assert done.returncode == 13, done.stdout + done.stderr
    assert "inconclusive" in done.stdout


def test_a_baseline_that_cannot_run_it_is_no_pass(gated, gate_scenarios, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)

    done = gated("--gate-baseline", str(tmp_path / "bare"), scenarios=gate_scenarios)

    assert done.returncode == 12, done.stdout + done.stderr
    assert "the baseline cannot run it" in done.stdout


def test_a_baseline_that_is_nothing_ends_the_session_before_it_begins(gated, gate_scenarios):
    done = gated("--gate-baseline", "no-such-thing", scenarios=gate_scenarios)

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "no-such-thing" in done.stderr + done.stdout and "Traceback" not in done.stdout


def test_nothing_selected_measures_nothing(gated, gate_scenarios):
    done = gated("--gate-baseline", ".", "-k", "decode and vulkan", scenarios=gate_scenarios)

    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert not gated.results.exists()
