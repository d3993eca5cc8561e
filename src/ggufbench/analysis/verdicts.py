"""Verdicts of a comparison: a cell for each metric, and checks that both arms did the same work."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from ggufbench.analysis.pairs import Pairs
from ggufbench.records.comparison import AnswerCheck, Block, Cell, Divergence, Role, Verdict
from ggufbench.records.schema import Launch
from ggufbench.stats.sequential_test import Judgement

Kind = Literal["bad", "warn", "good"]
"""Mark of a sentence or a figure in a report."""

VERDICT_KINDS: dict[Verdict, Kind] = {
    Verdict.BROKEN: "bad",
    Verdict.REGRESSION: "bad",
    Verdict.MISSING: "bad",
    Verdict.INCONCLUSIVE: "warn",
    Verdict.NO_REGRESSION: "good",
    Verdict.IMPROVEMENT: "good",
}
"""Mark of every verdict, the worst verdict first."""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst verdict, which decides; inconclusive without verdicts."""
    found = set(verdicts)
    return next((verdict for verdict in VERDICT_KINDS if verdict in found), Verdict.INCONCLUSIVE)


def judged_cell(
    metric: str,
    against: Literal["baseline", "anchor"],
    found: Pairs,
    judgement: Judgement,
    override: tuple[Verdict, str] | None,
) -> Cell:
    """A cell with its figures. `override` replaces the verdict, so that a broken case never passes."""
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


def divergence_cell(found: Divergence, pairs: int, override: tuple[Verdict, str] | None) -> Cell:
    """The cell of `kl_divergence`, which is measured once and judged by its interval over the texts."""
    if found.low is None or found.high is None:
        low = high = found.kl_divergence
    else:
        low, high = found.low, found.high
    figures = f"{found.kl_divergence:.3g} nats from the baseline ({low:.3g} to {high:.3g})"
    sentence = f"{figures}; the limit is {found.most:g}"
    if high <= found.most:
        verdict = Verdict.NO_REGRESSION
    else:
        verdict = Verdict.REGRESSION if low > found.most else Verdict.INCONCLUSIVE
    return Cell(
        metric="kl_divergence",
        verdict=override[0] if override else verdict,
        reason=override[1] if override else sentence,
        pairs=pairs,
        candidate_values=[found.kl_divergence],
        candidate_median=found.kl_divergence,
    )


def answers(blocks: Sequence[Block]) -> dict[Role, list[str]]:
    """Distinct answer digests of each arm."""
    found: dict[Role, set[str]] = {}
    for block in blocks:
        for role, launch in block.launches.items():
            found.setdefault(role, set()).update([launch.digest] if launch.digest else [])
    return {role: sorted(digests) for role, digests in found.items()}


def changed_answer(given: Mapping[Role, Sequence[str]]) -> str | None:
    """Reason why the arms did different work; None if they did the same or the baseline itself varies."""
    old, new = given.get("baseline", ()), given.get("candidate", ())
    if len(old) != 1 or set(new) <= set(old):
        return None
    other = next(digest for digest in new if digest not in old)
    return (
        f"the 32 greedy tokens of the candidate differ ({other}, baseline {old[0]}), so its speed is that of "
        "different work; check its answers, and accept them with --allow-other-answers"
    )


def other_answer(check: AnswerCheck) -> str | None:
    """Reason why the candidate gives other answers than the baseline; None if rounding explains them."""
    if check.verdict != "other answers":
        return None
    return f"{check.reason}; check its answers, and accept them with --allow-other-answers"


def changed_device(baseline: Launch, candidate: Launch) -> str | None:
    """Reason why the arms computed on different devices; None if they did not or it is unknown."""
    old, new = baseline.effective, candidate.effective
    if old is None or new is None or not old.layers or not new.layers:
        return None
    before, after = _offloaded(old.layers), _offloaded(new.layers)
    if before == after:
        return None
    return f"the candidate has {after} layers on devices other than the CPU, the baseline {before}"


def _offloaded(layers: Mapping[str, int]) -> int:
    return sum(count for device, count in layers.items() if not device.startswith("CPU"))


def _remark(judgement: Judgement) -> str | None:
    return "significant, but within the tolerance" if judgement.real_but_small else None
