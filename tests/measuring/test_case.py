"""Measure real models in real worker processes, with every possible outcome."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

from ggufbench.analysis.advice import advise
from ggufbench.launching import launcher
from ggufbench.launching.launcher import Interpreter, launch
from ggufbench.machine.facts import source_state
from ggufbench.measuring.case import Bench, Interrupted, _launches, measure_case
from ggufbench.measuring.preparation import Request, prepare_run
from ggufbench.modelkit import SynthSpec, synthesize
from ggufbench.outcomes import Outcome
from ggufbench.records.parts import Disturbance
from ggufbench.records.samples import metric_samples
from ggufbench.records.store import new_run_id, read_record, write_record
from ggufbench.thresholds import Tolerance
from ggufbench.worker.protocol import AGAIN, GO, TimedSample, encode

PHASES = ["import", "load", "first_decode", "prompt", "decode", "digest", "exit"]


def at_phase(phase, act):
    """An observer that acts on the worker when a phase begins, and remembers its process id."""

    def observer(supervisor):
        if supervisor.phase == phase:
            observer.pid = supervisor.pid
            act(supervisor.pid)

    return observer


@pytest.fixture(scope="module")
def every_architecture(model_folder, scenario_folder, one_probe):
    """The cases of every architecture on the CPU, each with its record."""
    chosen = {"places": [model_folder], "scenarios": ["cpu"], "scenario_folder": scenario_folder}
    prepared = prepare_run(Request(**chosen, results=model_folder / "none"), Interpreter())
    bench = Bench(new_run_id(), prepared.machine, source_state(model_folder))
    return [(case, measure_case(case, bench)) for case in prepared.cases]


def test_every_architecture_is_measured_on_the_cpu(every_architecture):
    assert [case.id.rpartition("-")[0] for case, _ in every_architecture] == [
        "gpt-oss-tiny-MXFP4-cpu",
        "llama-tiny-Q8_0-cpu",
        "qwen3-tiny-Q4_0-cpu",
    ]
    for case, record in every_architecture:
        assert record.outcome is Outcome.MEASURED, record.reason
        assert [launch.outcome for launch in record.launches] == [Outcome.MEASURED] * 2
        assert {"load_seconds", "ready_seconds", "prompt_tokens_per_second"} <= set(record.summary)
        assert record.summary["prompt_tokens_per_second"].samples == 4
        assert record.summary["load_seconds"].samples == 2
        assert record.summary["peak_rss_bytes"].minimum > case.model.tensor_bytes
        assert set(record.launches[0].effective.layers) == {"CPU"}
        assert record.provider.devices[0].name == "CPU"
        assert {target.name: target.status for target in record.targets} == {
            "load": "met",
            "cold load": "not applicable",
            "memory": "met",
        }


def test_settings_are_read_back_from_the_library(llama_folder, plan_cases, make_bench):
    prepared = plan_cases(llama_folder, launches=1)
    case = prepared.cases[0]
    setting = dataclasses.replace(
        case.setting, load_mode="none", flash_attn="off", type_k="q8_0", n_threads=2, n_batch=32, n_ubatch=32
    )
    effective = (
        measure_case(dataclasses.replace(case, setting=setting), make_bench(prepared)).launches[0].effective
    )
    assert effective.load_mode == "none"
    assert effective.flash_attn == "off"
    assert (effective.type_k, effective.type_v) == ("q8_0", "f16")
    assert (effective.n_ctx, effective.n_batch, effective.n_ubatch, effective.n_threads) == (256, 32, 32, 2)


def test_a_prompt_longer_than_a_batch_and_a_depth_are_measured(llama_folder, plan_cases, make_bench):
    prepared = plan_cases(llama_folder, launches=1)
    case = prepared.cases[0]
    workload = dataclasses.replace(case.workload, prompt_tokens=150, depth=100)
    record = measure_case(dataclasses.replace(case, workload=workload), make_bench(prepared))
    assert record.outcome is Outcome.MEASURED, record.reason
    assert all(sample.tokens == 150 for sample in record.launches[0].samples if sample.phase == "prompt")


def test_equal_digests_prove_equal_work(every_architecture):
    digests = [{launch.digest for launch in record.launches} for _, record in every_architecture]
    assert [len(of_one_model) for of_one_model in digests] == [1, 1, 1]
    assert len(set.union(*digests)) == 3, "different weights give different tokens"


def test_each_sample_has_the_kernel_s_evidence(llama_folder, plan_cases, make_bench):
    prepared = plan_cases(llama_folder, launches=1)
    (launch,) = measure_case(prepared.cases[0], make_bench(prepared)).launches
    for sample in launch.samples:
        evidence = sample.evidence
        assert {"cpu_seconds", "involuntary_switches", "major_faults", "machine_busy_seconds"} <= set(
            evidence
        )
        assert sample.seconds <= evidence["wall_seconds"] < sample.seconds + 0.5
        # No upper bound: a thread that spun after loading is only accounted when it goes to sleep.
        assert evidence["cpu_seconds"] > 0


def test_the_native_log_is_kept_once_without_user_folders(llama_folder, plan_cases, make_bench, monkeypatch):
    prepared = plan_cases(llama_folder)
    monkeypatch.chdir(llama_folder.parent)
    first, second = measure_case(prepared.cases[0], make_bench(prepared)).launches
    assert any("from models/llama-tiny-Q8_0.gguf" in line for line in first.log)
    assert not any(str(llama_folder) in line for line in first.log)
    assert second.log == []


def test_cold_and_warm_loads_are_separate(llama_folder, plan_cases, make_bench):
    prepared = plan_cases(llama_folder, launches=1, cold_launches=1)
    cold, warm = measure_case(prepared.cases[0], make_bench(prepared)).launches
    assert (cold.load_only, cold.page_cache.state) == (True, "cold")
    assert cold.page_cache.resident_fraction <= 0.02
    assert (warm.load_only, warm.page_cache.state) == (False, "warm")
    assert warm.page_cache.resident_fraction >= 0.99
    assert [sample.phase for sample in cold.samples] == ["load", "first_decode"]
    assert cold.digest is None and warm.digest
    size = prepared.cases[0].model.file_size_bytes
    assert set(metric_samples(cold, size)) & {"cold_ready_seconds", "ready_seconds"} == {"cold_ready_seconds"}
    assert "peak_rss_bytes" not in metric_samples(cold, size), "it has read no prompt"
    assert {"major_faults", "minor_faults"} <= set(cold.samples[0].evidence)


@pytest.mark.skipif(sys.platform != "linux", reason="a tmpfs is Linux's")
def test_a_file_in_memory_is_never_cold(model_folder, plan_cases, make_bench):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        shutil.copy(model_folder / "llama-tiny-Q8_0.gguf", memory)
        prepared = plan_cases(Path(memory), launches=1, cold_launches=1)
        record = measure_case(prepared.cases[0], make_bench(prepared))
    assert [launch.page_cache.asked for launch in record.launches] == ["cold", "warm"]
    assert [launch.page_cache.state for launch in record.launches] == ["warm", "warm"]
    assert "cold_load_seconds" not in record.summary
    assert record.summary["load_seconds"].samples == 2
    assert any("no cold load was measured, because 100 %" in sentence for sentence in advise(record))


def test_a_large_parent_changes_no_peak(llama_folder, plan_cases, make_bench):
    prepared = plan_cases(llama_folder, launches=1)

    def peak():
        return measure_case(prepared.cases[0], make_bench(prepared)).summary["peak_rss_bytes"].median

    alone = peak()
    ballast = bytearray(b"x") * 2**30
    assert peak() == pytest.approx(alone, rel=0.01)
    assert len(ballast) == 2**30, "it was there all the time"


def test_each_phase_has_its_own_peak(llama_folder, plan_cases, make_bench):
    prepared = plan_cases(llama_folder, launches=1)
    (launch,) = measure_case(prepared.cases[0], make_bench(prepared)).launches
    marks = {mark.after: mark.figures for mark in launch.marks}
    assert list(marks) == ["import", "load", "first_decode", "prompt", "decode", "digest", "exit"]
    assert marks["import"]["peak_rss_bytes"] < marks["load"]["peak_rss_bytes"]
    assert all(figures["pss_bytes"] <= figures["rss_bytes"] for figures in marks.values())
    assert all(figures["rss_bytes"] <= figures["peak_rss_bytes"] for figures in marks.values())


def test_the_peak_is_read_after_a_whole_ubatch(llama_folder, plan_cases, make_bench):
    """A short prompt alone would leave most of the compute buffers untouched."""
    prepared = plan_cases(llama_folder, launches=1)
    case = prepared.cases[0]
    workload = dataclasses.replace(case.workload, prompt_tokens=2)
    (launch,) = measure_case(dataclasses.replace(case, workload=workload), make_bench(prepared)).launches
    tokens = [(s.warmup, s.tokens) for s in launch.samples if s.phase == "prompt"]
    assert tokens == [(True, 64), (False, 2), (False, 2)]


@pytest.fixture
def busy_machine():
    """Every core runs two unrelated processes, whose parent has ended. Returns their ids."""
    hog = f"{sys.executable} -c 'while True: pass' >/dev/null 2>&1 & echo $!"
    command = "; ".join([hog] * 2 * (psutil.cpu_count() or 1))
    started = subprocess.run(["sh", "-c", command], capture_output=True, check=True)
    pids = [int(pid) for pid in started.stdout.split()]
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.nightly
@pytest.mark.timing
def test_a_busy_machine_is_an_outcome_without_valid_samples(tmp_path, plan_cases, make_bench, busy_machine):
    # Large enough for samples of a tenth of a second: shorter ones can pass without interference.
    synthesize(tmp_path / "llama-20m-Q8_0.gguf", SynthSpec("llama", 20_000_000, "Q8_0", vocabulary=2048))
    prepared = plan_cases(tmp_path, launches=1)
    case = prepared.cases[0]
    case = dataclasses.replace(
        case,
        scenario=case.scenario.model_copy(update={"tolerance": Tolerance()}),
        workload=dataclasses.replace(case.workload, generated_tokens=250, prompt_tokens=250),
    )
    record = measure_case(case, make_bench(prepared))
    assert record.outcome is Outcome.ENVIRONMENT, record.environment
    assert "end other work" in record.reason
    assert {process.pid for process in record.environment.processes} & set(busy_machine)
    launch = record.launches[0]
    samples = metric_samples(launch, case.model.file_size_bytes)
    for phase in ("prompt", "decode"):
        timed = [s for s in launch.samples if s.phase == phase and not s.warmup]
        clean = [s for s in timed if not s.disturbed]
        assert len(samples[f"{phase}_tokens_per_second"]) == len(clean)
        assert len(timed) == min(4, 2 + len(timed) - len(clean)), (
            "each sample with interference is taken once more"
        )


def test_loads_with_interference_are_repeated_once_per_launch(llama_folder, plan_cases, make_bench):
    prepared = plan_cases(llama_folder, launches=1)
    case = prepared.cases[0]
    (clean,) = measure_case(case, make_bench(prepared)).launches
    reason = Disturbance("waiting", 0.5)
    samples = [
        s.model_copy(update={"disturbed": [reason]}) if s.phase == "load" else s for s in clean.samples
    ]
    disturbed = clean.model_copy(update={"samples": samples})
    assert asked_of_launches(case, clean) == [("warm", False)]
    assert asked_of_launches(case, disturbed) == [("warm", False), ("warm", True)]


def asked_of_launches(case, launch):
    """The requirements of a case's launches if each of them ends like this one."""
    launches, asked = [], []
    for wanted in _launches(case, launches):
        asked.append(wanted)
        launches.append(launch)
    return asked


