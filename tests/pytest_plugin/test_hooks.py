"""`pytest bench --benchmark-only`, run as a user runs it: a process of its own, real models, real workers."""

import json
import os
import re
import shutil
import signal
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import gguf
import psutil
import pytest

from ggufbench.measuring.machine_lock import one_at_a_time
from ggufbench.records.store import read_records

QUESTIONS = ("decode", "load", "memory", "prompt")

KILLS = """
import os, signal
import ggufbench.measuring.case as module

real = module.measure_case

def measure_case(case, bench):
    def observer(moment):
        bench.observer(moment)
        if moment and moment.phase in case.id:
            os.kill(moment.pid, signal.SIGSEGV)
    import dataclasses
    return real(case, dataclasses.replace(bench, observer=observer))

module.measure_case = measure_case
"""


def records_of(run_pytest):
    return {record.case_id: record for record in read_records(run_pytest.results)}


def test_a_folder_of_models_and_of_rubbish_is_measured(run_pytest, model_folder, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    for model in model_folder.iterdir():
        (folder / model.name).hardlink_to(model)
    whole = (model_folder / "llama-tiny-Q8_0.gguf").read_bytes()
    (folder / "truncated.gguf").write_bytes(whole[: len(whole) // 2])
    (folder / "random.gguf").write_bytes(os.urandom(4096))
    write_vocabulary(folder / "vocabulary.gguf")

    done = run_pytest("--models", str(folder), "--benchmark-json", str(tmp_path / "pb.json"))

    assert done.returncode == 0, done.stdout + done.stderr
    records = records_of(run_pytest)
    measured = [id.rpartition("-")[0] for id, record in records.items() if record.outcome == "measured"]
    assert sorted(measured) == ["gpt-oss-tiny-MXFP4-cpu", "llama-tiny-Q8_0-cpu", "qwen3-tiny-Q4_0-cpu"]
    assert {record.outcome for record in records.values()} == {"measured", "skipped"}
    assert "truncated.gguf" in done.stdout and "random.gguf" in done.stdout
    assert "only a vocabulary: the file has no tensors" in done.stdout
    assert "no metal device" in done.stdout and "no RPC server answers" in done.stdout
    assert "12 passed, 33 skipped" in done.stdout


def test_each_kind_of_model_is_measured_with_its_own_scenario(
    run_pytest, llama_folder, encoder_folder, scenario_folder, tmp_path
):
    """A plain run: no skipped test for a pair of model and scenario that makes no sense."""
    scenarios = tmp_path / "scenarios"
    scenarios.mkdir()
    for name in ("targets.toml", "cpu.toml"):
        shutil.copy(scenario_folder / name, scenarios)
    text = (scenario_folder / "cpu.toml").read_text().replace("generated_tokens = 16", "sequences = 3")
    text = text.replace("prompt_tokens = 100", "prompt_tokens = 20")
    (scenarios / "embed.toml").write_text(f'provider = "encoder"\n{text}')
    shutil.copy(encoder_folder / "bert-mean-F32.gguf", llama_folder)
    done = run_pytest("--models", str(llama_folder), "--scenarios", str(scenarios))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 passed, 2 skipped" in done.stdout  # the cold loads, which the scenarios leave out
    rates = {(one.model.name, one.scenario): one.rates for one in records_of(run_pytest).values()}
    assert rates == {("bert-mean", "embed"): ("encode",), ("llama-tiny", "cpu"): ("prompt", "decode")}
    assert re.search(r"Prompt +Encode +Decode", done.stdout)


def test_an_unknown_thing_to_measure_is_a_usage_error(run_pytest, llama_folder, tmp_path):
    own = tmp_path / "test_own.py"
    own.write_text("import pytest\n@pytest.mark.measures('speed')\ndef test_x(gguf_case): pass\n")
    done = run_pytest("--models", str(llama_folder), "--scenario", "cpu", str(own), only=False)
    assert done.returncode == 4
    assert "measures('speed') names nothing that is measured; write one of load, prompt," in done.stderr


def test_pytest_benchmark_sees_the_worker_s_clock(run_pytest, llama_folder, tmp_path):
    saved = tmp_path / "pb.json"
    done = run_pytest("--models", str(llama_folder), "--scenario", "cpu", "--benchmark-json", str(saved))
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = records_of(run_pytest).values()
    benchmarks = {b["name"].split("[")[0]: b for b in json.loads(saved.read_text())["benchmarks"]}
    assert set(benchmarks) == {f"test_{question}" for question in QUESTIONS}

    ready = [
        sum(s.seconds for s in launch.samples if s.phase in ("load", "first_decode"))
        for launch in record.launches
    ]
    assert benchmarks["test_load"]["stats"]["data"] == pytest.approx(ready)
    prompts = [
        s for launch in record.launches for s in launch.samples if s.phase == "prompt" and not s.warmup
    ]
    assert benchmarks["test_prompt"]["stats"]["data"] == pytest.approx(
        [s.seconds / s.tokens for s in prompts]
    )
    assert benchmarks["test_decode"]["stats"]["ops"] == pytest.approx(
        record.summary["decode_tokens_per_second"].median, rel=0.5
    )
    peak = record.summary["peak_rss_bytes"]
    assert benchmarks["test_memory"]["stats"]["max"] == pytest.approx(peak.maximum / 2**30)
    assert benchmarks["test_load"]["extra_info"]["metrics"]["load_seconds"]["unit"] == "s"
    assert benchmarks["test_load"]["params"] == {"gguf_case": record.case_id}


def test_saved_results_can_be_compared(run_pytest, llama_folder):
    arguments = ("--models", str(llama_folder), "--scenario", "cpu")
    assert run_pytest(*arguments, "--benchmark-save=first").returncode == 0
    again = run_pytest(*arguments, "--benchmark-compare=0001")
    assert again.returncode == 0, again.stdout + again.stderr
    (case_id,) = records_of(run_pytest)
    assert f"test_load[{case_id}] (0001_first)" in again.stdout


def test_a_crash_in_each_phase_fails_its_own_case_alone(run_pytest, model_folder, tmp_path):
    """Real workers are killed for real; the case's name says in which phase."""
    folder = tmp_path / "models"
    folder.mkdir()
    phases = ("import", "load", "first_decode", "prompt", "decode", "digest", "exit")
    for index, phase in enumerate((*phases, "survivor")):
        copy = bytearray((model_folder / "llama-tiny-Q8_0.gguf").read_bytes())
        copy[-1] = index  # another model, not a copy
        (folder / f"dies-in-{phase}-Q8_0.gguf").write_bytes(copy)
    (tmp_path / "kills.py").write_text(KILLS)
    junit = tmp_path / "junit.xml"

    done = run_pytest(
        "--models", str(folder), "--scenario", "cpu", "-p", "kills", "--junit-xml", str(junit),
        "--benchmark-json", str(tmp_path / "pb.json"), env={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip

    assert done.returncode == 1, done.stdout + done.stderr
    records = {id.rpartition("-")[0]: record for id, record in records_of(run_pytest).items()}
    for phase in phases:
        record = records[f"dies-in-{phase}-Q8_0-cpu"]
        assert (record.outcome, record.phase) == ("crashed", phase)
        assert f"crashed (SIGSEGV) in {phase}" in done.stdout
    assert records["dies-in-survivor-Q8_0-cpu"].outcome == "measured"
    saved = [b["name"] for b in json.loads((tmp_path / "pb.json").read_text())["benchmarks"]]
    survivor = records["dies-in-survivor-Q8_0-cpu"].case_id
    assert sorted(saved) == [f"test_{question}[{survivor}]" for question in QUESTIONS]
    suite = ElementTree.parse(junit).getroot()[0]
    assert suite.get("failures") == str(len(phases) * (len(QUESTIONS) + 1)), "and the cold load's"
    assert suite.get("errors") == "0"


def test_nothing_found_exits_14_and_says_what_to_do(run_pytest, tmp_path):
    done = run_pytest("--models", str(tmp_path))
    assert done.returncode == 14
    assert "no GGUF model was found" in done.stdout and "ggufbench synth" in done.stdout


@pytest.mark.parametrize("mark", ["fail_at_collect", "xfail"])
def test_nothing_found_is_no_error_of_the_collection(run_pytest, tmp_path, mark):
    options = ("--models", str(tmp_path), "-o", f"empty_parameter_set_mark={mark}")
    done = run_pytest(*options)
    assert done.returncode == 14, done.stdout + done.stderr
    assert "no GGUF model was found; name a folder with --gguf-models" in done.stdout


def test_nothing_measured_exits_14(run_pytest, llama_folder):
    done = run_pytest("--models", str(llama_folder), "--scenario", "metal")
    assert done.returncode == 14
    assert "no metal device" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--scenario", "cpuu"), "has no scenario 'cpuu'; did you mean cpu?"),
        (("--match", "lama2"), "no model matches 'lama2'; found: llama-tiny-Q8_0"),
        (("--quant", "Q8_1"), "no model has the quantization 'Q8_1'; did you mean Q8_0?"),
        (("--models", "/nowhere/at/all"), "/nowhere/at/all"),
        (("--launches", "0"), "--launches 0 is not possible"),
        (("--time-budget", "soon"), "'soon' is not a duration"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_exit_4(run_pytest, llama_folder, arguments, sentence):
    given = arguments if "--models" in arguments else ("--models", str(llama_folder), *arguments)
    done = run_pytest(*given)
    assert done.returncode == 4, done.stdout + done.stderr
    assert sentence in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_collect_only_and_k_and_disable_do_as_pytest_users_expect(run_pytest, llama_folder):
    models = ("--models", str(llama_folder), "--scenario", "cpu")
    listed = run_pytest(*models, "--collect-only", "-q")
    assert listed.returncode == 0
    assert "bench_load.py::test_load[llama-tiny-Q8_0-cpu-" in listed.stdout
    assert not run_pytest.results.exists()

    disabled = run_pytest(*models, "--benchmark-disable", only=False)
    assert disabled.returncode == 0, disabled.stdout + disabled.stderr
    assert "4 passed" in disabled.stdout
    assert not run_pytest.results.exists(), "a trial keeps no numbers"

    chosen = run_pytest(*models, "-k", "load")
    assert chosen.returncode == 0
    assert "1 passed, 1 skipped, 3 deselected" in chosen.stdout
    assert len(records_of(run_pytest)) == 1


def test_a_missed_target_is_shown_and_fails_only_when_enforced(
    run_pytest, llama_folder, scenario_folder, tmp_path
):
    strict = tmp_path / "strict"
    strict.mkdir()
    (strict / "targets.toml").write_text((scenario_folder / "targets.toml").read_text())
    (strict / "cpu.toml").write_text(
        (scenario_folder / "cpu.toml").read_text() + "[targets.memory]\nallowance_bytes = 0\n"
    )
    arguments = ("--models", str(llama_folder), "--scenarios", str(strict))
    shown = run_pytest(*arguments)
    assert shown.returncode == 0
    assert "missed: memory" in shown.stdout
    enforced = run_pytest(*arguments, "--enforce-targets")
    assert enforced.returncode == 1
    assert "1 failed, 3 passed" in enforced.stdout
    assert "target missed: memory:" in enforced.stdout


def test_a_time_budget_skips_what_would_end_after_it(run_pytest, llama_folder):
    done = run_pytest("--models", str(llama_folder), "--scenario", "cpu", "--time-budget", "0s")
    assert done.returncode == 14
    assert "of the time budget is left" in done.stdout


FILLS_THE_DISK = """
import shutil
import ggufbench.measuring.case as module

real = module.measure_case

def measure_case(case, bench):
    record = real(case, bench)
    shutil.rmtree("RESULTS", ignore_errors=True)
    open("RESULTS", "w").close()
    return record

module.measure_case = measure_case
"""
"""After measuring, a file is where the folder of the results was: nothing can be written there."""


def test_results_that_cannot_be_stored_are_shown_and_not_named(run_pytest, llama_folder, tmp_path):
    (tmp_path / "fills.py").write_text(FILLS_THE_DISK.replace("RESULTS", str(run_pytest.results)))
    done = run_pytest(
        "--models", str(llama_folder), "--scenario", "cpu", "-p", "fills", env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.returncode == 1
    assert "fixture was not used" not in done.stdout
    assert "measured, but not stored" in done.stdout
    assert "t/s" in done.stdout, "the table still shows the numbers"
    assert "Not stored: 1 record of 1: " in done.stdout
    assert "Details: ggufbench show" not in done.stdout and "Traceback" not in done.stdout


def test_an_unusable_folder_of_results_is_noticed_before_the_first_launch(run_pytest, llama_folder, tmp_path):
    (tmp_path / "results").write_text("a file where the folder should be")
    done = run_pytest("--models", str(llama_folder), "--scenario", "cpu")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "results cannot be written: Not a directory; free some space or give --results" in done.stderr
    assert "t/s" not in done.stdout and "Traceback" not in done.stdout


@pytest.mark.parametrize(("number", "name"), [("SIGINT", "Ctrl-C"), ("SIGTERM", "SIGTERM")])
def test_a_signal_leaves_what_was_measured_and_no_worker(run_pytest, model_folder, wait_until, number, name):
    process = subprocess.Popen(
        run_pytest.command("--models", str(model_folder), "--scenario", "cpu", "--repetitions", "2000"),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    worker = wait_until(lambda: worker_of(process.pid), "a worker to start")
    wait_until(lambda: worker.cpu_times().user > 1.0, "the worker to be measuring")
    process.send_signal(signal.Signals[number])
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert not worker.is_running()
    (record,) = records_of(run_pytest).values()
    assert record.reason.startswith(f"interrupted by {name} in")
    assert record.summary["prompt_tokens_per_second"].samples > 0
    assert record.case_id.removesuffix("-cpu") in output


@pytest.mark.timing
def test_of_two_runs_one_measures_at_a_time(run_pytest, llama_folder):
    def hold_until_told():
        with one_at_a_time(print):
            process = subprocess.Popen(
                run_pytest.command("--models", str(llama_folder), "--scenario", "cpu"),
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=Path(__file__).parents[2],
            )  # fmt: skip
            for line in process.stdout:
                if f"waiting for process {os.getpid()} (`" in line:
                    break
        return process

    process = hold_until_told()
    assert worker_of(process.pid) is None
    assert "4 passed" in process.communicate(timeout=60)[0]
    assert process.returncode == 0


def test_a_killed_run_leaves_no_worker_behind(run_pytest, model_folder, wait_until):
    process = subprocess.Popen(
        run_pytest.command("--models", str(model_folder), "--scenario", "cpu", "--repetitions", "5000"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    worker = wait_until(lambda: worker_of(process.pid), "a worker to start")
    wait_until(lambda: worker.cpu_times().user > 0.5, "the worker to be measuring")
    process.kill()
    process.wait()
    wait_until(lambda: not worker.is_running(), "the worker to end with its parent", 10)


def write_vocabulary(path: Path) -> None:
    """A GGUF with a tokenizer and no tensors."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "ab"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def worker_of(pid: int) -> psutil.Process | None:
    """The measuring worker among a process's children."""
    try:
        children = psutil.Process(pid).children(recursive=True)
        workers = [child for child in children if "worker/__main__.py" in " ".join(child.cmdline())]
    except psutil.Error:
        return None
    # The first worker only answers which devices there are, and is gone in a moment.
    return next((worker for worker in workers if worker.cpu_times().user > 0.4), None)
