"""Facts that only macOS's own programs report: kinds of cores, heat, swapping and the GPU's memory limit."""

from __future__ import annotations

import re
import subprocess
from functools import cache

from ggufbench.processes import run_program

_SECONDS = 5.0
_LEVELS = range(4)
_EFFICIENCY = "Efficiency"
"""Name of the level of slow cores in `hw.perflevelN.name`; others are Performance and Super."""
_NAMES = (
    "kern.hv_vmm_present", "machdep.cpu.brand_string", "iogpu.wired_limit_mb",
    *(f"hw.perflevel{level}.{what}" for level in _LEVELS for what in ("name", "physicalcpu")),
)  # fmt: skip
_PRESSURE = "com.apple.system.thermalpressurelevel"


def output_of(*command: str) -> str:
    """Output of a program; empty if it does not exist or does not answer."""
    try:
        return run_program(command, _SECONDS).output
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""


@cache
def system_values() -> dict[str, str]:
    """Values of `sysctl` by name. Names that this system lacks are left out; the program fails for them."""
    lines = (line.partition(": ") for line in output_of("sysctl", *_NAMES).splitlines())
    return {name: value.strip() for name, separator, value in lines if separator}


def cores() -> tuple[int, int] | None:
    """Numbers of fast and of efficiency cores; None if the system does not divide them, as on Intel."""
    values = system_values()
    fast = slow = 0
    for level in _LEVELS:
        count = values.get(f"hw.perflevel{level}.physicalcpu", "")
        if count.isdecimal():
            is_slow = values.get(f"hw.perflevel{level}.name") == _EFFICIENCY
            fast, slow = (fast, slow + int(count)) if is_slow else (fast + int(count), slow)
    return (fast, slow) if fast else None


def is_virtual_machine() -> bool:
    """True in a virtual machine, whose GPU is paravirtual."""
    return system_values().get("kern.hv_vmm_present") == "1"


def processor_name() -> str:
    """The processor's name, for example `Apple M4`; empty if it is not known."""
    return system_values().get("machdep.cpu.brand_string", "")


def wired_limit_mib() -> int | None:
    """The user's limit of GPU memory in MiB; 0 is the system's default, None an older system."""
    text = system_values().get("iogpu.wired_limit_mb", "")
    return int(text) if text.isdecimal() else None


def thermal_pressure() -> int | None:
    """Thermal pressure from 0 (nominal) to 4, from `notifyutil`; None if it is not known."""
    match = re.search(rf"{re.escape(_PRESSURE)} (\d{{1,3}})$", output_of("notifyutil", "-g", _PRESSURE), re.M)
    return int(match[1]) if match else None


def swapped_bytes() -> int | None:
    """Bytes moved to and from swap space since the start, from `vm_stat`; None if it is not known.

    Its page-ins, which psutil reports as swapping, also count every file that is read.
    """
    text = output_of("vm_stat")
    page = re.search(r"page size of (\d{1,9}) bytes", text)
    counts = re.findall(r"^Swap(?:ins|outs):\s+(\d{1,18})\.?$", text, re.M)
    return sum(map(int, counts)) * int(page[1]) if page and len(counts) == 2 else None