def test_a_sample_is_repeated_for_each_again_answer(llama_folder, plan_cases):
    case = plan_cases(llama_folder, launches=1).cases[0]
    answers = iter([AGAIN, AGAIN, GO, GO])

    def answer(event, _pid):
        timed = isinstance(event, TimedSample) and event.phase == "decode" and not event.warmup
        return next(answers) if timed else GO

    ended = launch(case.job(1), lambda _phase: 60, answer=answer)
    assert ended.outcome is Outcome.MEASURED, ended.reason
    decoded = [sample for sample in ended.all(TimedSample) if sample.phase == "decode"]
    assert [sample.warmup for sample in decoded] == [True, False, False, False, False]


def test_the_loop_overhead_is_measured_and_small(llama_folder, plan_cases, make_bench):
    prepared = plan_cases(llama_folder, launches=1)
    (launch,) = measure_case(prepared.cases[0], make_bench(prepared)).launches
    assert 0 < launch.loop_overhead_seconds < 1e-3


def test_warm_ups_are_recorded_and_left_out(llama_folder, plan_cases, make_bench):
    prepared = plan_cases(llama_folder, launches=1)
    launch = measure_case(prepared.cases[0], make_bench(prepared)).launches[0]
    warm = [sample for sample in launch.samples if sample.warmup]
    assert [sample.phase for sample in warm] == ["prompt", "decode"]
    samples = metric_samples(launch, prepared.cases[0].model.file_size_bytes)
    assert len(samples["prompt_tokens_per_second"]) == len(samples["decode_tokens_per_second"]) == 2


