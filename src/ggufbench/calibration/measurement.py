"""Measurement of this machine's limits: memory bandwidth, llama.cpp's matrix products, disk read rate."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ggufbench.checks.roofline import prompt_flops
from ggufbench.discovery import discover
from ggufbench.discovery.model import Model
from ggufbench.errors import GgufbenchError
from ggufbench.launching.launcher import Ended, Interpreter, launch
from ggufbench.machine import page_cache
from ggufbench.machine.facts import linux_last_cache_bytes
from ggufbench.modelkit import ModelError, SynthSpec, synthesize
from ggufbench.outcomes import Outcome
from ggufbench.processes import run_program
from ggufbench.worker.job import ENGINE, Job, Setting, Workload
from ggufbench.worker.protocol import AnyJob, Bandwidth, BandwidthJob, TimedSample

QUANTIZATIONS = ("Q4_K_M", "Q4_0", "F16", "Q8_0")
"""llama.cpp has a separate multiplication for each; the fastest one depends on the processor."""

_PARAMETERS, _VOCABULARY, _LAYERS = 90_000_000, 512, 2
"""Rows of 2048 as in a model of a billion parameters, in two layers: nearly all time goes to products."""
_PROMPT_TOKENS = 256
"""Enough columns for the products; with more, attention takes a larger part of so few layers."""
_ROUNDS, _REPETITIONS, _MOST_LAUNCHES = 15, 4, 3
_CALM_SHARE = 0.95
"""Minimum share of the cores' time for a prompt without interference."""
_DEADLINE_SECONDS = 300.0
_SYSCTL_SECONDS = 5.0

_APPLE_SYSTEM_CACHE_BYTES = 96 * 2**20
"""Cache of the largest of these chips; macOS does not report the cache shared by the whole chip."""
_UNKNOWN_CACHE_BYTES = 32 * 2**20

_DISK_BYTES, _DISK_BLOCK_BYTES, _DISK_PASSES = 256 * 2**20, 8 * 2**20, 2
_COLD_AT_MOST = 0.02


class CalibrationError(GgufbenchError):
    """A limit could not be measured; the message names the limit and the reason in one sentence."""


class MeasuredRates(NamedTuple):
    """Rates measured with each number of threads."""

    by_threads: dict[int, float]
    calm: bool
    """False if other work used part of the cores the whole time, so that the rates may be too low."""
    quantization: str | None = None
    """Type of the multiplied weights."""


class _ThreadCandidate(NamedTuple):
    rate: float
    quantization: str
    model: Model


def thread_counts(cores: int) -> list[int]:
    """Powers of two below the number of cores, and that number itself."""
    powers = [1 << exponent for exponent in range(cores.bit_length()) if 1 << exponent < cores]
    return [*powers, cores]


def last_cache_bytes() -> int:
    """Size of the last-level cache, summed over all parts if groups of cores have one each.

    A guess of 32 MiB if the system does not report it; at least 96 MiB on Apple's chips.
    """
    if platform.system() == "Darwin":
        floor = _APPLE_SYSTEM_CACHE_BYTES if platform.machine() == "arm64" else 0
        reported = max(
            _sysctl(name) for name in ("hw.l3cachesize", "hw.perflevel0.l2cachesize", "hw.l2cachesize")
        )
        return max(reported, floor) or _UNKNOWN_CACHE_BYTES
    return linux_last_cache_bytes() or _UNKNOWN_CACHE_BYTES


def read_rates(interpreter: Interpreter, threads: Sequence[int], buffer_bytes: int) -> MeasuredRates:
    """Bytes per second when reading a buffer in memory. Raises CalibrationError."""
    job = BandwidthJob(list(threads), buffer_bytes, _ROUNDS)
    found = _run(job, interpreter, "memory bandwidth").all(Bandwidth)
    return MeasuredRates(
        {event.threads: event.bytes_per_second for event in found}, calm=all(event.calm for event in found)
    )


def multiply_rates(
    interpreter: Interpreter, threads: Sequence[int], tell: Callable[[str], None]
) -> MeasuredRates:
    """FLOP per second of llama.cpp's prompt evaluation with the fastest type of weights.

    Every type runs with the most threads, and only the fastest with fewer. Raises CalibrationError if none of
    them ran.
    """
    with tempfile.TemporaryDirectory(prefix="ggufbench-") as folder:
        fastest, calm = _fastest_type(Path(folder), threads[-1], interpreter, tell)
        rates = {threads[-1]: fastest.rate}
        for count in threads[:-1]:
            tell(f"multiplications with {count} thread{'s' if count > 1 else ''}")
            rates[count], calm_too = _flops(fastest.model, count, interpreter)
            calm = calm and calm_too
    return MeasuredRates(dict(sorted(rates.items())), calm, fastest.quantization)


