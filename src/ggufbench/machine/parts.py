"""Facts of a machine as a record stores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ggufbench.values import Amount, Bytes, Count, Name, Part, Sentence


class Device(Part):
    """A device as llama.cpp lists it."""

    name: str
    description: str
    type: str
    memory_free_bytes: Bytes | None
    memory_total_bytes: Bytes | None
    """None in a launch: to report it before the load, a GPU's driver would have to start in the process."""


class Machine(Part):
    """The measuring machine. `fingerprint` is the hash of the fields above `memory_bytes`, and of it."""

    fingerprint: Name
    cpu: Sentence
    architecture: Sentence
    physical_cores: Count
    logical_cores: Count
    usable_cores: Count
    """Number of cores after affinity and container limits."""
    l3_cache_bytes: Bytes
    memory_gib: Count
    operating_system: Sentence
    virtualization: Sentence
    devices: list[Sentence]
    """Names of the GPU-type devices."""
    performance_cores: Count | None = None
    """macOS: number of fast cores. This and the following fields are not in the fingerprint."""
    efficiency_cores: Count | None = None
    gpu_wired_limit_mib: Count | None = None
    """macOS: limit of GPU memory that the user has set (`iogpu.wired_limit_mb`); 0 is the default."""


class SourceState(Part):
    """The repository in which the run was started."""

    commit: str | None
    dirty: bool | None


@dataclass(frozen=True, slots=True)
class Conditions:
    """The state of the machine at one moment; None for values that this system does not report."""

    power_source: Literal["mains", "battery"] | None = None
    low_power_mode: bool | None = None
    speed_limit_percent: Count | None = None
    """macOS on Intel: percentage of the processor's speed that the thermal management allows."""
    thermal_pressure: Count | None = None
    """macOS: 0 is nominal; from 1 (moderate) to 4 the system slows down because of heat."""
    throttle_events: Count | None = None
    """Linux: number of times that heat slowed down the processor, since the start of the system."""
    governor: str | None = None
    """Linux: governor of the processor's frequency; several are joined by commas."""
    frequency_driver: str | None = None
    energy_preference: str | None = None
    """Linux, with a driver that chooses frequencies itself: `performance` to `power`."""
    frequency_mhz: Amount | None = None
    """Mean over the cores."""
    load_average: Amount | None = None
    """Load average over the last minute."""


@dataclass(frozen=True, slots=True)
class BusyProcess:
    """A process and how much of one core it used."""

    pid: Count
    name: str
    core_share: Amount
    """1.0 is a whole core; a process with several threads can use more."""
