"""Pairs of a comparison: the log ratio of each block, and whether the block counts."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ggufbench.checks.interference import main_reason
from ggufbench.metrics import METRICS
from ggufbench.outcomes import Outcome
from ggufbench.records.comparison import Block, Role
from ggufbench.records.samples import metric_samples
from ggufbench.records.schema import Launch


@dataclass(frozen=True, slots=True)
class Pairs:
    """One metric of two arms, block by block."""

    reference: list[float]
    """The best sample of each launch, in the metric's unit."""
    candidate: list[float]
    log_ratios: list[float]
    """ln(candidate / reference), worse above zero."""

    def tolerance(self, relative: float, absolute: float) -> float:
        """Smallest relative change that reaches both limits, at the reference's median."""
        if not self.reference:
            return relative
        return max(relative, absolute / statistics.median(self.reference))


def best_sample(launch: Launch, metric: str, file_size_bytes: int) -> float | None:
    """Best sample of a launch, because delays only add time; None if no sample above zero counts."""
    if launch.outcome is not Outcome.MEASURED:
        return None
    values = metric_samples(launch, file_size_bytes).get(metric, [])
    found = [value for value in values if value > 0]
    if not found:
        return None
    return min(found) if METRICS[metric].better == "lower" else max(found)


def pairs(blocks: Sequence[Block], metric: str, reference: Role, file_size_bytes: int) -> Pairs:
    """Pairs from the blocks that count and have the metric in both arms, in the order measured."""
    found: list[tuple[float, float]] = []
    for block in blocks:
        sides = [block.launches.get(role) for role in (reference, "candidate")]
        best = [best_sample(launch, metric, file_size_bytes) for launch in sides if launch is not None]
        if block.disturbed is None and len(best) == 2 and best[0] is not None and best[1] is not None:
            found.append((best[0], best[1]))
    return Pairs(
        reference=[old for old, _ in found],
        candidate=[new for _, new in found],
        log_ratios=[worsening(metric, old, new) for old, new in found],
    )


def worsening(metric: str, old: float, new: float) -> float:
    """Log ratio of `new` to `old`, oriented so that above zero is slower or larger."""
    ratio = math.log(new / old)
    return ratio if METRICS[metric].better == "lower" else -ratio


def second_over_first(blocks: Sequence[Block], metric: str, file_size_bytes: int) -> list[float]:
    """Log ratio of the second launch of each block to the first, regardless of the arms; worse above zero."""
    found = []
    for block in blocks:
        launches = [block.launches[role] for role in block.order[:2] if role in block.launches]
        best = [best_sample(launch, metric, file_size_bytes) for launch in launches]
        if block.disturbed is None and len(best) == 2 and best[0] is not None and best[1] is not None:
            found.append(worsening(metric, best[0], best[1]))
    return found


def block_problem(launches: Sequence[Launch], metrics: Sequence[str], file_size_bytes: int) -> str | None:
    """Reason why a block does not count: a metric has no sample without interference in one of its launches.

    Neither the decision nor the sentence depends on the arm. Launches that did not complete are ignored here.
    """
    for launch in launches:
        if launch.outcome is not Outcome.MEASURED:
            continue
        for metric in metrics:
            if best_sample(launch, metric, file_size_bytes) is None:
                return f"no sample of {metric} without interference{_cause(launch)}"
    return None


def _cause(launch: Launch) -> str:
    disturbed = [sample.disturbed for sample in launch.samples if sample.disturbed and not sample.warmup]
    reason = main_reason(disturbed)
    return f": {reason.sentence}" if reason is not None else ""
