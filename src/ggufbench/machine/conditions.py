"""Conditions of the machine that change between sessions and affect whether a number can be trusted."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

from ggufbench.machine.parts import BusyProcess, Conditions
from ggufbench.processes import run_program

_SUPPLIES = Path("/sys/class/power_supply")
_CPUS = Path("/sys/devices/system/cpu")
_PLATFORM_PROFILE = Path("/sys/firmware/acpi/platform_profile")
_PMSET_SECONDS = 5.0

_LEAST_SHARE = 0.02
"""Minimum share of a core; processes that use less are not listed."""
_MOST_LISTED = 5


def read_conditions() -> Conditions:
    """The conditions now. Takes some milliseconds, on macOS some tens; never raises."""
    special = _read_darwin() if sys.platform == "darwin" else _read_linux()
    return replace(special, frequency_mhz=_frequency_mhz(), load_average=_load_average())


class ProcessWatch:
    """Watch the other processes from its creation on."""

    def __init__(self) -> None:
        self._before, self._started = _processor_seconds(), time.monotonic()

    def busiest(self) -> list[BusyProcess]:
        """The processes that have used most of the processor since then and still run, the busiest first.

        This process, its children, and processes whose times this user may not read are left out.
        """
        import psutil

        elapsed = time.monotonic() - self._started
        own = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
        used = [
            BusyProcess(pid, name, (total - self._before.get((pid, name), 0.0)) / elapsed)
            for (pid, name), total in _processor_seconds().items()
            if pid not in own
        ]
        listed = [process for process in used if process.core_share >= _LEAST_SHARE]
        return sorted(listed, key=lambda process: -process.core_share)[:_MOST_LISTED]


def busiest_processes(seconds: float) -> list[BusyProcess]:
    """The other processes that use most of the processor during the next `seconds`, the busiest first."""
    watch = ProcessWatch()
    time.sleep(seconds)
    return watch.busiest()


def parse_pmset_battery(text: str) -> Literal["mains", "battery"] | None:
    """The power source from `pmset -g batt`, whose first line is `Now drawing from 'AC Power'`."""
    match = re.search(r"Now drawing from '([^']+)'", text)
    if match is None:
        return None
    return "battery" if match[1] == "Battery Power" else "mains"


def parse_pmset_settings(text: str) -> bool | None:
    """True if low power mode is on, from `pmset -g`, which lists the settings in use.

    Older systems have `lowpowermode`, newer ones `powermode` with 0 automatic, 1 low power, 2 high power.
    """
    match = re.search(r"^\s*(?:lowpowermode|powermode)\s+(\d+)", text, re.MULTILINE)
    return None if match is None else match[1] == "1"


def parse_pmset_thermal(text: str) -> int | None:
    """The speed limit in percent from `pmset -g therm`; 100 if nothing was recorded."""
    match = re.search(r"CPU_Speed_Limit\s*=\s*(\d+)", text)
    if match is not None:
        return int(match[1])
    return 100 if "No thermal warning level has been recorded" in text else None


def read_power_supplies(folder: Path) -> Literal["mains", "battery"] | None:
    """The power source from Linux's folder of power supplies; None if no battery and no mains is listed.

    Mains that is online counts. Without a report of mains, a battery counts while it discharges.
    """
    mains, discharging = [], []
    for supply in sorted(folder.glob("*")):
        kind = _text(supply / "type")
        if kind in ("Mains", "USB") and (online := _text(supply / "online")) is not None:
            mains.append(online != "0")
        elif (
            kind == "Battery" and _text(supply / "scope") != "Device"
        ):  # the battery of a mouse or a similar device
            discharging.append(_text(supply / "status") == "Discharging")
    if any(mains):
        return "mains"
    if any(discharging):
        return "battery"
    return "mains" if discharging or mains else None


def read_cpus(folder: Path) -> Conditions:
    """Governor, driver, energy preference and throttle events from Linux's folder of processors."""
    scaling = [cpu / "cpufreq" for cpu in sorted(folder.glob("cpu[0-9]*"))]
    return Conditions(
        governor=_joined(path / "scaling_governor" for path in scaling),
        frequency_driver=_joined(path / "scaling_driver" for path in scaling),
        energy_preference=_joined(path / "energy_performance_preference" for path in scaling),
        throttle_events=_throttle_events(folder),
    )


def _read_linux() -> Conditions:
    profile = _text(_PLATFORM_PROFILE)
    return replace(
        read_cpus(_CPUS),
        power_source=read_power_supplies(_SUPPLIES),
        low_power_mode=None if profile is None else profile in ("low-power", "quiet"),
    )


def _read_darwin() -> Conditions:
    return Conditions(
        power_source=parse_pmset_battery(_pmset("batt")),
        low_power_mode=parse_pmset_settings(_pmset()),
        speed_limit_percent=parse_pmset_thermal(_pmset("therm")),
    )


def _pmset(*what: str) -> str:
    try:
        return run_program(["pmset", "-g", *what], _PMSET_SECONDS).output
    except (OSError, subprocess.SubprocessError):
        return ""


def _throttle_events(folder: Path) -> int | None:
    paths = [*folder.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    paths += folder.glob("cpu[0-9]*/thermal_throttle/package_throttle_count")
    counts = [int(text) for path in paths if (text := _text(path)) is not None and text.isdecimal()]
    return sum(counts) if counts else None


def _joined(paths: Iterable[Path]) -> str | None:
    found = {text for path in paths if (text := _text(path))}
    return ",".join(sorted(found)) or None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None


def _frequency_mhz() -> float | None:
    import psutil

    try:
        frequency = psutil.cpu_freq()
    except Exception:  # it queries the system in many ways, and some machines support none of them
        return None
    return round(float(frequency.current), 1) if frequency and frequency.current else None


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


_KERNEL_THREADS = 2
"""Process id of the parent of Linux's kernel threads, which work for others and change their names."""


def _processor_seconds() -> dict[tuple[int, str], float]:
    import psutil

    seconds = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if sys.platform == "linux" and _KERNEL_THREADS in (process.pid, process.ppid()):
                continue
            times = process.cpu_times()
            seconds[process.pid, process.name()] = times.user + times.system
    return seconds
