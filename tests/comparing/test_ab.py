"""`ggufbench ab` with real models and real workers: each exit code of the gate.

The tests of a regression, a pass and Ctrl-C use the default design; the last two run a separate process.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ggufbench.comparing import ab as comparing_ab
from ggufbench.comparing.ab import AbRequest, measure, plan
from ggufbench.comparing.arms import ArmSpec
from ggufbench.comparing.conclusion import exit_code
from ggufbench.launching.launcher import Interpreter
from ggufbench.measuring.preparation import Request
from ggufbench.records.comparison import Block, Comparison
from ggufbench.records.comparisons import read_all_comparisons
from ggufbench.stats.sequential_test import Design

BREAKS = Path(__file__).parents[1] / "workers" / "breaks.py"

pytestmark = pytest.mark.real


@pytest.fixture
def ab(tmp_path, gate_scenarios, llama_folder, ggufbench, one_probe):
    """A function that runs `ggufbench ab` on one tiny model in this process and returns its output.

    `ab.program` starts it in a separate process.
    """

    def options(arguments, models, scenarios):
        folder = () if scenarios is None else ("--scenarios", scenarios)
        return ("ab", "--models", models, "--results", run.results, *arguments, *folder)

    def run(*arguments, models=llama_folder, scenarios=gate_scenarios, **env):
        return ggufbench(*options(arguments, models, scenarios), COLUMNS="160", **env)

    def program(*arguments, scenarios=gate_scenarios, **env):
        words = options(arguments, llama_folder, scenarios)
        return subprocess.Popen(
            [sys.executable, "-m", "ggufbench.cli", *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "160", **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    run.results = tmp_path / "results"
    run.program = program
    return run


def only_comparison(run) -> Comparison:
    (found,) = read_all_comparisons(run.results)
    return found


def blocks_of(run) -> list[Block]:
    return blocks_in(run.results)


def blocks_in(results) -> list[Block]:
    paths = sorted(results.glob("*/comparisons/*/block-*.json"))
    return [Block.model_validate_json(path.read_bytes()) for path in paths]


@pytest.fixture
def tolerant_scenarios(gate_scenarios, tmp_path) -> Path:
    """The tiny `cpu` scenario, with a strict tolerance only for memory: other tests run at the same time."""
    folder = shutil.copytree(gate_scenarios, tmp_path / "tolerant")
    cpu = folder / "cpu.toml"
    cpu.write_text(
        cpu.read_text().replace("relative = 0.6", "relative = 9").replace("relative = 2", "relative = 9")
    )
    return folder


def test_same_environment_twice_passes_and_stores_every_block(ab, tmp_path, ggufbench, tolerant_scenarios):
    summary = tmp_path / "summary.md"
    options = ("--baseline", ".", "--seed", 5)

    with ab.program(*options, scenarios=tolerant_scenarios, GITHUB_STEP_SUMMARY=str(summary)) as process:
        printed, problems = process.communicate(timeout=100)

    assert (process.returncode, problems) == (0, ""), printed
    assert "| decode |" in summary.read_text() and "no regression" in summary.read_text()
    show = ("show", "--results", ab.results)
    (stored,) = json.loads(ggufbench(*show, "--json").stdout)["comparisons"]
    assert stored["case_id"].startswith("llama-tiny-Q8_0-cpu-")
    for text in (printed, ggufbench(*show).stdout):
        assert f"{stored['case_id']}: no regression" in text
    assert stored["verdict"] == "no regression"
    found, blocks = only_comparison(ab), blocks_of(ab)
    assert [block.number for block in blocks] == list(range(len(blocks))) and len(blocks) == found.blocks + 1
    assert found.seed == 5 and found.launches == 2 * len(blocks)
    assert {tuple(block.order) for block in blocks} == {
        ("baseline", "candidate"),
        ("candidate", "baseline"),
    }
    assert all(cell.pairs >= 6 and len(cell.log_ratios) == found.blocks for cell in found.cells)
    assert found.answers["baseline"] == found.answers["candidate"] != []


def test_a_larger_context_is_a_regression_of_memory(ab, tmp_path, setting_file):
    old, new = setting_file(tmp_path / "old.toml"), setting_file(tmp_path / "new.toml", n_ctx=8192)

    done = ab("--baseline", old, "--candidate", new, "--json", scenarios=None)

    assert done.returncode == 10, done.stdout + done.stderr
    (comparison,) = json.loads(done.stdout)["comparisons"]
    verdicts = {cell["metric"]: cell for cell in comparison["cells"]}
    memory = verdicts["peak_rss_bytes"]
    assert memory["verdict"] == comparison["verdict"] == "regression"
    assert memory["pairs"] >= 10 and memory["low"] > memory["tolerance"] - 0.05
    assert memory["p_regression"] <= 0.05 and memory["change"] > memory["tolerance"]


def test_a_smaller_context_is_an_improvement(ab, small_design, tmp_path, setting_file):
    old, new = setting_file(tmp_path / "old.toml", n_ctx=8192), setting_file(tmp_path / "new.toml")

    done = ab("--baseline", old, "--candidate", new, scenarios=None)

    assert done.returncode == 0, done.stdout + done.stderr
    assert {c.metric: c.verdict for c in only_comparison(ab).cells}["peak_rss_bytes"] == "improvement"


def test_candidate_that_cannot_run_a_case_exits_11(ab, tmp_path, setting_file):
    old, new = setting_file(tmp_path / "old.toml"), setting_file(tmp_path / "new.toml", device='"vulkan"')

    done = ab("--baseline", old, "--candidate", new, scenarios=None)

    assert done.returncode == 11, done.stdout + done.stderr
    assert "missing" in done.stdout and "the candidate cannot run it: no vulkan device" in done.stdout


def test_baseline_that_cannot_run_a_case_exits_12(ab, tmp_path, setting_file):
    old, new = setting_file(tmp_path / "old.toml", device='"vulkan"'), setting_file(tmp_path / "new.toml")

    done = ab("--baseline", old, "--candidate", new, scenarios=None)

    assert done.returncode == 12, done.stdout + done.stderr
    assert "the baseline cannot run it: no vulkan device" in done.stdout


def test_baseline_without_the_library_exits_12(ab, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)

    done = ab("--baseline", tmp_path / "bare")

    assert done.returncode == 12, done.stdout + done.stderr
    assert "has no llama-cpp-python" in done.stdout


def test_time_budget_is_inconclusive_and_fails_with_strict(ab, monkeypatch):
    endless = Design(looks=(1000,), regression_weights=(1.0,), pass_weights=(1.0,))
    monkeypatch.setattr("ggufbench.comparing.ab.AbRequest", partial(AbRequest, design=endless))

    strict = ab("--baseline", ".", "--time-budget", "6s", "--strict")

    assert strict.returncode == 13, strict.stdout
    assert "inconclusive" in strict.stdout and "the time budget ended after" in strict.stdout
    assert exit_code([only_comparison(ab)], strict=False) == 0


def test_no_model_exits_14(ab, tmp_path):
    (tmp_path / "empty").mkdir()

    done = ab("--baseline", ".", models=tmp_path / "empty")

    assert done.returncode == 14
    assert "No model was found" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "ab needs a baseline"),
        (("--baseline", "no-such-thing"), "no-such-thing"),
        (("--baseline", ".", "--scenario", "cpuu"), "did you mean cpu"),
        (("--baseline", ".", "--anchor", "."), "is not a pinned release"),
        (("--baseline", ".", "--match", "gemma"), "no model matches"),
        (("--baseline", ".", "--time-budget", "soon"), "is not a duration"),
    ],
)
def test_invalid_comparison_exits_2_with_one_line(ab, arguments, sentence):
    done = ab(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr and len(done.stderr.splitlines()) == 1


def test_scenario_files_need_the_same_workload(ab, tmp_path, setting_file):
    old = setting_file(tmp_path / "old.toml")
    other = tmp_path / "other.toml"
    other.write_text(old.read_text().replace("generated_tokens = 16", "generated_tokens = 17"))

    alone = ab("--baseline", old, scenarios=None)
    unequal = ab("--baseline", old, "--candidate", other, scenarios=None)

    assert (alone.returncode, unequal.returncode) == (2, 2)
    assert "old.toml is a scenario file and can only be compared with another one" in alone.stderr
    assert "have different workloads" in unequal.stderr


def test_different_answer_is_broken_unless_allowed(ab, small_design, tmp_path, setting_file):
    """A cache of 4 bits changes the answers of the model."""
    old, new = setting_file(tmp_path / "old.toml"), setting_file(tmp_path / "new.toml", type_k='"q4_0"')
    new.write_text(new.read_text().replace('type_k = "q4_0"', 'type_k = "q4_0"\ntype_v = "q4_0"'))
    command = ("--baseline", old, "--candidate", new)

    refused = ab(*command, scenarios=None)
    accepted = ab(*command, "--allow-other-answers", scenarios=None)

    assert refused.returncode == 11, refused.stdout + refused.stderr
    reason = " ".join(refused.stdout.split())
    assert "the candidate's distributions differ by" in reason
    assert "accept them with --allow-other-answers" in reason
    assert "answers: other answers: the candidate's distributions differ by" in accepted.stdout
    assert accepted.returncode == 0, accepted.stdout + accepted.stderr


@pytest.mark.parametrize(
    ("number", "name"), [("SIGINT", "Ctrl-C"), pytest.param("SIGHUP", "SIGHUP", marks=pytest.mark.nightly)]
)
def test_a_signal_keeps_every_block_and_a_comparison(ab, wait_until, number, name):
    with ab.program("--baseline", ".") as process:
        wait_until(lambda: len(list(ab.results.glob("*/comparisons/*/block-*.json"))) >= 2, "two blocks")
        process.send_signal(signal.Signals[number])
        output, _ = process.communicate(timeout=60)

    assert process.returncode == 130
    assert f"interrupted by {name} after" in output
    assert only_comparison(ab).verdict == "inconclusive" and len(blocks_of(ab)) >= 2


def test_unusable_results_are_noticed_before_the_first_launch(ab):
    ab.results.write_text("not a folder")
    done = ab("--baseline", ".")
    assert done.returncode == 2 and str(ab.results) in done.stderr
    assert "cannot be written" in done.stderr and "pairs" not in done.stdout


def test_verdict_is_shown_if_results_cannot_be_stored(ab, small_design, monkeypatch):
    monkeypatch.setattr(comparing_ab, "new_run_id", lambda: "run")
    ab.results.mkdir()
    (ab.results / "run").write_text("not a folder")

    done = ab("--baseline", ".")

    assert done.returncode == 1, done.stdout + done.stderr
    assert "no regression" in done.stdout
    assert "measured, but not stored" in done.stderr and str(ab.results) in done.stderr


@pytest.mark.parametrize(("way", "words"), [("crash", "crashed"), ("hang", "hung"), ("fail", "failed")])
def test_a_candidate_whose_worker_breaks_is_broken(broken_worker, way, words):
    comparison = broken_worker("candidate", way)

    assert (comparison.verdict, comparison.launches) == ("broken", 2), comparison.reason
    assert comparison.reason.startswith(f"the candidate {words}: ")
    assert all(cell.verdict == "broken" for cell in comparison.cells)


def test_a_baseline_whose_worker_breaks_is_missing(broken_worker):
    comparison = broken_worker("baseline", "crash")

    assert (comparison.verdict, comparison.lacking) == ("missing", "baseline")
    assert comparison.reason.startswith("the baseline crashed: ")


@pytest.fixture
def broken_worker(llama_folder, gate_scenarios, tmp_path, monkeypatch, one_probe):
    """A function that compares two arms; the worker of one breaks in the given way at its first prompt."""

    def compare(role: str, way: str) -> Comparison:
        monkeypatch.setenv("LLAMA_TEST_BREAKS", way)
        request = Request(
            [llama_folder], scenario_folder=gate_scenarios, results=tmp_path / "r", deadline_scale=0.05
        )
        question = AbRequest(request, ".")
        planned = plan(question)
        breaking = replace(planned.arms[role], interpreter=Interpreter(entry=BREAKS))
        arms = {**planned.arms, role: breaking}
        answer = measure(question, replace(planned, arms=arms))
        (comparison,) = answer.comparisons
        return comparison

    return compare


def test_anchor_is_measured_in_each_block_and_found_by_history(
    llama_folder, gate_scenarios, small_design, tmp_path, ggufbench
):
    """The anchor is this environment under the name of a release; the test is about the third arm."""
    request = Request([llama_folder], scenario_folder=gate_scenarios, results=tmp_path / "results")
    design = replace(small_design, looks=(6,))  # history ignores sessions with fewer pairs
    question = AbRequest(request, ".", anchor="llama-cpp-python==0.0.1", seed=1, design=design)
    planned = plan(replace(question, anchor=None))
    anchor = replace(planned.arms["baseline"], spec=ArmSpec("llama-cpp-python==0.0.1", "requirement"))
    (entry,) = planned.entries
    three = replace(entry, cases={**entry.cases, "anchor": entry.cases["baseline"]})
    arms = {**planned.arms, "anchor": anchor}

    (comparison,) = measure(question, replace(planned, arms=arms, entries=[three])).comparisons

    orders = {tuple(block.order) for block in blocks_in(tmp_path / "results")}
    assert all(sorted(order) == ["anchor", "baseline", "candidate"] for order in orders) and len(orders) > 2
    anchored = [cell for cell in comparison.cells if cell.against == "anchor"]
    assert len(anchored) == 4 and all(len(cell.log_ratios) >= 6 for cell in anchored)
    done = ggufbench("history", "--results", tmp_path / "results", "--json")
    assert done.returncode == 0
    assert "llama-cpp-python==0.0.1" in done.stdout and "llama-tiny-Q8_0-cpu" in done.stdout


def test_a_baseline_that_is_the_anchor_is_measured_once(llama_folder, gate_scenarios, small_design, tmp_path):
    request = Request([llama_folder], scenario_folder=gate_scenarios, results=tmp_path / "results")
    question = AbRequest(request, ".", seed=1, design=small_design)
    planned = plan(question)
    pinned = replace(planned.arms["baseline"], spec=ArmSpec("llama-cpp-python==0.0.1", "requirement"))
    asked = replace(question, baseline=pinned.spec.name, anchor=pinned.spec.name)

    answer = measure(asked, replace(planned, arms={**planned.arms, "baseline": pinned}))

    (comparison,) = answer.comparisons
    assert [arm.role for arm in comparison.arms] == ["baseline", "candidate", "anchor"]
    assert comparison.launches == 2 * (comparison.blocks + 1)
    both = {cell.against: cell for cell in comparison.cells if cell.metric == "peak_rss_bytes"}
    assert both["anchor"].log_ratios == both["baseline"].log_ratios != []


@pytest.mark.parametrize(("provider", "more"), [("transformers", 'dtype = "float32"\n'), ("langchain", "")])
def test_baselines_and_layers_are_compared_only_if_named(
    provider, more, llama_folder, gate_scenarios, tmp_path, one_probe
):
    """A baseline or a chat model is beside the scenarios of llama.cpp, as in the shipped folder."""
    folder = shutil.copytree(gate_scenarios, tmp_path / "scenarios")
    (folder / "other.toml").write_text(f'provider = "{provider}"\n[setting]\ndevice = "cpu"\n{more}')
    request = Request([llama_folder], scenario_folder=folder, results=tmp_path / "results")
    unnamed = plan(AbRequest(request, ".")).entries
    named = plan(AbRequest(replace(request, scenarios=["other"]), ".")).entries
    assert unnamed and all(entry.cases["candidate"].scenario.provider == "engine" for entry in unnamed)
    assert [entry.cases["candidate"].scenario.provider for entry in named] == [provider]


@pytest.mark.nightly
def test_rounding_passes_and_a_gated_divergence_is_a_cell(ab, small_design, tmp_path, setting_file):
    old, new = setting_file(tmp_path / "old.toml"), setting_file(tmp_path / "new.toml", flash_attn='"off"')
    for path in (old, new):
        metrics = 'metrics = ["peak_rss_bytes", "kl_divergence"]'
        path.write_text(path.read_text().replace("[gate.tolerance", f"[gate]\n{metrics}\n[gate.tolerance", 1))

    done = ab("--baseline", old, "--candidate", new, "--json", scenarios=None)

    (comparison,) = json.loads(done.stdout)["comparisons"]
    assert comparison["answer_check"]["verdict"] in ("same answers", "other rounding"), done.stdout
    cells = {cell["metric"]: cell for cell in comparison["cells"]}
    assert set(cells) == {"peak_rss_bytes", "kl_divergence"}
    assert cells["kl_divergence"]["verdict"] == "no regression"
    assert comparison["answer_check"]["divergence"]["tokens"] > 1000


def test_a_scorer_has_no_speed_to_compare(ab, tmp_path, setting_file):
    path = setting_file(tmp_path / "score.toml")
    text = path.read_text().partition("[workload]")[0]
    path.write_text('provider = "scorer"\n' + text + "[workload]\nprompt_tokens = 32\n")
    done = ab("--baseline", path, "--candidate", path, scenarios=None)
    assert done.returncode == 2
    assert (
        "scenario score has no speed to compare; to gate answers, name kl_divergence in [gate]" in done.stderr
    )