def test_the_peak_is_the_kernel_s_final_value(llama_folder, plan_cases, make_bench):
    seen = {}

    def look(pid):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                seen["peak"] = int(line.split()[1]) * 1024

    prepared = plan_cases(llama_folder, launches=1)
    record = measure_case(prepared.cases[0], make_bench(prepared, observer=at_phase("exit", look)))
    assert record.summary["peak_rss_bytes"].maximum == pytest.approx(seen["peak"], rel=0.01)


@pytest.mark.gpu
def test_the_rpc_scenario_runs_only_on_the_rpc_device(model_folder, plan_cases, make_bench, with_rpc):
    prepared = plan_cases(model_folder, "rpc", launches=1)
    for case in prepared.cases:
        record = measure_case(case, make_bench(prepared))
        assert record.outcome is Outcome.MEASURED, record.reason
        effective = record.launches[0].effective
        assert set(effective.layers) == {"RPC0"}
        assert f"RPC0[{with_rpc}]" in effective.buffers["model"]
        assert record.summary["device_bytes"].median > 0
        free = {mark.after: mark.device_free_bytes for mark in record.launches[0].marks}
        assert free["import"] == {}, "querying a GPU before the load would start its driver"
        assert all(list(found) == ["RPC0"] for after, found in free.items() if after != "import")
        assert all(device.memory_free_bytes is None for device in record.provider.devices)


