"""`ggufbench verify`, run as a user runs it, against a fake llama-bench; our side and the model are real."""

import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ggufbench.comparing.fidelity import best_rate
from ggufbench.records.schema import Sample


@pytest.fixture
def command(llama_folder, scenario_folder, fake_llama_bench):
    """A function: the command line with the fake in a mode, few and small runs."""

    def command(mode: str, *arguments: object) -> list[str]:
        return [
            sys.executable, "-m", "ggufbench.cli", "verify", "--llama-bench", str(fake_llama_bench(mode)),
            "--models", str(llama_folder), "--scenarios", str(scenario_folder), "--pairs", "2",
            "--prompt", "40", "--generate", "8", "--repetitions", "1", *map(str, arguments),
        ]  # fmt: skip

    return command


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    """A folder for temporary files of its own: its runs wait for no other run on this machine."""
    folder = str(tmp_path)
    return {
        **os.environ,
        "COLUMNS": "100",
        "LLAMA_FAKE_FOLDER": folder,
        "TMPDIR": folder,
        "SECRET": "kept out",
    }


@pytest.fixture
def run(command, environment):
    """A function: the command, to its end."""

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


def test_a_ratio_that_is_off_exits_10(run, tmp_path):
    done = run("slow", "--seed", 3)
    assert done.returncode == 10, done.stderr
    assert re.search(r"^pp40 +\d+ t/s +0\.00 t/s +\S+ +\S+ +50\.0 % +2 +differs$", done.stdout, re.MULTILINE)
    assert re.search(r"^tg8 .* differs$", done.stdout, re.MULTILINE)
    assert "is another llama.cpp (1234567) than the library" in done.stdout
    assert re.search(r"own loop takes \d+\.\d\d µs of a token", done.stdout)
    assert "seed 3." in done.stdout and "6 pairs or more" in done.stdout
    assert (tmp_path / "runs").read_text() == "3", "a warm pair and two that count"
    assert "SECRET" not in (tmp_path / "environment").read_text()


def test_agreement_exits_0_and_json_holds_every_sample(run, tmp_path):
    # The fake's rate is no real one: only the widest tolerance takes it for equal.
    done = run("fast", "--json", "--tolerance", 1, "--seed", 3, "--depth", 16, "--pairs", 4)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["seed"], document["exit_code"], document["skipped"]) == (3, 0, [])
    (comparison,) = document["comparisons"]
    assert [test["test"] for test in comparison["tests"]] == ["pp40 @ d16", "tg8 @ d16"]
    assert comparison["arguments"] == (tmp_path / "arguments").read_text().splitlines()
    assert comparison["setting"]["n_ctx"] == 80 and comparison["workload"]["depth"] == 16
    assert len(comparison["measured_pairs"]) == 4 and comparison["warm_pair"] is not None
    coin = random.Random(3)
    order = ["ggufbench" if coin.random() < 0.5 else "llama-bench" for _ in range(4)]
    assert [pair["first"] for pair in comparison["measured_pairs"]] == order
    assert set(order) == {"ggufbench", "llama-bench"}
    for pair in comparison["measured_pairs"]:
        assert pair["llama_bench"]["decode_seconds"] == [1e-6]
        timed = [sample for sample in pair["launch"]["samples"] if not sample["warmup"]]
        assert {"prompt", "decode"} <= {sample["phase"] for sample in timed}
    assert comparison["loop_overhead_seconds"] > 0
    share = comparison["loop_overhead_seconds"] * comparison["tests"][1]["ours_median"]
    assert comparison["loop_overhead_share"] == pytest.approx(share)


@pytest.mark.parametrize(
    ("mode", "words"),
    [("crashes", "llama-bench crashed (SIGABRT)"), ("refuses", "exit code 1: error: invalid parameter")],
)
def test_a_llama_bench_that_never_answers_is_refused(run, mode, words):
    done = run(mode)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr and len(done.stderr.splitlines()) == 1


def test_one_that_breaks_midway_exits_11(run):
    done = run("crashes-later")
    assert done.returncode == 11
    assert "Ended after 0 pairs: llama-bench crashed (SIGABRT)" in done.stdout


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
def test_what_cannot_be_asked_is_one_sentence(run, arguments, words):
    done = run("fast", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr and done.stderr.startswith("ggufbench: ")


def test_a_case_that_cannot_run_is_named_and_nothing_was_measured(run):
    done = run("fast", "--scenario", "metal")
    assert done.returncode == 14
    assert "llama-tiny-Q8_0-metal was skipped: no metal device" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_both_and_says_so(command, environment, tmp_path, wait_until):
    process = subprocess.Popen(
        command("hangs"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    pid_file = tmp_path / "pid"
    pid = wait_until(lambda: pid_file.exists() and pid_file.read_text(), "the fake to start")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Ended after 0 pairs: interrupted by Ctrl-C" in said and "Traceback" not in said
    assert not Path(f"/proc/{pid}").exists()


def test_a_disturbed_sample_counts_only_where_there_is_no_other():
    def sample(seconds: float, disturbed: bool, warmup: bool = False) -> Sample:
        why = [{"kind": "stolen", "share": 0.5}] if disturbed else []
        values = {"phase": "decode", "seconds": seconds, "tokens": 8, "warmup": warmup}
        return Sample.model_validate({**values, "disturbed": why})

    samples = [sample(1.0, True), sample(4.0, False), sample(2.0, False), sample(0.5, False, True)]
    assert best_rate(samples, "decode") == 4.0
    assert best_rate(samples[:1], "decode") == 8.0
