"""Diagnosis of this machine: its devices, its limits, and problems that make it unfit for measuring."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ggufbench.calibration.limits import MachineLimits, machine_limits
from ggufbench.calibration.probe import probe
from ggufbench.launching.launcher import Interpreter
from ggufbench.machine import apple
from ggufbench.machine import page_cache as pagecache
from ggufbench.machine.conditions import busiest_processes, read_conditions
from ggufbench.machine.devices import AvailableDevices
from ggufbench.machine.facts import available_memory_bytes, cpu_flags, memory_limit_bytes, read_machine
from ggufbench.machine.fitness import Problem, unfit
from ggufbench.machine.parts import BusyProcess, Conditions, Machine
from ggufbench.paths import cache_folder

_OBSERVED_SECONDS = 1.0
_NOTABLE_STEAL = 0.02
_LITTLE_MEMORY = 0.1
_PROBE_BYTES = 2**20
_ALL, _NONE = 0.99, 0.02

_BUILD_FLAGS = {
    "avx2": "AVX2", "fma": "FMA", "f16c": "F16C", "avx512f": "AVX512", "asimddp": "DOTPROD",
    "i8mm": "MATMUL_INT8", "sve": "SVE",
}  # fmt: skip
"""llama.cpp's name of an instruction set, by the processor's name."""


@dataclass(frozen=True, slots=True)
class Load:
    """Other load on this machine during one second."""

    processes: list[BusyProcess]
    steal_share: float | None
    """Share of the time that the hypervisor gave to others; None if the system does not count it."""
    swapped_bytes: int
    """Bytes moved between memory and swap space, in both directions."""
    available_memory_bytes: int


@dataclass(frozen=True, slots=True)
class PageCacheControl:
    """Whether cold and warm loads can be measured and proved here."""

    residency_readable: bool
    droppable: bool


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything the doctor found."""

    machine: Machine
    environment: AvailableDevices
    limits: MachineLimits
    page_cache: PageCacheControl
    conditions: Conditions
    load: Load
    problems: list[Problem]
    """Problems that make this machine unfit for measuring; empty if it is fit."""

    def document(self) -> dict[str, Any]:
        """The diagnosis as a dictionary for JSON."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**found, "problems": [problem._asdict() for problem in self.problems]}


def examine(
    interpreter: Interpreter, *, refresh: bool = False, tell: Callable[[str], None] = lambda _step: None
) -> Diagnosis:
    """Examine this machine; its limits are measured if they are unknown, or with `refresh`.

    `tell` is called before each slow step. Works without llama-cpp-python, and then reports that.
    """
    tell("listing llama.cpp's devices")
    environment = probe(interpreter)
    machine = read_machine(environment.gpu_names())
    conditions = read_conditions()
    tell("observing other processes")
    load = _observe_load()
    limits = machine_limits(
        machine, environment, interpreter, refresh=refresh, tell=lambda step: tell(f"measuring: {step}")
    )
    page_cache = page_cache_control(cache_folder())
    problems = [
        *unfit(conditions, load.processes),
        *_load_problems(load),
        *_core_problems(machine),
        *device_problems(environment),
        *build_problems(environment.system_info, cpu_flags()),
        *_limit_problems(limits),
    ]
    return Diagnosis(machine, environment, limits, page_cache, conditions, load, problems)


def page_cache_control(folder: Path) -> PageCacheControl:
    """Test the page cache with a small file in `folder`; both are False if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".pages-", suffix=".part") as file:
            file.write(os.urandom(_PROBE_BYTES))
            file.flush()
            path = Path(file.name)
            written = pagecache.resident_fraction([path])
            pagecache.drop([path])
            dropped = pagecache.resident_fraction([path])
    except OSError:
        return PageCacheControl(False, False)
    readable = written is not None and written >= _ALL
    return PageCacheControl(readable, readable and dropped is not None and dropped <= _NONE)


def build_flags(system_info: str) -> list[str]:
    """Names of the enabled flags in llama.cpp's description of its build, in its order."""
    return [name for name, value in re.findall(r"(\w+) = (\d+)", system_info) if value != "0"]


def build_problems(system_info: str, processor: frozenset[str]) -> list[Problem]:
    """Problems of a build of llama.cpp on a processor with these instruction sets."""
    has = set(build_flags(system_info))
    if not has:
        return []
    problems = []
    missing = [name for flag, name in _BUILD_FLAGS.items() if flag in processor and name not in has]
    if missing:
        remedy = "build it here: pip install --force-reinstall --no-cache-dir llama-cpp-python"
        problem = f"llama.cpp was built without {', '.join(missing)}, which this processor has"
        problems.append(Problem(problem, remedy))
    if "AMX_INT8" in has:
        problem = "this llama.cpp uses AMX, and such builds can crash in the first prompt"
        remedy = "if cases end with SIGSEGV in prompt, set repack = false or build it as in docs/measuring.md"
        problems.append(Problem(problem, remedy))
    return problems


def device_problems(environment: AvailableDevices) -> list[Problem]:
    """Problems of GPUs that accept layers but leave most of the computation to the processor."""
    remedy = "measure Metal on a Mac itself, or use --scenario cpu"
    return [
        Problem(f"{name} is the GPU of a virtual machine, which computes only a part of a model", remedy)
        for name in environment.gpu_names()
        if "paravirtual" in name.casefold()
    ]


def _observe_load() -> Load:
    import psutil

    times, swapped = psutil.cpu_times(), _swapped_bytes()
    processes = busiest_processes(_OBSERVED_SECONDS)
    times_after, swapped_after = psutil.cpu_times(), _swapped_bytes()
    passed, stolen = sum(times_after) - sum(times), _stolen(times_after) - _stolen(times)
    return Load(
        processes=processes,
        steal_share=max(0.0, stolen / passed) if hasattr(times, "steal") and passed > 0 else None,
        swapped_bytes=max(0, swapped_after - swapped),
        available_memory_bytes=available_memory_bytes(),
    )


def _swapped_bytes() -> int:
    import psutil

    if sys.platform == "darwin":
        return apple.swapped_bytes() or 0
    swap = psutil.swap_memory()
    return int(swap.sin + swap.sout)


def _stolen(times: Any) -> float:
    return float(getattr(times, "steal", 0.0))


def _load_problems(load: Load) -> list[Problem]:
    problems = []
    if load.steal_share is not None and load.steal_share >= _NOTABLE_STEAL:
        problem = f"the hypervisor gave {100 * load.steal_share:.0f} % of this machine's time to others"
        problems.append(Problem(problem, "measure at another time or on a dedicated machine"))
    if load.swapped_bytes:
        problems.append(Problem("memory is being swapped", "end programs that use much memory"))
    elif load.available_memory_bytes < _LITTLE_MEMORY * memory_limit_bytes():
        problem = f"only {load.available_memory_bytes >> 20} MiB of memory are available"
        problems.append(Problem(problem, "end programs that use much memory"))
    return problems


def _core_problems(machine: Machine) -> list[Problem]:
    if machine.usable_cores >= machine.physical_cores:
        return []
    problem = f"only {machine.usable_cores} of {machine.physical_cores} cores are usable"
    remedy = "raise the container's CPU limit or the affinity, or compare only runs with the same cores"
    return [Problem(problem, remedy)]


def _limit_problems(limits: MachineLimits) -> list[Problem]:
    if limits.disturbance is None:
        return []
    remedy = "run `ggufbench doctor --refresh` without that load; until then no rate is judged by the limits"
    return [Problem(f"the limits may be too low: {limits.disturbance}", remedy)]
