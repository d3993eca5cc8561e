"""A comparison: arms of one case measured side by side, and what the gate says of each metric.

Two documents, both immutable: a block, written when its launches have ended, and the comparison, written at
the end. The blocks are the measurements; whatever else is lost, the verdicts can be computed from them again.

History of the format (`schema_version`):
1  first published.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from ggufbench.machine.parts import Machine, SourceState
from ggufbench.records.schema import Launch, ModelIdentity, ProviderFacts
from ggufbench.thresholds import Tolerance
from ggufbench.values import Count, Part, Seconds
from ggufbench.worker.job import Setting, Workload

COMPARISON_VERSION: Literal[1] = 1

Role = Literal["baseline", "candidate", "anchor"]
Purpose = Literal["ab", "a/a selftest", "positive control", "bisect"]
Probability = Annotated[float, Field(ge=0, le=1)]


class Verdict(StrEnum):
    """What the gate says of one metric of one case."""

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    NO_REGRESSION = "no regression"
    INCONCLUSIVE = "inconclusive"
    BROKEN = "broken"
    """The candidate crashed, hung, failed, gave another answer or ran on another device."""
    MISSING = "missing"
    """An arm has nothing to compare: the candidate cannot run what the baseline measured, or the reverse."""


class Arm(Part):
    """One side of a comparison."""

    role: Role
    name: str
    """As the user gave it: `llama-cpp-python==0.3.35`, a path, a commit, a scenario file."""
    kind: Literal["current", "interpreter", "requirement", "commit", "scenario"]
    commit: str | None = None
    """The full hash, where the arm is a commit."""
    scenario: str
    setting: Setting
    provider: ProviderFacts


class Block(Part):
    """One launch of each arm, in an order drawn by coin."""

    schema_version: Literal[1] = COMPARISON_VERSION
    run_id: str
    case_id: str
    number: Count
    """From 1; block 0 warms the machine and counts for nothing."""
    order: list[Role]
    disturbed: str | None = None
    """Why the block does not count, whichever arm it hit; None where it counts."""
    launches: dict[Role, Launch]


class Cell(Part):
    """One metric of one case: the candidate against the baseline, or against the anchor.

    Changes are relative and worse above zero, whichever direction the metric has: 0.08 is 8 % slower or
    larger.
    """

    metric: str
    against: Literal["baseline", "anchor"] = "baseline"
    verdict: Verdict
    reason: str | None = None
    """One sentence, where the numbers below do not say it."""
    pairs: Count
    """Blocks that count."""
    log_ratios: list[float] = Field(default_factory=list)
    """Of each block that counts: ln(candidate / reference) of the best samples, worse above zero."""
    reference_values: list[float] = Field(default_factory=list)
    """The best sample of each of those launches, in the metric's unit."""
    candidate_values: list[float] = Field(default_factory=list)
    reference_median: float | None = None
    candidate_median: float | None = None
    change: float | None = None
    """The Hodges-Lehmann estimate."""
    low: float | None = None
    high: float | None = None
    """Its interval."""
    level: Probability | None = None
    """The confidence that the interval really has, both sides together."""
    p_regression: Probability | None = None
    """Adjusted for the looks and for the number of gated cells (Holm)."""
    p_no_regression: Probability | None = None
    """Of a slow-down as large as the tolerance, adjusted for the looks."""
    tolerance: float | None = None
    """The relative change from which a regression matters, with the absolute one taken into account."""
    smallest_detectable: float | None = None
    """The smallest change that this run would have found with 80 % probability."""
    excluded_above: float | None = None
    """A slow-down beyond this is excluded at 95 %."""
    pairs_needed: Count | None = None
    """An estimate, where inconclusive."""


class Comparison(Part):
    """The document."""

    schema_version: Literal[1] = COMPARISON_VERSION
    purpose: Purpose = "ab"
    run_id: str
    case_id: str
    created: str
    """When the case ended, UTC, ISO 8601."""
    wall_seconds: Seconds
    verdict: Verdict
    """The worst of the cells against the baseline."""
    reason: str | None = None
    lacking: Role | None = None
    """The arm that had nothing to compare, where the verdict is `missing`."""
    model: ModelIdentity
    workload: Workload
    tolerance: Tolerance
    """How much disturbance a sample could bear and still count."""
    machine: Machine
    source: SourceState
    seed: Count
    """Of the coin."""
    arms: list[Arm]
    blocks: Count
    """Measured in all, without the warming one."""
    disturbed_blocks: Count
    launches: Count
    """Of all arms, the warming ones included: what the verdict cost."""
    order_effect_p: Probability | None = None
    """Of no difference between first and second launch of a block: small costs power, not validity."""
    answers: dict[Role, list[str]] = Field(default_factory=dict)
    """The digests that each arm gave."""
    cells: list[Cell]
