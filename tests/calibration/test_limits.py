"""Real but smaller measurements of this machine's limits, and their storage."""

import dataclasses
import json
import subprocess
import sys

import pytest

from ggufbench.calibration import limits, measurement
from ggufbench.calibration.limits import MachineLimits, limits_path, load_limits, machine_limits
from ggufbench.calibration.measurement import CalibrationError, thread_counts
from ggufbench.launching.launcher import Interpreter, launch
from ggufbench.machine.facts import read_machine, usable_cores
from ggufbench.outcomes import Outcome
from ggufbench.worker.protocol import Bandwidth, BandwidthJob


@pytest.fixture(scope="module")
def here(one_probe):
    """This machine and this environment."""
    environment = one_probe(Interpreter())
    return read_machine(environment.gpu_names()), environment


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("GGUFBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def busy_children():
    """A busy process on every core."""
    loop = "import signal; signal.alarm(60)\nwhile True: pass"
    children = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(usable_cores())]
    yield
    for child in children:
        child.kill()
        child.wait()


@pytest.fixture
def kept(here):
    """Limits stored in the cache folder."""
    taken = MachineLimits(
        read_bytes_per_second={1: 1e10, 2: 2e10},
        flops_per_second={1: 1e11},
        last_cache_bytes=2**25,
        buffer_bytes=2**28,
        taken="2026-01-02T03:04:05+00:00",
        seconds=12.0,
    )
    path = limits_path(*here)
    path.parent.mkdir(parents=True)
    path.write_text(taken.model_dump_json())
    return taken


def test_measuring_and_reading_again(here, small, cache):
    machine, environment = here
    path = limits_path(machine, environment)
    path.parent.mkdir()
    path.write_text('{"format": 1')  # an interrupted copy is measured again
    steps = []
    measured = machine_limits(machine, environment, Interpreter(), tell=steps.append)
    counts = thread_counts(machine.usable_cores)
    assert list(measured.read_bytes_per_second) == list(measured.flops_per_second) == counts
    assert measured.flops_quantization == "Q8_0"
    assert measured.buffer_bytes == 2**24
    assert {"memory bandwidth", "multiplications of Q8_0", "disk"} <= set(steps)
    assert measured.disk_read_bytes_per_second is not None or "disk" in measured.problems[0]
    assert load_limits(machine, environment) == measured
    assert list(cache.iterdir()) == [path]

    def unexpected(step):
        raise AssertionError(step)

    assert machine_limits(machine, environment, Interpreter(), tell=unexpected) == measured


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_the_whole_measurement(here):
    """The measurement of `doctor` and of a machine's first session: every type and a large buffer."""
    measured = machine_limits(*here, Interpreter())
    assert measured.flops_quantization in measurement.QUANTIZATIONS
    assert measured.buffer_bytes >= limits._SMALLEST_BUFFER_BYTES
    assert all(rate > 1e9 for rate in measured.read_bytes_per_second.values())
    assert all(rate > 1e9 for rate in measured.flops_per_second.values())


def test_refresh_measures_again(here, small, kept):
    again = machine_limits(*here, Interpreter(), refresh=True)
    assert again.taken > kept.taken
    assert load_limits(*here) == again


def test_each_build_has_separate_limits(here, kept):
    machine, environment = here
    assert load_limits(machine, environment) == kept
    for change in (
        {"system_info": environment.system_info + " AVX512 = 1 |"},
        {"versions": {**environment.versions, "llama.cpp": "another"}},
    ):
        assert load_limits(machine, dataclasses.replace(environment, **change)) is None
    assert load_limits(machine.model_copy(update={"fingerprint": "f" * 16}), environment) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff",
        b"[" * 100_000,
        b'{"format": 1}',
        b"x" * (2**20 + 1),
    ],
)
def test_invalid_limits_file_is_ignored(here, kept, content):
    limits_path(*here).write_bytes(content)
    assert load_limits(*here) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", 2),
        ("read_bytes_per_second", {"1": -1.0}),
        ("read_bytes_per_second", {"1": 1e400}),
        ("flops_per_second", {"0": 1.0}),
        ("flops_per_second", {"x": 1.0}),
        ("last_cache_bytes", 2**70),
        ("unknown", 1),
    ],
)
def test_values_of_a_limits_file_are_validated(here, kept, field, value):
    path = limits_path(*here)
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    assert load_limits(*here) is None


def test_folder_instead_of_a_limits_file_is_ignored(here):
    limits_path(*here).mkdir(parents=True)
    assert load_limits(*here) is None


def test_limits_that_cannot_be_stored_are_still_used(here, small, cache):
    cache.write_text("no folder")
    measured = machine_limits(*here, Interpreter())
    assert measured.read_bytes_per_second
    assert measured.disk_read_bytes_per_second is None
    assert any(
        "cannot be stored" in problem and "GGUFBENCH_CACHE" in problem for problem in measured.problems
    )


def test_without_llama_cpp_memory_and_disk_are_measured(here, small):
    machine, environment = here
    without = dataclasses.replace(environment, problem="no llama-cpp-python", versions={}, system_info="")
    measured = machine_limits(machine, without, Interpreter())
    assert measured.read_bytes_per_second
    assert measured.flops_per_second == {}
    assert "no llama-cpp-python" in measured.problems


@pytest.mark.nightly
def test_buffer_too_small_for_the_cache_is_named(here, small, monkeypatch):
    monkeypatch.setattr(limits, "available_memory_bytes", lambda: 2**24)
    measured = machine_limits(*here, Interpreter())
    assert measured.buffer_bytes == 2**22
    assert any("only 4 MiB" in problem and "too high" in problem for problem in measured.problems)


@pytest.mark.real
def test_several_threads_read_the_whole_buffer():
    ended = launch(BandwidthJob([1, 2, 3], 2**22, 2), lambda _phase: 60)
    rates = {event.threads: event.bytes_per_second for event in ended.all(Bandwidth)}
    assert ended.outcome is Outcome.MEASURED
    assert list(rates) == [1, 2, 3]
    assert all(rate > 1e8 for rate in rates.values())


@pytest.mark.real
def test_too_large_a_buffer_is_an_error_message():
    with pytest.raises(CalibrationError, match=r"memory bandwidth was not measured: \d+ bytes of memory"):
        measurement.read_rates(Interpreter(), [1], 2**60)


@pytest.mark.real
def test_interpreter_that_does_not_start_is_an_error_message(small, tmp_path):
    with pytest.raises(CalibrationError, match="cannot be started"):
        measurement.multiply_rates(Interpreter(python=tmp_path / "none"), [1], lambda _step: None)


@pytest.mark.real
@pytest.mark.timing
def test_other_work_on_every_core_is_noticed(small, busy_children):
    rates = measurement.read_rates(Interpreter(), [usable_cores()], 2**24)
    assert rates.by_threads
    assert not rates.calm


def test_limits_measured_with_interference_are_marked(here, small, monkeypatch):
    real = measurement.read_rates
    monkeypatch.setattr(measurement, "read_rates", lambda *args: real(*args)._replace(calm=False))
    disturbed = machine_limits(*here, Interpreter())
    assert "other work used part of the cores the whole time" in (disturbed.disturbance or "")


@pytest.mark.parametrize(
    ("cores", "expected"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])]
)
def test_thread_counts(cores, expected):
    assert thread_counts(cores) == expected
