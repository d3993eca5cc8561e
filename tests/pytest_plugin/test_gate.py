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
pytestmark = pytest.mark.real


def run_gate(folder, model, scenarios, *arguments, cwd=CHECKOUT):
    """The benchmarks of one model, compared with a baseline; everything is written into `folder`."""
    return subprocess.run(
        [
            sys.executable, "-m", "pytest", str(CHECKOUT / "bench"), "--benchmark-only",
            "--disable-plugin-autoload", "-p", "benchmark", "-p", "ggufbench", "-p", "no:cacheprovider",
            "--rootdir", str(cwd), "-c", str(CHECKOUT / "pyproject.toml"),
            "--scenarios", str(scenarios), "--models", str(model), "--results", str(folder / "results"),
            "--benchmark-storage", str(folder / "storage"), *arguments,
        ],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip


@pytest.fixture
def gated(tmp_path, llama_folder):
    """A function: the same for the tiny llama, in this test's folder."""

    def run(*arguments, scenarios, cwd=CHECKOUT):
        return run_gate(tmp_path, llama_folder, scenarios, *arguments, cwd=cwd)

    run.results = tmp_path / "results"
    return run


@pytest.fixture(scope="module")
def same(tmp_path_factory, model_folder, gate_scenarios):
    """A session of this environment against itself: what it printed, its comparison, its benchmarks."""
    folder = tmp_path_factory.mktemp("same")
    options = ("-rs", "--gate-baseline", ".", "--benchmark-json", str(folder / "pb.json"))
    done = run_gate(folder, model_folder / "llama-tiny-Q8_0.gguf", gate_scenarios, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    (comparison,) = read_all_comparisons(folder / "results")
    return done.stdout, comparison, json.loads((folder / "pb.json").read_text())["benchmarks"]


def test_the_same_environment_passes_and_pytest_benchmark_has_its_numbers(same):
    printed, comparison, benchmarks = same
    assert f"{comparison.case_id}: no regression" in printed
    decode = next(one for one in benchmarks if one["name"].startswith("test_decode"))
    assert decode["extra_info"]["verdict"] == "no regression"
    (cell,) = [cell for cell in comparison.cells if cell.metric == "decode_tokens_per_second"]
    assert decode["stats"]["min"] == pytest.approx(1 / max(cell.candidate_values))
    assert "cold_ready_seconds is not a gated metric of its scenario" in printed


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
    assert re.match(
        r"Failed: llama-tiny-Q8_0-app-[0-9a-f]{6}: decode_tokens_per_second: regression: ", sentence
    )
    assert "% slower than the baseline" in sentence and "interval" in sentence
    assert "tolerance 5 %" in sentence and re.search(r"1[05] pairs", sentence)
    assert "Traceback" not in done.stdout


def test_strict_fails_what_stays_inconclusive(gated, gate_scenarios, same):
    """The time of four pairs is too short for the first look, and long enough for one pair."""
    _, comparison, _ = same
    budget = f"{4 * comparison.wall_seconds / (comparison.blocks + 1):.1f}s"

    done = gated("--gate-baseline", ".", "--gate-strict", "--time-budget", budget, scenarios=gate_scenarios)

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
