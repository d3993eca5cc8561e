"""Facts about this machine: the parts that decide how fast a model can run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from ggufbench.processes import run_program

if TYPE_CHECKING:
    from ggufbench.machine.parts import Machine, SourceState

_CGROUP = Path("/sys/fs/cgroup")
_CPUS = Path("/sys/devices/system/cpu")
_FEW_CORES = 4
_GIT_SECONDS = 10.0


def read_machine(devices: Iterable[str] = ()) -> Machine:
    """Describe this machine; `devices` are its GPU-type devices, with llama.cpp's names and descriptions.

    The fingerprint contains only what stays the same between two sessions: no clock rate, no load, no host
    name, no patch version.
    """
    from ggufbench.machine.parts import Machine

    cpu = _cpu_info()
    facts: dict[str, Any] = {
        "cpu": str(cpu.get("brand_raw") or platform.processor() or "unknown"),
        "architecture": platform.machine(),
        "physical_cores": physical_cores(),
        "logical_cores": psutil.cpu_count() or 1,
        "usable_cores": usable_cores(),
        "l3_cache_bytes": linux_last_cache_bytes() or _as_bytes(cpu.get("l3_cache_size")),
        "memory_gib": round(memory_limit_bytes() / 2**30),
        "operating_system": _operating_system(),
        "virtualization": _virtualization(cpu),
        "devices": sorted(devices),
    }
    canonical = json.dumps(facts, sort_keys=True).encode()
    return Machine(fingerprint=hashlib.sha256(canonical).hexdigest()[:16], **facts)


def linux_last_cache_bytes(folder: Path | None = None) -> int:
    """Size of the last-level cache in bytes, all its parts together, from Linux's folder of processors.

    0 if the folder contains nothing about caches.
    """
    parts: dict[int, dict[str, int]] = {}
    for index in (folder or _CPUS).glob("cpu[0-9]*/cache/index[0-9]*"):
        level, size, shared = (_read_text(index / name) for name in ("level", "size", "shared_cpu_list"))
        if level.isdecimal() and size.endswith("K") and size[:-1].isdecimal():
            parts.setdefault(int(level), {})[shared] = int(size[:-1]) * 1024
    return sum(parts[max(parts)].values()) if parts else 0


def physical_cores() -> int:
    """Physical cores of the machine, without hyper-threads."""
    return psutil.cpu_count(logical=False) or psutil.cpu_count() or 1


def cpu_flags() -> frozenset[str]:
    """The processor's instruction sets, in the system's names; empty if the system does not report them."""
    return frozenset(_cpu_info().get("flags", ()))


def usable_cores() -> int:
    """Cores that this process may use: affinity and a container's quota limit them."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
    return max(1, min(allowed, _cgroup_cores() or allowed))


def resolve_threads(asked: int | str) -> int:
    """Number of threads for a setting: a number, `physical`, `physical-1`, or `auto`.

    `auto` leaves one core free on four or fewer cores, and if none would be left: llama.cpp's threads wait
    for each other at every operation, so one busy process on the last core stops them all.
    """
    if isinstance(asked, int):
        return asked
    usable = usable_cores()
    cores = min(physical_cores(), usable)
    leave_one = cores <= _FEW_CORES or cores == usable
    if asked == "physical-1" or (asked == "auto" and leave_one):
        return max(1, cores - 1)
    return cores


def memory_limit_bytes() -> int:
    """Memory of the machine, or of the container if it may use less."""
    total = psutil.virtual_memory().total
    limit = _read_number(_CGROUP / "memory.max")
    return min(total, limit) if limit else int(total)


def available_memory_bytes() -> int:
    """Memory that a new process can have now, including file cache that can be dropped."""
    available = int(psutil.virtual_memory().available)
    limit, used = _read_number(_CGROUP / "memory.max"), _read_number(_CGROUP / "memory.current")
    if limit and used is not None:
        reclaimable = _cgroup_file_bytes()
        available = min(available, limit - used + reclaimable)
    return max(0, available)


def source_state(folder: Path) -> SourceState:
    """Commit and dirty flag of the repository around a folder; None for values that git does not report."""
    from ggufbench.machine.parts import SourceState

    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return SourceState(commit=None, dirty=None)
    changes = _git(folder, "status", "--porcelain")
    return SourceState(commit=commit, dirty=None if changes is None else bool(changes))


@cache
def _cpu_info() -> dict[str, Any]:
    import cpuinfo

    try:
        return dict(cpuinfo.get_cpu_info())
    except Exception:
        return {}


def _operating_system() -> str:
    release = ".".join(platform.release().split("-")[0].split(".")[:2])
    if platform.system() == "Darwin":
        return f"macOS {'.'.join(platform.mac_ver()[0].split('.')[:2])}"
    return f"{platform.system()} {release}"


def _virtualization(cpu: dict[str, Any]) -> str:
    if "hypervisor" in cpu.get("flags", []):
        return "virtual machine"
    return "container" if Path("/.dockerenv").exists() else "none seen"


def _as_bytes(value: object) -> int:
    return value if isinstance(value, int) else 0


def _cgroup_cores() -> int | None:
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return max(1, int(quota) // int(period))
    except (OSError, ValueError):  # no cgroup, or "max" for no limit
        return None


def _cgroup_file_bytes() -> int:
    try:
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    fields = [line.split() for line in lines]
    return sum(int(field[1]) for field in fields if field[:1] in (["active_file"], ["inactive_file"]))


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = run_program(["git", "-C", str(folder), *arguments], _GIT_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.output.strip() if done.code == 0 else None