@pytest.mark.gpu
@pytest.mark.metal
@pytest.mark.skipif(sys.platform != "darwin", reason="Metal is Apple's")
def test_the_metal_scenario_runs_only_on_the_metal_device(model_folder, plan_cases, make_bench):
    prepared = plan_cases(model_folder, "metal", launches=1)
    for case in prepared.cases:
        record = measure_case(case, make_bench(prepared))
        assert record.outcome is Outcome.MEASURED, record.reason
        assert all(name.startswith(("MTL", "Metal")) for name in record.launches[0].effective.layers)
        assert "peak_footprint_bytes" in record.launches[0].marks[-1].figures


@pytest.mark.gpu
def test_a_server_in_the_wrong_library_copy_fails_the_gpu_run(llama_folder, plan_cases, make_bench, with_rpc):
    worker = Interpreter(entry=Path(__file__).parents[1] / "workers" / "wrong_library.py")
    prepared = plan_cases(llama_folder, "rpc")
    record = measure_case(prepared.cases[0], make_bench(prepared, interpreter=worker))
    assert record.outcome is Outcome.FAILED
    assert "0 of" in record.reason and "on CPU" in record.reason
    assert "prompt_tokens_per_second" not in record.summary, "it must end before hours are spent on it"


@pytest.mark.parametrize(
    ("bug", "sentence"),
    [
        ("reuse", "measuring error: prompt reached"),
        ("skip", "unequal work: the context holds 1 tokens instead of 100"),
    ],
)
def test_a_prompt_from_the_cache_is_detected(
    llama_folder, plan_cases, make_bench, known_limits, monkeypatch, bug, sentence
):
    prepared = plan_cases(llama_folder, launches=1)
    limits = known_limits.model_copy(update={"disturbance": None})
    monkeypatch.setenv("LLAMA_TEST_BUG", bug)
    worker = Interpreter(entry=Path(__file__).parents[1] / "workers" / "cached_prompt.py")
    honest = measure_case(prepared.cases[0], make_bench(prepared, limits=limits))
    assert honest.outcome is Outcome.MEASURED, honest.reason
    assert {limit.name for limit in honest.limits} == {"decode", "prompt"}
    record = measure_case(prepared.cases[0], make_bench(prepared, limits=limits, interpreter=worker))
    assert record.outcome is Outcome.FAILED
    assert sentence in record.reason


