"""Facts of a machine as a record stores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ggufbench.values import Bytes, Count, Part


class Device(Part):
    """A device as llama.cpp lists it."""

    name: str
    description: str
    type: str
    memory_free_bytes: Bytes | None
    memory_total_bytes: Bytes | None
    """None in a launch: to answer before the load, a GPU's driver would have to start in the process."""


class Machine(Part):
    """Where it was measured. `fingerprint` is the hash of the fields above `memory_bytes`, and of it."""

    fingerprint: str
    cpu: str
    architecture: str
    physical_cores: Count
    logical_cores: Count
    usable_cores: Count
    """After affinity and container limits."""
    l3_cache_bytes: Bytes
    memory_gib: Count
    operating_system: str
    virtualization: str
    devices: list[str]
    """Names of the GPU-type devices."""


class SourceState(Part):
    """The repository the run was started in."""

    commit: str | None
    dirty: bool | None


@dataclass(frozen=True, slots=True)
class Conditions:
    """The state of the machine at one moment; None for what this system does not tell."""

    power_source: Literal["mains", "battery"] | None = None
    low_power_mode: bool | None = None
    speed_limit_percent: int | None = None
    """macOS: what the thermal management leaves of the processor's speed; 100 is all."""
    throttle_events: int | None = None
    """Linux: how often the processor was slowed down because of heat, since the start of the system."""
    governor: str | None = None
    """Linux: of the processor's frequency; several are joined by commas."""
    frequency_driver: str | None = None
    energy_preference: str | None = None
    """Linux, with a driver that chooses frequencies by itself: `performance` to `power`."""
    frequency_mhz: float | None = None
    """Mean over the cores."""
    load_average: float | None = None
    """Over the last minute."""


@dataclass(frozen=True, slots=True)
class BusyProcess:
    """A process and how much of one core it used."""

    pid: int
    name: str
    core_share: float
    """1.0 is a whole core; with several threads it may be more."""
