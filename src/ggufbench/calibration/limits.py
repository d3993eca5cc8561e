"""Limits of this machine, measured once for each machine and llama.cpp build and stored in the cache."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ggufbench.calibration import measurement
from ggufbench.checks.roofline import CACHES_TO_JUDGE
from ggufbench.launching.launcher import Interpreter
from ggufbench.machine.conditions import ProcessWatch, read_conditions
from ggufbench.machine.devices import AvailableDevices
from ggufbench.machine.facts import available_memory_bytes
from ggufbench.machine.fitness import unfit
from ggufbench.machine.parts import Machine
from ggufbench.paths import atomic_write, cache_folder, read_regular

_FORMAT: Literal[1] = 1
_SMALLEST_BUFFER_BYTES = 256 * 2**20
_SHARE_OF_MEMORY = 4
_CACHE_FILE_CAP = 2**20

Threads = Annotated[int, Field(ge=1, le=2**16)]
Rate = Annotated[float, Field(gt=0, lt=1e18)]
Bytes = Annotated[int, Field(ge=0, lt=2**63)]
T = TypeVar("T")
Tell = Callable[[str], None]


class MachineLimits(BaseModel):
    """The measured limits of one machine with one build of llama.cpp."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal[1] = _FORMAT
    read_bytes_per_second: dict[Threads, Rate] = {}
    """Memory read bandwidth, by the number of threads; empty if it could not be measured."""
    flops_per_second: dict[Threads, Rate] = {}
    """Rate of llama.cpp's matrix products, by the number of threads; empty if it could not be measured."""
    flops_quantization: str | None = None
    """The fastest type of weights."""
    disk_read_bytes_per_second: Rate | None = None
    """Read rate of the disk with the cache folder; None if it could not be measured."""
    last_cache_bytes: Bytes
    """Size of the last-level cache, summed over all its parts."""
    buffer_bytes: Bytes
    """Size of the buffer that was read for `read_bytes_per_second`."""
    taken: str
    """Time of the measurement, UTC, ISO 8601."""
    seconds: Annotated[float, Field(ge=0)]
    """Duration of the measurement."""
    disturbance: str | None = None
    """Interference during the measurement, as a clause; the limits may be too low."""
    problems: list[str] = []
    """Limits that could not be measured, with the reason; one sentence each."""


def limits_path(machine: Machine, environment: AvailableDevices) -> Path:
    """Path of the limits of this machine and build; another commit or other build flags have another path."""
    build = f"{environment.versions.get('llama.cpp', '')}\n{environment.system_info}"
    digest = hashlib.sha256(build.encode()).hexdigest()[:12]
    return cache_folder() / f"limits-{machine.fingerprint}-{digest}.json"


def load_limits(machine: Machine, environment: AvailableDevices) -> MachineLimits | None:
    """Limits measured earlier; None if their file does not exist or cannot be used. Never raises."""
    path = limits_path(machine, environment)
    try:
        return MachineLimits.model_validate_json(read_regular(path, _CACHE_FILE_CAP))
    except (OSError, ValidationError, RecursionError):
        return None


def measure_limits(
    machine: Machine, environment: AvailableDevices, interpreter: Interpreter, tell: Tell = lambda _step: None
) -> MachineLimits:
    """Measure this machine, store the result and return it. Takes 10 to 20 s on two cores.

    `tell` receives the name of each step before it starts. Limits that cannot be measured are left out and
    named in `problems`, and so is a failure to store the result.
    """
    started, problems = time.monotonic(), [environment.problem] if environment.problem else []
    conditions, watch = read_conditions(), ProcessWatch()
    threads, cache = measurement.thread_counts(machine.usable_cores), measurement.last_cache_bytes()
    buffer = _buffer_bytes(cache, problems)
    tell("memory bandwidth")
    before = _attempt(lambda: measurement.read_rates(interpreter, threads, buffer), problems)
    products = None
    if environment.problem is None:
        products = _attempt(lambda: measurement.multiply_rates(interpreter, threads, tell), problems)
    tell("disk")
    disk = _attempt(lambda: measurement.disk_read_rate(cache_folder()), problems)
    after = None
    if before is not None:
        tell("memory bandwidth again")
        after = _attempt(lambda: measurement.read_rates(interpreter, threads, buffer), problems)
    reads = [rates for rates in (before, after) if rates is not None]
    troubles = [trouble.problem for trouble in unfit(conditions, watch.busiest())]
    if (reads and not any(rates.calm for rates in reads)) or (products is not None and not products.calm):
        troubles.append("other work used part of the cores the whole time")
    limits = MachineLimits(
        read_bytes_per_second=_highest(reads),
        flops_per_second=products.by_threads if products else {},
        flops_quantization=products.quantization if products else None,
        disk_read_bytes_per_second=disk,
        last_cache_bytes=cache,
        buffer_bytes=buffer,
        taken=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 1),
        disturbance=" and ".join(troubles) or None,
        problems=problems,
    )
    return _keep(limits_path(machine, environment), limits)


def machine_limits(
    machine: Machine,
    environment: AvailableDevices,
    interpreter: Interpreter,
    *,
    refresh: bool = False,
    tell: Tell = lambda _step: None,
) -> MachineLimits:
    """Limits measured earlier, or measured now if they are missing or `refresh` is set."""
    known = None if refresh else load_limits(machine, environment)
    return known or measure_limits(machine, environment, interpreter, tell)


def _buffer_bytes(cache: int, problems: list[str]) -> int:
    """Buffer size: large enough that caches do not matter, but at most a quarter of the free memory."""
    wanted = max(_SMALLEST_BUFFER_BYTES, (CACHES_TO_JUDGE + 1) * cache)
    buffer = min(wanted, available_memory_bytes() // _SHARE_OF_MEMORY)
    if buffer <= CACHES_TO_JUDGE * cache:
        problems.append(
            f"memory bandwidth was measured over only {buffer >> 20} MiB, which is not more than "
            f"{CACHES_TO_JUDGE} times the last-level cache of {cache >> 20} MiB, so it may be too high"
        )
    return buffer


def _highest(measured: Sequence[measurement.MeasuredRates]) -> dict[int, float]:
    """The better of two measurements some seconds apart: contention for memory shows in no counter."""
    counts = sorted({count for rates in measured for count in rates.by_threads})
    return {count: max(rates.by_threads.get(count, 0.0) for rates in measured) for count in counts}


def _attempt(work: Callable[[], T], problems: list[str]) -> T | None:
    try:
        return work()
    except measurement.CalibrationError as error:
        problems.append(str(error))
        return None


def _keep(path: Path, limits: MachineLimits) -> MachineLimits:
    """Store the limits; if that fails, they name the problem and stay valid for this session."""
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(limits.model_dump_json(indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        problem = f"the limits cannot be stored in {path.parent}: {error.strerror}; set GGUFBENCH_CACHE"
        return limits.model_copy(update={"problems": [*limits.problems, problem]})
    return limits