@pytest.mark.parametrize("phase", PHASES)
def test_a_segfault_is_an_outcome_with_its_phase(phase, llama_folder, plan_cases, make_bench):
    prepared = plan_cases(llama_folder)
    kill = at_phase(phase, lambda pid: os.kill(pid, signal.SIGSEGV))
    record = measure_case(prepared.cases[0], make_bench(prepared, observer=kill))
    assert (record.outcome, record.phase) == (Outcome.CRASHED, phase)
    assert record.launches[-1].signal == "SIGSEGV"
    assert f"crashed (SIGSEGV) in {phase}" in record.reason
    assert len(record.launches) == 1, "the next launch would fail the same way"


def test_a_segfault_keeps_earlier_samples(llama_folder, plan_cases, make_bench):
    prepared = plan_cases(llama_folder)
    case = prepared.cases[0]
    long_decode = dataclasses.replace(case.workload, prompt_tokens=1, generated_tokens=150, repetitions=300)
    later = at_phase("decode", lambda pid: threading.Timer(0.5, os.kill, (pid, signal.SIGSEGV)).start())
    record = measure_case(
        dataclasses.replace(case, workload=long_decode), make_bench(prepared, observer=later)
    )
    assert (record.outcome, record.phase) == (Outcome.CRASHED, "decode")
    assert record.summary["prompt_tokens_per_second"].samples == 300
    assert record.summary["decode_tokens_per_second"].samples > 0


@pytest.mark.parametrize("phase", ["load", "decode"])
def test_a_hang_ends_at_its_timeout_without_processes_left(phase, llama_folder, plan_cases, make_bench):
    prepared = plan_cases(llama_folder)
    stop = at_phase(phase, lambda pid: os.kill(pid, signal.SIGSTOP))
    bench = make_bench(prepared, observer=stop, deadline_scale=0.05)
    record = measure_case(prepared.cases[0], bench)
    assert (record.outcome, record.phase) == (Outcome.HUNG, phase)
    assert not psutil.pid_exists(stop.pid)


def test_an_out_of_memory_kill_is_not_a_crash(llama_folder, plan_cases, make_bench, memory_cage):
    prepared = plan_cases(llama_folder)
    case = prepared.cases[0]
    roomy = dataclasses.replace(case.setting, n_ctx=100_000, type_k="f32", type_v="f32", flash_attn="off")
    record = measure_case(
        dataclasses.replace(case, setting=roomy), make_bench(prepared, observer=at_phase("load", memory_cage))
    )
    assert (record.outcome, record.phase) == (Outcome.OUT_OF_MEMORY, "load")


def test_a_kill_from_outside_is_a_crash(llama_folder, plan_cases, make_bench):
    prepared = plan_cases(llama_folder)
    kill = at_phase("prompt", lambda pid: os.kill(pid, signal.SIGKILL))
    record = measure_case(prepared.cases[0], make_bench(prepared, observer=kill))
    assert (record.outcome, record.launches[0].signal) == (Outcome.CRASHED, "SIGKILL")


def test_ctrl_c_keeps_measured_launches(llama_folder, plan_cases, make_bench):
    prepared = plan_cases(llama_folder)

    def observer(supervisor):
        if (supervisor.number, supervisor.phase) == (2, "decode"):
            observer.pid = supervisor.pid
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as caught:
        measure_case(prepared.cases[0], make_bench(prepared, observer=observer))
    record = caught.value.record
    assert [launch.outcome for launch in record.launches] == [Outcome.MEASURED, Outcome.FAILED]
    assert record.reason == "interrupted by Ctrl-C in decode"
    assert record.launches[1].wall_seconds > 0
    assert record.summary["decode_tokens_per_second"].samples == 2
    assert record.summary["prompt_tokens_per_second"].samples == 4
    assert not psutil.pid_exists(observer.pid)


