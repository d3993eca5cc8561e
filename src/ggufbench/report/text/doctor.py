"""The tables of `ggufbench doctor`: the machine, its limits, and its problems."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ggufbench.calibration.doctor import Diagnosis, Load, PageCacheControl, build_flags
from ggufbench.calibration.limits import MachineLimits
from ggufbench.machine.devices import AvailableDevices
from ggufbench.machine.fitness import Problem
from ggufbench.machine.parts import BusyProcess, Conditions, Device, Machine
from ggufbench.report.text.names import Name
from ggufbench.report.text.terminal import stack, table, text
from ggufbench.text import size

_ENERGY_FIELDS = (("governor", "{}"), ("energy_preference", "{}"), ("frequency_mhz", "{:.0f} MHz"))


def doctor_report(found: Diagnosis) -> RenderableType:
    """The facts and limits of the machine, then its problems."""
    return stack(
        _facts(found),
        _devices(found.environment.devices),
        _limits(found.limits),
        _limits_note(found.limits),
        _processes(found.load.processes),
        _problems(found.problems),
    )


def _facts(found: Diagnosis) -> Table:
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    lines = {
        "Machine": _machine(found.machine),
        "llama.cpp": _library(found.environment),
        "Build": ", ".join(build_flags(found.environment.system_info)) or "unknown",
        "Memory": _memory(found.machine, found.load),
        "Page cache": _page_cache(found.page_cache),
        "Power": _power(found.conditions),
        "Frequency": _frequency(found.conditions),
        "Load": _load(found.conditions, found.load),
    }
    for name, line in lines.items():
        facts.add_row(name, text(line))
    return facts


def _machine(machine: Machine) -> str:
    cores = f"{machine.physical_cores} cores, {machine.usable_cores} of them usable"
    if machine.efficiency_cores:
        cores += f" ({machine.performance_cores} fast, {machine.efficiency_cores} efficiency)"
    return f"{machine.cpu}, {cores}, {machine.operating_system}, virtualization: {machine.virtualization}"


def _library(environment: AvailableDevices) -> str:
    if environment.problem is not None:
        return environment.problem
    return ", ".join(f"{name} {version}" for name, version in environment.versions.items())


def _memory(machine: Machine, load: Load) -> str:
    return f"{machine.memory_gib} GiB, {size(load.available_memory_bytes)} available"


def _page_cache(control: PageCacheControl) -> str:
    if control.droppable:
        return "files can be dropped from memory, and cold and warm loads are verified"
    if control.residency_readable:
        return "files in the cache folder cannot be dropped from memory, so that none of their loads is cold"
    return "the system does not report which files are in memory, so that loads are neither cold nor warm"


def _power(conditions: Conditions) -> str:
    source = conditions.power_source or "source unknown"
    mode = {None: "unknown", True: "on", False: "off"}[conditions.low_power_mode]
    heat = ""
    if conditions.thermal_pressure is not None:
        heat = f", thermal pressure {conditions.thermal_pressure} of 4"
    elif conditions.speed_limit_percent is not None:
        heat = f", speed limit {conditions.speed_limit_percent} %"
    elif conditions.throttle_events is not None:
        heat = f", {conditions.throttle_events} thermal throttling events since the system started"
    return f"{source}, low power mode {mode}{heat}"


def _frequency(conditions: Conditions) -> str:
    values = ((getattr(conditions, name), shown) for name, shown in _ENERGY_FIELDS)
    known = [shown.format(value) for value, shown in values if value is not None]
    return ", ".join(known) + ("" if conditions.governor else ", no governor visible" if known else "unknown")


def _load(conditions: Conditions, load: Load) -> str:
    parts = []
    if conditions.load_average is not None:
        parts.append(f"one-minute average {conditions.load_average:.2f}")
    if load.steal_share is not None:
        parts.append(f"{100 * load.steal_share:.1f} % taken by the hypervisor")
    return ", ".join(parts) or "unknown"


def _devices(devices: Sequence[Device]) -> Table | None:
    if not devices:
        return None
    rows = table("Device", "Type", ">Memory", ">Free", "Description")
    for device in devices:
        total, free = size(device.memory_total_bytes or 0), size(device.memory_free_bytes or 0)
        rows.add_row(Name(device.name), text(device.type), Text(total), Text(free), text(device.description))
    return rows


def _limits(limits: MachineLimits) -> Table | None:
    counts = sorted({*limits.read_bytes_per_second, *limits.flops_per_second})
    if not counts:
        return None
    products = (
        f"Matrix product ({limits.flops_quantization})" if limits.flops_quantization else "Matrix product"
    )
    rows = table("Threads", ">Memory read", f">{products}")
    for count in counts:
        read, flops = limits.read_bytes_per_second.get(count), limits.flops_per_second.get(count)
        rows.add_row(
            Text(str(count)),
            Text(f"{read / 1e9:.1f} GB/s" if read else "-"),
            Text(f"{flops / 1e9:.1f} GFLOP/s" if flops else "-"),
        )
    return rows


def _limits_note(limits: MachineLimits) -> Text:
    disk = limits.disk_read_bytes_per_second
    lines = [
        f"Disk read: {disk / 1e9:.2f} GB/s." if disk else "Disk read: not measured.",
        f"Memory read from a buffer of {size(limits.buffer_bytes)}; "
        f"last-level cache {size(limits.last_cache_bytes)}.",
        f"Measured {limits.taken} in {limits.seconds:.0f} s; `ggufbench doctor --refresh` measures again.",
        *limits.problems,
    ]
    return text(" ".join(lines[:2])) + Text("\n") + Text("\n").join(text(line) for line in lines[2:])


def _processes(processes: Sequence[BusyProcess]) -> Table | None:
    if not processes:
        return None
    rows = table("Other process", ">Process id", ">Of a core")
    for process in processes:
        share = f"{100 * process.core_share:.0f} %"
        rows.add_row(Name(process.name), Text(str(process.pid)), Text(share))
    return rows


def _problems(problems: Sequence[Problem]) -> RenderableType:
    if not problems:
        return Text("No problem was found; this machine is fit for measuring.", style="green")
    rows = table("Problem", "Fix")
    for found in problems:
        rows.add_row(text(found.problem, style="yellow"), text(found.remedy))
    return rows
