"""Thresholds: targets, the interference that a sample may have, and the change that matters."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ggufbench.metrics import METRICS

Count = Annotated[int, Field(ge=0, lt=2**31)]


Share = Annotated[float, Field(ge=0, le=1)]


class Table(BaseModel):
    """A table of a TOML file: immutable, and strict about its names and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class LoadTarget(Table):
    """Load speed target, in bytes of the file per second."""

    floor_bytes_per_second: Annotated[float, Field(ge=1)]
    promise_bytes_per_second: Annotated[float, Field(ge=1)]
    small_file_seconds: Annotated[float, Field(ge=0, lt=1e9)]


class MemoryTarget(Table):
    """Memory target: at most `ratio * file + allowance`."""

    peak_to_file_ratio: Annotated[float, Field(gt=0, lt=1e6)]
    allowance_bytes: Annotated[int, Field(ge=0, lt=2**63)]


class Targets(Table):
    """Every target that a record is compared with."""

    load: LoadTarget
    memory: MemoryTarget


class Tolerance(Table):
    """`[tolerance]`: how much interference a sample may have and still count."""

    most_waiting: Share = 0.03
    """Largest share of the sample's time that its threads may wait for a core. Quiet machines show 0.005."""
    most_other_work: Share = 0.10
    """Largest share of all cores' time that other processes may use. Quiet machines show up to 0.03."""
    most_stolen: Share = 0.05
    """Largest share of all cores' time that the hypervisor may give to other machines."""
    most_disk_reads: Count = 10
    """Major page faults in one prompt or decode sample; each waits for the disk."""


class MetricTolerance(Table):
    """The worsening of a metric that matters: it must exceed both the relative and the absolute value."""

    relative: Annotated[float, Field(gt=0, lt=10)]
    absolute: Annotated[float, Field(ge=0, lt=2**63)] = 0.0
    """In the metric's unit: seconds, bytes or tokens per second."""


def default_tolerance(metric: str) -> MetricTolerance:
    """Tolerance of a metric if the scenario gives none. Raises KeyError for an unknown metric.

    A load of tens of milliseconds varies by a third and nobody notices; memory varies by a thousandth. A few
    microseconds are insignificant compared with a token's own time.
    """
    if METRICS[metric].unit in ("bytes", "ratio"):
        absolute = 4 * 2**20 if METRICS[metric].unit == "bytes" else 0.0
        return MetricTolerance(relative=0.02, absolute=absolute)
    if metric in ("load_seconds", "ready_seconds"):
        return MetricTolerance(relative=0.20, absolute=0.05)
    if metric == "token_overhead_seconds":
        return MetricTolerance(relative=0.10, absolute=5e-6)
    return MetricTolerance(relative=0.05)
