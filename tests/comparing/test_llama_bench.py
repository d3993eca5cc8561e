"""Command line of llama-bench, refused settings, and parsing of its output, with a fake llama-bench."""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ggufbench.comparing.llama_bench import (
    LlamaBenchArm,
    LlamaBenchError,
    bench_arguments,
    build_problem,
    check_executable,
    parse_output,
    run_llama_bench,
)
from ggufbench.machine.devices import AvailableDevices
from ggufbench.machine.parts import Device
from ggufbench.outcomes import Outcome
from ggufbench.worker.job import Workload

WORK = Workload(prompt_tokens=512, generated_tokens=64, depth=0, repetitions=2)
ROW = {
    "build_commit": "0c1e570",
    "build_number": 1,
    "n_depth": 0,
    "samples_ns": [2_000_000_000, 1_000_000_000],
}
PROMPT, DECODE = {**ROW, "n_prompt": 512, "n_gen": 0}, {**ROW, "n_prompt": 0, "n_gen": 64}
NO_DEVICES = AvailableDevices({}, "", supports_rpc=False, devices=[])


@pytest.fixture
def case(llama_folder, plan_cases):
    return plan_cases(llama_folder).cases[0]


def options(case, environment=NO_DEVICES) -> dict[str, str]:
    arguments = bench_arguments(case, environment)
    return dict(zip(arguments[::2], arguments[1::2], strict=True))


def test_every_setting_is_passed(case):
    setting = replace(
        case.setting, flash_attn="on", type_k="q8_0", load_mode="none", repack=False, offload_kqv=False
    )
    given = options(replace(case, setting=setting))
    assert given == {
        "-m": str(case.model.path),
        "-p": "100", "-n": "16", "-d": "0", "-r": "2",
        "-b": "64", "-ub": "64", "-t": "1",
        "-ctk": "q8_0", "-ctv": "f16", "-fa": "on",
        "-lm": "none", "--repack": "0", "-nkvo": "1",
        "-dev": "none", "-ngl": "0", "-sm": "layer", "-mg": "0",
        "-o": "json",
    }  # fmt: skip


def test_rpc_servers_precede_the_names_of_devices(case):
    setting = replace(case.setting, device="rpc", rpc_servers="127.0.0.1:5", n_gpu_layers=3, main_gpu=1)
    devices = [Device(name=n, description="", type="gpu", memory_free_bytes=1, memory_total_bytes=1)
               for n in ("CPU", "RPC0", "RPC1", "CUDA0")]  # fmt: skip
    found = AvailableDevices({}, "", supports_rpc=True, devices=devices)
    arguments = bench_arguments(replace(case, setting=setting), found)
    assert arguments[:2] == ["-rpc", "127.0.0.1:5"]
    given = options(replace(case, setting=setting), found)
    assert (given["-dev"], given["-ngl"], given["-sm"], given["-mg"]) == ("RPC0/RPC1", "3", "layer", "1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_threads_batch": 2}, "n_threads_batch = 2; make them equal"),
        ({"type_k": "f32"}, 'does not support type_k = "f32"; use f16, bf16'),
        ({"type_v": "f32"}, 'does not support type_v = "f32"'),
    ],
)
def test_unsupported_settings_are_refused(case, change, words):
    with pytest.raises(LlamaBenchError) as refused:
        bench_arguments(replace(case, setting=replace(case.setting, **change)), NO_DEVICES)
    assert words in str(refused.value)


def test_another_workload_than_that_of_the_engine_is_refused(case):
    scenario = case.scenario.model_copy(update={"provider": "encoder"})
    with pytest.raises(LlamaBenchError, match=r'does the work of provider = "engine", and this .* "encoder"'):
        bench_arguments(replace(case, scenario=scenario), NO_DEVICES)


def test_a_path_with_a_comma_is_refused(case):
    model = replace(case.model, path=Path("/models/a,b.gguf"))
    with pytest.raises(LlamaBenchError, match=r"at its commas; rename /models/a,b\.gguf"):
        bench_arguments(replace(case, model=model), NO_DEVICES)


