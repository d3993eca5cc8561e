"""The doctor command, and its findings about a build and a machine."""

import dataclasses
import functools
import json
import re

import pytest

from ggufbench.calibration.doctor import (
    Diagnosis,
    Load,
    PageCacheControl,
    build_flags,
    build_problems,
    page_cache_control,
)
from ggufbench.calibration.limits import MachineLimits, limits_path
from ggufbench.calibration.measurement import thread_counts
from ggufbench.launching.launcher import Interpreter
from ggufbench.machine.devices import AvailableDevices
from ggufbench.machine.facts import read_machine
from ggufbench.machine.fitness import Problem
from ggufbench.machine.parts import BusyProcess, Conditions, Device
from ggufbench.report.text.doctor import doctor_report
from ggufbench.report.text.terminal import render

AVX2_BUILD = "CPU : SSE3 = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | OPENMP = 1 | REPACK = 1 |"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, one_probe):
    """A cache folder with limits for this machine, so that a call skips the measurement of 20 seconds."""
    folder = tmp_path_factory.mktemp("cache")
    environment = one_probe(Interpreter())
    machine = read_machine(environment.gpu_names())
    counts = thread_counts(machine.usable_cores)
    known = MachineLimits(
        read_bytes_per_second={count: 1.25e10 * count for count in counts},
        flops_per_second={count: 5e10 * count for count in counts},
        flops_quantization="Q4_0",
        disk_read_bytes_per_second=1.5e9,
        last_cache_bytes=2**25,
        buffer_bytes=2**28,
        taken="2026-01-02T03:04:05+00:00",
        seconds=12.0,
        disturbance="process 7 (backup) uses 80 % of a core",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GGUFBENCH_CACHE", str(folder))
        limits_path(machine, environment).write_text(known.model_dump_json())
    return folder


@pytest.fixture
def doctor(folder, ggufbench):
    """A function that runs `ggufbench doctor`."""
    return functools.partial(ggufbench, "doctor", COLUMNS="150", GGUFBENCH_CACHE=str(folder))


@pytest.fixture
def diagnosis():
    """A function that returns a diagnosis of this machine with some parts changed."""

    def make(**changes) -> Diagnosis:
        parts = {
            "machine": read_machine(),
            "environment": AvailableDevices({"llama.cpp": "abc"}, AVX2_BUILD, False, []),
            "limits": MachineLimits(last_cache_bytes=1, buffer_bytes=2, taken="now", seconds=1),
            "page_cache": PageCacheControl(True, True),
            "conditions": Conditions(),
            "load": Load([], None, 0, 2**30),
            "problems": [],
        }
        return Diagnosis(**{**parts, **changes})

    return make


def test_doctor_text_output(doctor):
    done = doctor()
    assert (done.returncode, done.stderr) == (0, "")
    for words in (
        "Machine ",
        "llama.cpp ",
        "REPACK",
        "Page cache ",
        "12.5 GB/s",
        "Matrix product (Q4_0)",
        "CPU",
    ):
        assert words in done.stdout
    assert "Disk read: 1.50 GB/s." in done.stdout
    # An unfit machine is a finding, not a failure.
    assert "the limits may be too low: process 7 (backup) uses 80 % of a core" in done.stdout
    assert "doctor --refresh" in done.stdout


def test_doctor_json_output(doctor):
    done = doctor("--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert set(found) == {field.name for field in dataclasses.fields(Diagnosis)}
    assert found["limits"]["read_bytes_per_second"]["1"] == 1.25e10
    assert {"problem", "remedy"} == set(found["problems"][-1])
    assert found["page_cache"] in (
        {"residency_readable": True, "droppable": True},
        {"residency_readable": True, "droppable": False},
        {"residency_readable": False, "droppable": False},
    )


def test_flags_of_a_build():
    assert build_flags(AVX2_BUILD + " AMX_INT8 = 0 |") == ["SSE3", "AVX2", "F16C", "FMA", "OPENMP", "REPACK"]
    assert build_flags("") == []


@pytest.mark.parametrize(
    ("system_info", "processor", "words"),
    [
        (AVX2_BUILD, {"avx2", "fma", "f16c"}, []),
        (AVX2_BUILD, {"avx2", "avx512f"}, ["without AVX512"]),
        ("CPU : SSE3 = 1 |", {"avx2", "fma", "f16c"}, ["without AVX2, FMA, F16C"]),
        ("CPU : NEON = 1 | DOTPROD = 1 |", {"asimddp", "i8mm"}, ["without MATMUL_INT8"]),
        (AVX2_BUILD + " AMX_INT8 = 1 |", {"avx2", "fma", "f16c"}, ["AMX"]),
        (AVX2_BUILD, set(), []),  # unknown processor
        ("", {"avx2"}, []),  # unknown build
    ],
)
def test_problems_of_a_build(system_info, processor, words):
    found = build_problems(system_info, frozenset(processor))
    assert len(found) == len(words)
    assert all(word in problem.problem for problem, word in zip(found, words, strict=True))


def test_page_cache_in_an_unwritable_folder(tmp_path):
    (tmp_path / "file").touch()
    assert page_cache_control(tmp_path / "file" / "folder") == PageCacheControl(False, False)


def test_page_cache_test_leaves_no_file(tmp_path):
    page_cache_control(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_fit_machine(diagnosis):
    shown = render(doctor_report(diagnosis()), 120, color=False)
    assert "No problem was found; this machine is fit for measuring." in shown
    assert "Disk read: not measured." in shown
    assert "source unknown" in shown


def test_without_llama_cpp_the_reason_is_shown(diagnosis):
    reason = "this Python has no llama-cpp-python; install it"
    shown = render(
        doctor_report(diagnosis(environment=AvailableDevices({}, "", False, [], reason))), 120, False
    )
    assert reason in shown
    assert re.search(r"Build +unknown", shown)


def test_control_characters_in_names_are_removed(diagnosis):
    evil = "\x1b[31m[red]x\n"
    found = diagnosis(
        load=Load([BusyProcess(7, evil, 0.9)], 0.5, 0, 1),
        problems=[Problem(f"process 7 ({evil})", "end it")],
        environment=AvailableDevices({"llama.cpp": evil}, "", False, [Device(
            name=evil, description=evil, type="cpu", memory_free_bytes=0, memory_total_bytes=0)]),
    )  # fmt: skip
    shown = render(doctor_report(found), 200, color=False)
    assert "\x1b" not in shown
    assert "[red]x" in shown
