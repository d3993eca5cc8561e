"""Conditions that make a machine unfit for measuring."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ggufbench.machine.parts import BusyProcess, Conditions

_BUSY_SHARE = 0.2
"""Share of a core above which a process slows down llama.cpp, whose threads wait for each other."""


_AUTONOMOUS_DRIVERS = ("intel_pstate", "amd-pstate-epp")
"""With these drivers `powersave` is the default governor, and the energy preference decides."""

_COOL = "let it cool down, and keep its air inlets free"


class Problem(NamedTuple):
    """A problem that makes this machine unfit for measuring, and its fix, as one sentence each."""

    problem: str
    remedy: str


def unfit(conditions: Conditions, processes: Iterable[BusyProcess] = ()) -> list[Problem]:
    """Problems that make measurements here unreliable; empty without any."""
    return [*_power(conditions), *_heat(conditions), *_governor(conditions), *_busy_processes(processes)]


def _power(conditions: Conditions) -> list[Problem]:
    problems = []
    if conditions.power_source == "battery":
        problems.append(
            Problem("this machine runs on its battery, which makes processors slower", "connect it to mains")
        )
    if conditions.low_power_mode:
        remedy = "turn it off in the system's energy settings"
        problems.append(Problem("low power mode is on, which makes processors slower", remedy))
    return problems


def _heat(conditions: Conditions) -> list[Problem]:
    limit = conditions.speed_limit_percent
    if conditions.thermal_pressure:
        return [Problem(f"macOS reports thermal pressure {conditions.thermal_pressure} of 4", _COOL)]
    if limit is None or limit >= 100:
        return []
    return [Problem(f"heat limits the processor to {limit} % of its speed", _COOL)]


def _governor(conditions: Conditions) -> list[Problem]:
    governors = (conditions.governor or "").split(",")
    own = conditions.frequency_driver in _AUTONOMOUS_DRIVERS
    if "powersave" in governors and not own:
        remedy = "set another one: sudo cpupower frequency-set -g performance"
        return [Problem("the frequency governor is powersave, which keeps the processor slow", remedy)]
    if own and conditions.energy_preference in ("power", "balance_power"):
        remedy = "set another one: powerprofilesctl set performance"
        problem = f"the processor's energy preference is {conditions.energy_preference}, which keeps it slow"
        return [Problem(problem, remedy)]
    return []


def _busy_processes(processes: Iterable[BusyProcess]) -> list[Problem]:
    return [
        Problem(
            f"process {process.pid} ({process.name}) uses {100 * process.core_share:.0f} % of a core",
            "end it or wait for it: llama.cpp's threads wait for the slowest of them",
        )
        for process in processes
        if process.core_share >= _BUSY_SHARE
    ]