def test_output_is_parsed():
    run = parse_output(json.dumps([DECODE, PROMPT]).encode(), WORK)
    assert (run.build_commit, run.build_number) == ("0c1e570", 1)
    samples = [(sample.phase, sample.tokens, sample.seconds) for sample in run.samples]
    assert samples == [("prompt", 512, 2.0), ("prompt", 512, 1.0), ("decode", 64, 2.0), ("decode", 64, 1.0)]


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (b"", "printed nothing instead of JSON"),
        (b"| model |", "printed '| model |' instead of JSON"),
        (b"[" * 100_000, "instead of JSON"),
        (b"{}", "not a list of tests"),
        (b"[1]", "not a list of tests"),
        (json.dumps([PROMPT]).encode(), "0 tests with n_prompt = 0, n_gen = 64, n_depth = 0"),
        (json.dumps([PROMPT, PROMPT, DECODE]).encode(), "2 tests with n_prompt = 512"),
        (json.dumps([PROMPT, {**DECODE, "n_depth": 5}]).encode(), "0 tests with n_prompt = 0"),
        (json.dumps([PROMPT, {**DECODE, "samples_ns": [1]}]).encode(), "no valid samples_ns for 2 samples"),
        (json.dumps([PROMPT, {**DECODE, "samples_ns": [1, 0]}]).encode(), "no valid samples_ns"),
        (json.dumps([PROMPT, {**DECODE, "samples_ns": [1, "2"]}]).encode(), "no valid samples_ns"),
        (json.dumps([PROMPT, {**DECODE, "samples_ns": [1, 1e400]}]).encode(), "no valid samples_ns"),
        (json.dumps([PROMPT, {**DECODE, "samples_ns": None}]).encode(), "no valid samples_ns"),
    ],
)
def test_invalid_output_messages(output, words):
    with pytest.raises(LlamaBenchError) as refused:
        parse_output(output, WORK)
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_unusable_program_messages(tmp_path):
    with pytest.raises(LlamaBenchError, match=r"no llama-bench at .*missing; build one with tools/"):
        check_executable(tmp_path / "missing", "llama-bench")
    (tmp_path / "text").write_text("x")
    with pytest.raises(LlamaBenchError, match="is not executable"):
        check_executable(tmp_path / "text", "llama-bench")
    (tmp_path / "text").chmod(0o755)
    program = check_executable(tmp_path / "text", "llama-bench")
    with pytest.raises(LlamaBenchError, match="cannot be started"):
        run_llama_bench(program, [], WORK, {}, 10)


@pytest.fixture
def run_fake(fake_llama_bench, tmp_path):
    """A function that runs the fake once in the given mode."""

    def run(mode: str, deadline_seconds: float = 30):
        arguments = ["-p", "512", "-n", "64", "-d", "0", "-r", "2"]
        env = {"LLAMA_FAKE_FOLDER": str(tmp_path), "PATH": os.environ["PATH"]}
        return run_llama_bench(fake_llama_bench(mode), arguments, WORK, env, deadline_seconds)

    return run


def test_a_run_returns_the_samples(run_fake):
    run = run_fake("fast")
    assert (run.build_commit, run.build_number) == ("1234567", 42)
    assert [sample.seconds for sample in run.samples] == [1e-6] * 4


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("crashes", "llama-bench crashed (SIGABRT): fake: a last word"),
        ("refuses", "llama-bench ended with exit code 1: error: invalid parameter for argument: -lm"),
        ("text", "instead of JSON"),
        ("silent", "printed nothing"),
        ("other-work", "0 tests with n_prompt = 0"),
    ],
)
def test_failed_run_messages(run_fake, mode, words):
    with pytest.raises(LlamaBenchError) as broke:
        run_fake(mode)
    assert words in str(broke.value)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_hanging_run_is_terminated(run_fake, tmp_path, wait_until):
    with pytest.raises(LlamaBenchError, match="did not end within 2 s"):
        run_fake("hangs", deadline_seconds=2)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIG_DFL)


@pytest.mark.parametrize("llama_bench", ["0c1e570", "0c1e57098bba", "0c1e570-dirty"])
def test_equal_commits_are_the_same_build(llama_bench):
    assert build_problem("0c1e570-dirty", llama_bench) is None


@pytest.mark.parametrize(
    ("library", "llama_bench", "words"),
    [
        ("0c1e570", "1234567", "uses another llama.cpp (1234567) than the library (0c1e570)"),
        ("0c1e570", "unknown", "it is unknown whether"),
        ("", "0c1e570", "the library reports 'nothing'"),
    ],
)
def test_different_build_messages(library, llama_bench, words):
    assert words in build_problem(library, llama_bench)


@pytest.fixture
def measure(fake_llama_bench, tmp_path, monkeypatch, case, plan_cases, make_bench):
    """Two functions: one makes an arm with the fake in the given mode, one measures a launch with it."""
    monkeypatch.setenv("LLAMA_FAKE_FOLDER", str(tmp_path))

    def arm(mode: str) -> LlamaBenchArm:
        return LlamaBenchArm(fake_llama_bench(mode), {case.id: bench_arguments(case, NO_DEVICES)})

    bench = make_bench(plan_cases(case.model.path))
    return arm, lambda arm: arm.measure(case, bench, {"GGUFBENCH_PADDING": "xyz"})


def test_launch_contains_samples_and_build(measure, tmp_path):
    arm, launch = measure
    measured = launch(arm("fast"))
    assert measured.launch.outcome is Outcome.MEASURED and measured.launch.wall_seconds > 0
    found = [(sample.phase, sample.tokens) for sample in measured.launch.samples]
    assert found == [("prompt", 100)] * 2 + [("decode", 16)] * 2
    assert measured.provider.versions == {"llama.cpp": "1234567", "build": "42"}
    assert "GGUFBENCH_PADDING=xyz" in (tmp_path / "environment").read_text().splitlines()


def test_failure_before_the_first_result_is_an_error(measure):
    arm, launch = measure
    with pytest.raises(LlamaBenchError, match="SIGABRT"):
        launch(arm("crashes"))
    later = arm("crashes-later")
    Path(os.environ["LLAMA_FAKE_FOLDER"], "runs").write_text("0")
    launch(later)
    failed = launch(later).launch
    assert (failed.outcome, failed.samples) == (Outcome.FAILED, [])
    assert failed.reason == "llama-bench crashed (SIGABRT): fake: a last word"