def _fastest_type(
    folder: Path, threads: int, interpreter: Interpreter, tell: Callable[[str], None]
) -> tuple[_ThreadCandidate, bool]:
    reasons, found, all_calm = [], [], True
    for quantization in QUANTIZATIONS:
        tell(f"multiplications of {quantization}")
        try:
            model = _make_model(folder, quantization)
            rate, calm = _flops(model, threads, interpreter)
        except (CalibrationError, ModelError) as error:
            reasons.append(str(error))
            continue
        found.append(_ThreadCandidate(rate, quantization, model))
        all_calm = all_calm and calm
    if not found:
        raise CalibrationError(reasons[0])
    return max(found, key=lambda candidate: candidate.rate), all_calm


def disk_read_rate(folder: Path) -> float:
    """Bytes per second when reading a new file in `folder` from its disk, in the better of two passes.

    Raises CalibrationError if the file cannot be written or its pages stay in memory.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".disk-", suffix=".part") as file:
            block = os.urandom(
                _DISK_BLOCK_BYTES
            )  # random, so that compression by the file system has no effect
            for _ in range(_DISK_BYTES // _DISK_BLOCK_BYTES):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            return max(_cold_read_rate(Path(file.name)) for _ in range(_DISK_PASSES))
    except OSError as error:
        raise CalibrationError(
            f"disk read speed was not measured: {_DISK_BYTES} bytes in {folder}: {error.strerror}"
        ) from None


def _cold_read_rate(path: Path) -> float:
    page_cache.drop([path])
    resident = page_cache.resident_fraction([path])
    if resident is None or resident > _COLD_AT_MOST:
        raise CalibrationError(
            "disk read speed was not measured: the pages of a file cannot be dropped from memory in "
            f"{path.parent}; set GGUFBENCH_CACHE to a folder on a disk"
        )
    started = time.perf_counter()
    page_cache.read_once([path])
    return path.stat().st_size / (time.perf_counter() - started)


def _make_model(folder: Path, quantization: str) -> Model:
    spec = SynthSpec("llama", _PARAMETERS, quantization, vocabulary=_VOCABULARY, layers=_LAYERS)
    path = synthesize(folder / f"calibration-{quantization}.gguf", spec)
    return discover([path]).models[0]


def _flops(model: Model, threads: int, interpreter: Interpreter) -> tuple[float, bool]:
    """FLOP per second of the fastest prompt, and whether it ran without interference on its cores.

    With interference, more launches follow. The warm-up counts too, because it does the same work.
    """
    setting = Setting(
        device="cpu", n_ctx=_PROMPT_TOKENS, n_threads=threads, n_threads_batch=threads, load_mode="none"
    )
    workload = Workload(prompt_tokens=_PROMPT_TOKENS, generated_tokens=1, repetitions=_REPETITIONS)
    job = Job(ENGINE, str(model.path), setting, workload)
    prompts: list[TimedSample] = []
    for _ in range(_MOST_LAUNCHES):
        ended = _run(job, interpreter, "matrix multiplication speed")
        prompts += [sample for sample in ended.all(TimedSample) if sample.phase == "prompt"]
        best = min(prompts, key=lambda sample: sample.seconds)
        calm = _is_calm(best.evidence, threads)
        if calm:
            break
    return prompt_flops(model, workload) / best.seconds, calm


def _is_calm(evidence: Mapping[str, float], threads: int) -> bool:
    busy, wall = evidence.get("cpu_seconds"), evidence.get("wall_seconds")
    return busy is None or wall is None or busy >= _CALM_SHARE * threads * wall


def _run(job: AnyJob, interpreter: Interpreter, what: str) -> Ended:
    ended = launch(job, lambda _phase: _DEADLINE_SECONDS, interpreter=interpreter)
    if ended.outcome is not Outcome.MEASURED:
        raise CalibrationError(f"{what} was not measured: {ended.reason}")
    return ended


def _sysctl(name: str) -> int:
    try:
        return int(run_program(["sysctl", "-n", name], _SYSCTL_SECONDS).output)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0
