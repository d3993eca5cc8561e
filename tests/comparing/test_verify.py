"""`ggufbench verify` as a user runs it, with a fake llama-bench; the engine and the model are real."""

import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ggufbench.checks.interference import Judge
from ggufbench.comparing.verify import Work, with_work
from ggufbench.measuring.machine_lock import one_at_a_time
from ggufbench.planning.scenario import load_scenarios


@pytest.fixture
def command(llama_folder, scenario_folder, fake_llama_bench):
    """A function that returns the command with the fake in the given mode, for few and small runs."""

    def command(mode: str, *arguments: object) -> list[str]:
        return [
            sys.executable, "-m", "ggufbench.cli", "verify", "--llama-bench", str(fake_llama_bench(mode)),
            "--models", str(llama_folder), "--scenarios", str(scenario_folder), "--pairs", "2",
            "--prompt", "40", "--generate", "8", "--repetitions", "1", *map(str, arguments),
        ]  # fmt: skip

    return command


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """Variables with a separate temporary folder, so that runs do not wait for others on this machine."""
    folder = str(tmp_path)
    return {
        **os.environ,
        "COLUMNS": "100",
        "LLAMA_FAKE_FOLDER": folder,
        "TMPDIR": folder,
        "XDG_RUNTIME_DIR": folder,
        "SECRET": "kept out",
    }


@pytest.fixture
def run(command, environment):
    """A function that runs the command to its end."""

    def run(mode: str, *arguments: object) -> subprocess.CompletedProcess:
        done = subprocess.run(
            command(mode, *arguments),
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done

    return run


def test_difference_exits_10(run, tmp_path):
    done = run("slow", "--seed", 3, "--pairs", 5)
    assert done.returncode == 10, done.stderr
    assert re.search(r"^pp40 +\d+ t/s +0\.00 t/s +\S+ +\S+-\S+ +5 +differs$", done.stdout, re.MULTILINE)
    assert re.search(r"^tg8 .* differs$", done.stdout, re.MULTILINE)
    assert "uses another llama.cpp (1234567) than the library" in done.stdout
    assert re.search(r"loop of the worker takes \d+\.\d\d µs of each token", done.stdout)
    assert "seed 3." in done.stdout.replace("\n", " ")
    assert done.stdout.splitlines()[-1] == "Differs in 2 of 2 tests at a tolerance of 2 %."
    assert (tmp_path / "runs").read_text() == "6", "a warm-up pair and five that count"
    assert "SECRET" not in (tmp_path / "environment").read_text()


@pytest.mark.parametrize(("strict", "code"), [((), 0), (("--strict",), 13)])
def test_too_few_pairs_are_always_inconclusive(run, strict, code):
    done = run("slow", "--pairs", 1, *strict)
    assert done.returncode == code, done.stderr
    assert re.search(r"^pp40 .* - +1 +inconclusive$", done.stdout, re.MULTILINE)
    assert "tg8: a 90 % confidence interval needs at least 5 pairs." in done.stdout
    last = (
        "Inconclusive in 2 of 2 tests at a tolerance of 2 %; "
        "inconclusive is not agreement (exit code 13 with --strict)."
    )
    assert done.stdout.replace("\n", " ").strip().endswith(last)


def test_agreement_exits_0_and_json_holds_every_sample(run, tmp_path):
    # The rate of the fake is not real, so only the widest tolerance accepts it.
    done = run("fast", "--json", "--tolerance", 1, "--seed", 3, "--depth", 16, "--pairs", 5)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["seed"], document["exit_code"], document["skipped"]) == (3, 0, [])
    assert (document["pairs"], document["tolerance"], document["interrupted"]) == (5, 1, False)
    (comparison,) = document["comparisons"]
    assert [test["test"] for test in comparison["tests"]] == ["pp40 @ d16", "tg8 @ d16"]
    assert [test["equivalence"]["verdict"] for test in comparison["tests"]] == ["agrees", "agrees"]
    assert comparison["arguments"] == (tmp_path / "arguments").read_text().splitlines()
    assert comparison["setting"]["n_ctx"] == 80 and comparison["workload"]["depth"] == 16
    assert comparison["providers"]["baseline"]["versions"] == {"llama.cpp": "1234567", "build": "42"}
    assert "llama.cpp" in comparison["providers"]["candidate"]["versions"]
    assert [block["number"] for block in comparison["blocks"]] == [0, 1, 2, 3, 4, 5]
    orders = [block["order"] for block in comparison["blocks"]]
    assert orders == [expected_order(3, comparison["case_id"], number) for number in range(6)]
    assert {tuple(order) for order in orders} == {("baseline", "candidate"), ("candidate", "baseline")}
    for block in comparison["blocks"]:
        theirs, ours = (block["launches"][role]["samples"] for role in ("baseline", "candidate"))
        found = [(sample["phase"], sample["seconds"]) for sample in theirs]
        assert found == [("prompt", 1e-6), ("decode", 1e-6)]
        assert {"prompt", "decode"} <= {sample["phase"] for sample in ours if not sample["warmup"]}
    assert comparison["loop_overhead_seconds"] > 0
    share = comparison["loop_overhead_seconds"] * comparison["tests"][1]["ours_median"]
    assert comparison["loop_overhead_share"] == pytest.approx(share)


