"""What the blocks of a comparison say: the log ratio of each pair, and whether a block counts at all."""

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
        """The relative change from which both bounds are passed, at the reference's median."""
        if not self.reference:
            return relative
        return max(relative, absolute / statistics.median(self.reference))


def best_sample(launch: Launch, metric: str, file_size_bytes: int) -> float | None:
    """The least disturbed sample: delays only ever add. None where the launch has no clean one above zero."""
    if launch.outcome is not Outcome.MEASURED:
        return None
    values = metric_samples(launch, file_size_bytes).get(metric, [])
    found = [value for value in values if value > 0]
    if not found:
        return None
    return min(found) if METRICS[metric].better == "lower" else max(found)


def pairs(blocks: Sequence[Block], metric: str, reference: Role, file_size_bytes: int) -> Pairs:
    """The blocks that count and hold the metric in both arms, in the order measured."""
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
    """ln of how many times worse `new` is than `old`: above zero is slower, or larger."""
    ratio = math.log(new / old)
    return ratio if METRICS[metric].better == "lower" else -ratio


def second_over_first(blocks: Sequence[Block], metric: str, file_size_bytes: int) -> list[float]:
    """How much worse the second launch of each block was than the first, whichever arms they were."""
    found = []
    for block in blocks:
        launches = [block.launches[role] for role in block.order[:2] if role in block.launches]
        best = [best_sample(launch, metric, file_size_bytes) for launch in launches]
        if block.disturbed is None and len(best) == 2 and best[0] is not None and best[1] is not None:
            found.append(worsening(metric, best[0], best[1]))
    return found


def block_problem(launches: Sequence[Launch], metrics: Sequence[str], file_size_bytes: int) -> str | None:
    """Why a block does not count: some metric has no undisturbed sample in one of its launches.

    The sentence does not say in which arm, and nothing that is decided here depends on it. Launches that did
    not end as they should are another matter.
    """
    for launch in launches:
        if launch.outcome is not Outcome.MEASURED:
            continue
        for metric in metrics:
            if best_sample(launch, metric, file_size_bytes) is None:
                return f"no undisturbed sample of {metric}{_cause(launch)}"
    return None


def _cause(launch: Launch) -> str:
    disturbed = [sample.disturbed for sample in launch.samples if sample.disturbed and not sample.warmup]
    reason = main_reason(disturbed)
    return f": {reason.sentence}" if reason is not None else ""
