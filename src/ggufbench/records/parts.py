"""Judgements on one launch as a record stores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator

from ggufbench.metrics import METRICS
from ggufbench.text import printable
from ggufbench.values import Amount


def _known(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"{printable(name, 60)} is not a metric of this version")
    return name


MetricName = Annotated[str, AfterValidator(_known)]

Kind = Literal["waiting", "other work", "stolen", "disk", "heat", "throttled"]


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One reason why a sample does not count."""

    kind: Kind
    share: Amount
    """Share of the sample's time (`waiting`, `throttled`) or of all cores' time (`other work`, `stolen`);
    else a count.
    """

    @property
    def sentence(self) -> str:
        """The reason as a sentence for the user."""
        percent = f"{100 * self.share:.0f} %"
        return {
            "waiting": f"its threads waited for a processor {percent} of the time",
            "other work": f"other processes used {percent} of the machine",
            "stolen": f"the hypervisor gave {percent} of the machine to others",
            "disk": f"weights were read from the disk again ({self.share:.0f} page faults)",
            "heat": "the processor was slowed down by heat",
            "throttled": f"the CPU quota of its control group stopped it {percent} of the time",
        }[self.kind]


@dataclass(frozen=True, slots=True)
class LimitResult:
    """One measured metric and its physical bound."""

    name: Literal["decode", "prompt", "encode", "load"]
    metric: MetricName
    measured: Amount
    """Median, in the metric's unit."""
    bound: Amount
    """Bound in the metric's unit: the highest rate, or the shortest time."""
    fraction: Amount
    """The fraction of the bound that the median reached."""
    highest_fraction: Amount
    """The fraction of the bound that the fastest sample reached, which is judged."""
    limit: Amount
    """The fraction above which the measurement is wrong."""
    judged: bool
    """False if the bound is only for orientation; the sentence explains why."""
    sentence: str


CacheState = Literal["cold", "warm", "partial", "unknown"]


Promise = Literal["load", "cold load", "memory"]


@dataclass(frozen=True, slots=True)
class TargetResult:
    """One target compared with one record."""

    name: Promise
    status: Literal["met", "missed", "not applicable"]
    metric: MetricName
    measured: Amount | None
    limit: Amount
    """Limit in the metric's unit; a higher value misses the target."""
    promise: Amount | None
    """The stricter end of the target, if it is a range."""
    sentence: str
