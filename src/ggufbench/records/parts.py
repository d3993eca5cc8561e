"""Judgements on one launch as a record stores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["waiting", "other work", "stolen", "disk", "heat"]


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One reason why a sample does not count."""

    kind: Kind
    share: float
    """Share of the sample's time (`waiting`) or of all cores' time (`other work`, `stolen`); else a count."""

    @property
    def sentence(self) -> str:
        """The reason for a person."""
        percent = f"{100 * self.share:.0f} %"
        return {
            "waiting": f"its threads waited for a processor {percent} of the time",
            "other work": f"other processes had {percent} of the machine",
            "stolen": f"the hypervisor gave {percent} of the machine to others",
            "disk": f"weights were read from the disk again ({self.share:.0f} page faults)",
            "heat": "the processor was slowed down because it was hot",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class LimitResult:
    """One measured metric beside its physical bound."""

    name: Literal["decode", "prompt", "load"]
    metric: str
    measured: float
    """Median, in the metric's unit."""
    bound: float
    """In the metric's unit: the highest rate, or the shortest time."""
    fraction: float
    """The part of the bound that the median reached; 1 is all of it."""
    highest_fraction: float
    """The part that the fastest sample reached: this is what is judged."""
    limit: float
    """The fraction above which the measuring is wrong."""
    judged: bool
    """False where the bound is only for orientation; the sentence says why."""
    sentence: str


CacheState = Literal["cold", "warm", "partial", "unknown"]


Promise = Literal["load", "cold load", "memory"]


@dataclass(frozen=True, slots=True)
class TargetResult:
    """One promise held against one record."""

    name: Promise
    status: Literal["met", "missed", "not applicable"]
    metric: str
    measured: float | None
    limit: float
    """In the metric's unit; more than this misses the target."""
    promise: float | None
    """The better end of what was promised, where there are two."""
    sentence: str
