"""Kernel counters of other activity during a sample, read before and after the clock, never while it runs."""

from __future__ import annotations

import os
from pathlib import Path
from time import perf_counter

from . import control_groups

_STAT, _PRESSURE, _TASKS = Path("/proc/stat"), Path("/proc/pressure/cpu"), Path("/proc/self/task")
_THROTTLE = Path("/sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_IDLE, _IOWAIT, _STEAL = 3, 4, 7
"""Fields of the first line of /proc/stat, counted from 0 after its name."""


class Watch:
    """Compare the kernel's counters before and after a piece of work."""

    def __init__(self) -> None:
        self._before: dict[str, float] = {}

    def start(self) -> None:
        """Read the counters; the work follows at once."""
        self._before = _counters()

    def stop(self) -> dict[str, float]:
        """Increase of the counters since `start`. Counters that this system lacks are left out.

        For this process: `wall_seconds`, `cpu_seconds`, `waiting_seconds` in which its threads could have run
        and had no processor (all threads added up), `involuntary_switches`, `voluntary_switches`,
        `major_faults`, `minor_faults`. For the machine: `machine_busy_seconds` and `machine_steal_seconds`
        over all cores, in ticks of 10 ms, `cpu_pressure_seconds` in which some task waited for a core, and
        `throttle_count`, how often the processor was slowed down by heat. For its control groups:
        `throttled_seconds`, in which a CPU quota stopped it.
        """
        after = _counters()
        return {name: after[name] - before for name, before in self._before.items() if name in after}


def _counters() -> dict[str, float]:
    return {
        "wall_seconds": perf_counter(),
        **_own(),
        **_waiting(),
        **_machine(),
        **_pressure(),
        **_slowed_by_heat(),
        **_stopped_by_quota(),
    }


def _own() -> dict[str, float]:
    try:
        import resource
    except ImportError:  # Windows
        return {}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "involuntary_switches": usage.ru_nivcsw,
        "voluntary_switches": usage.ru_nvcsw,
        "major_faults": usage.ru_majflt,
        "minor_faults": usage.ru_minflt,
    }


def _waiting() -> dict[str, float]:
    try:
        texts = [(task / "schedstat").read_text(encoding="ascii") for task in _TASKS.iterdir()]
        return {"waiting_seconds": sum(map(parse_schedstat, texts))}
    except (OSError, ValueError):  # a kernel that does not count it, or a thread that has just ended
        return {}


def parse_schedstat(text: str) -> float:
    """Seconds of waiting for a processor from `/proc/PID/task/TID/schedstat`, its second number."""
    fields = text.split()
    if len(fields) != 3:
        raise ValueError(text)
    return int(fields[1]) / 1e9


def _machine() -> dict[str, float]:
    try:
        with _STAT.open(encoding="ascii") as file:
            return parse_stat(file.readline())
    except (OSError, ValueError):
        return {}


def parse_stat(line: str) -> dict[str, float]:
    """Busy and stolen seconds from the first line of /proc/stat; guests are counted in user time there."""
    ticks = [int(field) for field in line.split()[1:9]]
    if len(ticks) <= _STEAL:
        return {}
    busy = sum(ticks) - ticks[_IDLE] - ticks[_IOWAIT] - ticks[_STEAL]
    return {
        "machine_busy_seconds": busy / _TICKS_PER_SECOND,
        "machine_steal_seconds": ticks[_STEAL] / _TICKS_PER_SECOND,
    }


def _slowed_by_heat() -> dict[str, float]:
    try:
        return {"throttle_count": int(_THROTTLE.read_text(encoding="ascii"))}
    except (OSError, ValueError):
        return {}


def _stopped_by_quota() -> dict[str, float]:
    seconds = control_groups.throttled_seconds()
    return {} if seconds is None else {"throttled_seconds": seconds}


def _pressure() -> dict[str, float]:
    try:
        return parse_pressure(_PRESSURE.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return {}


def parse_pressure(text: str) -> dict[str, float]:
    """Seconds from the line `some ... total=MICROSECONDS` of /proc/pressure/cpu."""
    for line in text.splitlines():
        if line.startswith("some "):
            _, _, total = line.rpartition("total=")
            return {"cpu_pressure_seconds": int(total) / 1e6}
    return {}