def test_a_file_truncated_after_planning_fails(llama_folder, plan_cases, make_bench):
    prepared = plan_cases(llama_folder)
    path = prepared.cases[0].model.path
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    record = measure_case(prepared.cases[0], make_bench(prepared))
    assert (record.outcome, record.phase) == (Outcome.FAILED, "load")
    assert "was replaced, changed or removed after it was found" in record.reason


def test_a_file_that_vanishes_after_planning_fails(llama_folder, plan_cases, make_bench):
    prepared = plan_cases(llama_folder)
    prepared.cases[0].model.path.unlink()
    record = measure_case(prepared.cases[0], make_bench(prepared))
    assert (record.outcome, record.phase) == (Outcome.FAILED, "load")


def test_a_hostile_file_name_is_measured_and_recorded(llama_folder, plan_cases, make_bench, tmp_path):
    (model,) = llama_folder.iterdir()
    hostile = llama_folder / os.fsdecode(b"<b>\xff\x1b[31m%s [x]-Q8_0.gguf")
    model.rename(hostile)
    prepared = plan_cases(llama_folder, launches=1)
    record = measure_case(prepared.cases[0], make_bench(prepared))
    assert record.outcome is Outcome.MEASURED, record.reason
    assert record.case_id == f"b____31m_s__x_-Q8_0-cpu-{record.model.identity[:6]}"
    written = read_record(write_record(tmp_path / "results", record))
    assert written == record
    assert written.model.path.endswith("<b>\\xff\x1b[31m%s [x]-Q8_0.gguf")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda job: job["setting"].update(flash_atn="on"), 'Job.setting has an unknown field "flash_atn"'),
        (lambda job: job.update(protocol=0), "its protocol version is 0, and 1 is needed"),
        (lambda job: job.pop("protocol"), "its protocol version is missing, and 1 is needed"),
    ],
    ids=["a name that no setting has", "an older harness", "a foreign program"],
)
def test_the_worker_refuses_unknown_jobs(llama_folder, plan_cases, monkeypatch, spoil, sentence):
    job = plan_cases(llama_folder).cases[0].job(1)

    def encode_spoiled(job):
        values = json.loads(encode(job))
        spoil(values)
        return json.dumps(values)

    monkeypatch.setattr(launcher, "encode", encode_spoiled)
    ended = launch(job, lambda _phase: 60)
    assert (ended.outcome, ended.phase) == (Outcome.FAILED, "start")
    remedy = "run the worker and the harness of the same ggufbench version"
    assert ended.reason == f"the job is not valid: {sentence}; {remedy}"


def test_the_worker_imports_nothing_of_the_harness(llama_folder, plan_cases, tmp_path):
    """Copied out of the package, the worker's folder alone can measure a model."""
    import shutil

    import ggufbench.worker

    shutil.copytree(Path(ggufbench.worker.__file__).parent, tmp_path / "elsewhere")
    entry = Interpreter(entry=tmp_path / "elsewhere" / "__main__.py")
    ended = launch(plan_cases(llama_folder).cases[0].job(1), lambda _phase: 60, interpreter=entry)
    assert ended.outcome is Outcome.MEASURED, ended.reason


@pytest.fixture
def memory_cage():
    """A function that puts a process under a memory limit, beyond which the kernel kills it."""
    base = Path("/sys/fs/cgroup")
    version_1 = (base / "memory").is_dir()
    cage = (base / "memory" if version_1 else base) / f"ggufbench-test-{os.getpid()}"
    try:
        cage.mkdir()
        limit = "memory.limit_in_bytes" if version_1 else "memory.max"
        (cage / limit).write_text(str(150 * 2**20))
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    yield lambda pid: (cage / "cgroup.procs").write_text(str(pid))
    cage.rmdir()
