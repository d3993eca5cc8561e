"""A comparison: arms of one case measured side by side, and the gate's verdict on each metric.

There are two documents, both immutable: a block, written when its launches have ended, and the comparison,
written at the end. The blocks are the measurements; the verdicts can always be computed from them again.

History of the format (`schema_version`):
1  first published.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from ggufbench.machine.parts import Machine, SourceState
from ggufbench.records.parts import MetricName
from ggufbench.records.schema import Launch, ModelIdentity, ProviderFacts, StoredSetting, StoredWorkload
from ggufbench.thresholds import Tolerance
from ggufbench.values import Amount, Count, Created, Name, Part, Seconds, Sentence

COMPARISON_VERSION: Literal[1] = 1

Role = Literal["baseline", "candidate", "anchor"]
Purpose = Literal["ab", "a/a selftest", "positive control", "bisect"]
Probability = Annotated[float, Field(ge=0, le=1)]
Change = Annotated[Amount, Field(ge=-1)]
"""A relative change; a value above zero cannot lose more than itself."""


class Verdict(StrEnum):
    """The gate's verdict on one metric of one case."""

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    NO_REGRESSION = "no regression"
    INCONCLUSIVE = "inconclusive"
    BROKEN = "broken"
    """The candidate crashed, hung, failed, gave another answer or ran on another device."""
    MISSING = "missing"
    """One arm has no result: the candidate cannot run what the baseline measured, or the reverse."""


class Arm(Part):
    """One side of a comparison."""

    role: Role
    name: str
    """The arm as the user named it: `llama-cpp-python==0.3.35`, a path, a commit, a scenario file."""
    kind: Literal["current", "interpreter", "requirement", "commit", "scenario"]
    commit: str | None = None
    """The full hash, if the arm is a commit."""
    scenario: Name
    setting: StoredSetting
    provider: ProviderFacts


class Block(Part):
    """One launch of each arm, in random order."""

    schema_version: Literal[1] = COMPARISON_VERSION
    run_id: Name
    case_id: Name
    number: Count
    """Number from 1; block 0 is the warm-up and is not counted."""
    order: list[Role]
    disturbed: str | None = None
    """Why the block does not count, for interference in any arm; None if it counts."""
    launches: dict[Role, Launch]


class Cell(Part):
    """One metric of one case: the candidate against the baseline, or against the anchor.

    Changes are relative and worse above zero, whichever direction the metric has: 0.08 is 8 % slower or
    larger.
    """

    metric: MetricName
    against: Literal["baseline", "anchor"] = "baseline"
    verdict: Verdict
    reason: Sentence | None = None
    """One sentence, if the numbers below do not explain the verdict."""
    pairs: Count
    """Number of blocks that count."""
    log_ratios: list[Amount] = Field(default_factory=list)
    """ln(candidate / reference) of the best samples of each block that counts, worse above zero."""
    reference_values: list[Amount] = Field(default_factory=list)
    """The best sample of each of those launches, in the metric's unit."""
    candidate_values: list[Amount] = Field(default_factory=list)
    reference_median: Amount | None = None
    candidate_median: Amount | None = None
    change: Change | None = None
    """The Hodges-Lehmann estimate."""
    low: Change | None = None
    high: Change | None = None
    """Confidence interval of the change."""
    level: Probability | None = None
    """The actual confidence level of the interval, two-sided."""
    p_regression: Probability | None = None
    """p-value of 'no worsening', adjusted for interim looks and for the number of gated cells (Holm)."""
    p_no_regression: Probability | None = None
    """p-value of a slowdown as large as the tolerance, adjusted for interim looks."""
    tolerance: Annotated[Amount, Field(ge=0)] | None = None
    """The relative change at which a regression matters, including the effect of the absolute tolerance."""
    smallest_detectable: Change | None = None
    """Minimum detectable effect of this run, with 80 % probability."""
    excluded_above: Change | None = None
    """Larger slowdowns are excluded at 95 %."""
    pairs_needed: Count | None = None
    """Estimated number of pairs, if inconclusive."""


AnswerVerdict = Literal["same answers", "other rounding", "other answers"]


class AnswerPassage(Part):
    """The candidate's distributions of the next token in one answer, against those of the baseline."""

    name: Name
    """Domain of the text: `prose`, `code`, `long`."""
    prompt_tokens: Count
    answer_tokens: Annotated[Count, Field(gt=0)]
    one_by_one: bool
    """True if the answer was decoded token by token, False if it was read as a batch."""
    divergence: Amount
    """Mean Kullback-Leibler divergence of a token, in nats."""
    rounding_divergence: Amount
    """The same between the baseline and its own other roundings, the largest one."""
    other_likeliest_tokens: Count
    """Positions at which another token is the likeliest."""
    widest_gap: Amount
    """Widest difference of log-probability between two such tokens by the baseline, in nats."""


class Divergence(Part):
    """How far the candidate's distributions of the next token are from the baseline's, over the texts."""

    kl_divergence: Amount
    """Mean Kullback-Leibler divergence of a token, in nats."""
    low: Amount | None
    high: Amount | None
    """Its 95 % interval over the chunks of text; None for a few chunks."""
    most: Amount
    """Divergence up to which the candidate passes."""
    tokens: Annotated[Count, Field(gt=0)]


class AnswerCheck(Part):
    """Whether the candidate answers like the baseline, apart from rounding."""

    verdict: AnswerVerdict
    reason: Sentence | None = None
    """One sentence, for other answers."""
    roundings: list[Name] = Field(default_factory=list)
    """Settings under which the baseline computed once more, to measure its rounding."""
    passages: list[AnswerPassage] = Field(default_factory=list)
    wall_seconds: Seconds = 0.0
    """Time of the check."""
    divergence: Divergence | None = None
    """Over the whole texts, if the gate names `kl_divergence`."""


class Comparison(Part):
    """The document of one comparison."""

    schema_version: Literal[1] = COMPARISON_VERSION
    purpose: Purpose = "ab"
    run_id: Name
    case_id: Name
    created: Created
    """When the case ended, UTC, ISO 8601."""
    wall_seconds: Seconds
    verdict: Verdict
    """The worst verdict of the cells against the baseline."""
    reason: Sentence | None = None
    lacking: Role | None = None
    """The arm without a result, if the verdict is `missing`."""
    model: ModelIdentity
    workload: StoredWorkload
    tolerance: Tolerance
    """Maximum interference of a sample that still counts."""
    machine: Machine
    source: SourceState
    seed: Count
    """Random seed of the arm order."""
    arms: list[Arm]
    blocks: Count
    """Number of measured blocks, without the warm-up."""
    disturbed_blocks: Count
    launches: Count
    """Number of launches of all arms, including the warm-ups: the cost of the verdict."""
    order_effect_p: Probability | None = None
    """p-value of equal first and second launches of a block: a small value costs power, not validity."""
    answers: dict[Role, list[str]] = Field(default_factory=dict)
    """The digests of each arm."""
    answer_check: AnswerCheck | None = None
    """None if the digests alone were compared."""
    cells: list[Cell]
