"""From the blocks of a comparison to its cells: what the gate says of each metric."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from ggufbench.analysis.pairs import Pairs
from ggufbench.records.comparison import Block, Cell, Role, Verdict
from ggufbench.records.schema import Launch
from ggufbench.stats.sequential_test import Judgement

Kind = Literal["bad", "warn", "good"]
"""How a report marks a sentence or a figure."""

VERDICT_KINDS: dict[Verdict, Kind] = {
    Verdict.BROKEN: "bad",
    Verdict.REGRESSION: "bad",
    Verdict.MISSING: "bad",
    Verdict.INCONCLUSIVE: "warn",
    Verdict.NO_REGRESSION: "good",
    Verdict.IMPROVEMENT: "good",
}
"""Every verdict, the worst first."""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The one that decides over all of them; inconclusive where there is none."""
    found = set(verdicts)
    return next((verdict for verdict in VERDICT_KINDS if verdict in found), Verdict.INCONCLUSIVE)


def judged_cell(
    metric: str,
    against: Literal["baseline", "anchor"],
    found: Pairs,
    judgement: Judgement,
    override: tuple[Verdict, str] | None,
) -> Cell:
    """A cell with its figures. `override` takes the place of the verdict: what broke never passes."""
    has_pairs = bool(found.log_ratios)
    verdict, reason = override or (Verdict(judgement.verdict), _remark(judgement))
    return Cell(
        metric=metric,
        against=against,
        verdict=verdict,
        reason=reason,
        pairs=judgement.pairs,
        log_ratios=found.log_ratios,
        reference_values=found.reference,
        candidate_values=found.candidate,
        reference_median=statistics.median(found.reference) if has_pairs else None,
        candidate_median=statistics.median(found.candidate) if has_pairs else None,
        change=judgement.change if has_pairs else None,
        low=judgement.low if has_pairs else None,
        high=judgement.high if has_pairs else None,
        level=judgement.level if has_pairs else None,
        p_regression=judgement.p_regression,
        p_no_regression=judgement.p_no_regression,
        tolerance=judgement.tolerance,
        smallest_detectable=judgement.smallest_detectable,
        excluded_above=judgement.excluded_above,
        pairs_needed=judgement.pairs_needed if verdict is Verdict.INCONCLUSIVE else None,
    )


def answers(blocks: Sequence[Block]) -> dict[Role, list[str]]:
    """The different digests of each arm."""
    found: dict[Role, set[str]] = {}
    for block in blocks:
        for role, launch in block.launches.items():
            found.setdefault(role, set()).update([launch.digest] if launch.digest else [])
    return {role: sorted(digests) for role, digests in found.items()}


def changed_answer(given: Mapping[Role, Sequence[str]]) -> str | None:
    """Why the arms did not do the same work; None where they did, or where the baseline itself varies."""
    old, new = given.get("baseline", ()), given.get("candidate", ())
    if len(old) != 1 or set(new) <= set(old):
        return None
    other = next(digest for digest in new if digest not in old)
    return (
        f"the 32 greedy tokens of the candidate are others ({other}, baseline {old[0]}): its speed is that "
        "of other work; look at its answers, and accept them with --allow-other-answers"
    )


def changed_device(baseline: Launch, candidate: Launch) -> str | None:
    """Why the arms did not compute in the same place; None where they did or do not say."""
    old, new = baseline.effective, candidate.effective
    if old is None or new is None or not old.layers or not new.layers:
        return None
    before, after = _offloaded(old.layers), _offloaded(new.layers)
    if before == after:
        return None
    return f"the candidate has {after} layers on a device beside the processor, the baseline {before}"


def _offloaded(layers: Mapping[str, int]) -> int:
    return sum(count for device, count in layers.items() if not device.startswith("CPU"))


def _remark(judgement: Judgement) -> str | None:
    return "real, but within the tolerance" if judgement.real_but_small else None