def expected_order(seed: int, case_id: str, number: int) -> list[str]:
    """The order in which a comparison with this seed launches its arms."""
    order = ["baseline", "candidate"]
    random.Random(f"{seed} {case_id} {number}").shuffle(order)
    return order


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("crashes", "llama-bench crashed (SIGABRT)"),
        ("refuses", "exit code 1: error: invalid parameter"),
        ("endless", "llama-bench was terminated, because it printed more than 16777216 bytes"),
    ],
)
def test_llama_bench_without_a_result_exits_2(run, mode, words):
    done = run(mode)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr and len(done.stderr.splitlines()) == 1


def test_llama_bench_that_breaks_later_exits_11(run):
    done = run("crashes-later")
    assert done.returncode == 11
    assert "Ended early: the baseline failed: llama-bench crashed (SIGABRT)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--llama-bench", "/nowhere/llama-bench"), "there is no llama-bench at /nowhere/llama-bench"),
        (("--llama-bench", __file__), "is not executable"),
        (("--scenario", "cpuu"), "did you mean cpu?"),
        (("--match", "mistral"), "no model matches 'mistral'"),
        (("--models", "/nowhere"), "/nowhere"),
    ],
)
def test_invalid_request_exits_2_with_a_message(run, arguments, words):
    done = run("fast", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr and done.stderr.startswith("ggufbench: ")


def test_case_that_cannot_run_is_reported(run):
    done = run("fast", "--scenario", "metal")
    assert done.returncode == 14
    assert re.search(r"llama-tiny-Q8_0-metal-[0-9a-f]{6} was skipped: no metal device", done.stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("number", "name"), [("SIGINT", "Ctrl-C"), ("SIGTERM",) * 2, ("SIGHUP",) * 2])
def test_a_signal_terminates_both_and_is_reported(command, environment, tmp_path, wait_until, number, name):
    process = subprocess.Popen(
        command("hangs"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    pid_file = tmp_path / "pid"
    pid = wait_until(lambda: pid_file.exists() and pid_file.read_text(), "the fake to start")
    process.send_signal(signal.Signals[number])
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"Ended early: interrupted by {name} after 0 pairs." in said and "Traceback" not in said
    assert not Path(f"/proc/{pid}").exists()


def test_a_run_that_waits_names_the_holder_and_ends_with_its_time_budget(run, environment, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", environment["XDG_RUNTIME_DIR"])
    with one_at_a_time(print):
        done = run("fast", "--time-budget", "0.5s")
    assert done.returncode == 14
    waiting, ended = done.stderr.splitlines()
    assert waiting.startswith(f"ggufbench: waiting for process {os.getpid()} (`")
    assert ended.endswith("the time budget ended after 0.5 s of waiting for it")


def test_interference_never_removes_samples_of_one_side(scenario_folder):
    (found,) = load_scenarios(scenario_folder, ["cpu"])
    strict = found.model_copy(update={"tolerance": type(found.tolerance)()})
    busy = {"wall_seconds": 1.0, "cpu_seconds": 0.1, "waiting_seconds": 0.9, "major_faults": 5000.0,
            "machine_busy_seconds": 2.0, "machine_steal_seconds": 1.0}  # fmt: skip

    planned = with_work(strict, Work(512, 64, 1024))

    assert Judge("cpu", 1, 2, strict.tolerance).reasons(busy, "decode")
    assert not Judge("cpu", 1, 2, planned.tolerance).reasons(busy, "decode")
    assert (planned.setting.n_ctx, planned.workload.launches, planned.workload.depth) == (1536, 1, 1024)
