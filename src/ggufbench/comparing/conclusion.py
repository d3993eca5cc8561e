"""Conclusion of a comparison: its documents and its exit code, from the measured blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from ggufbench.analysis.pairs import second_over_first
from ggufbench.analysis.verdicts import answers, divergence_cell, judged_cell, worst
from ggufbench.comparing.arms import ArmSpec, PreparedArm
from ggufbench.comparing.side_by_side import BenchSession, Key, Ongoing, judgements
from ggufbench.exit_codes import ExitCode
from ggufbench.measuring.record_builder import identify
from ggufbench.records.comparison import Arm, Cell, Comparison, Role, Verdict
from ggufbench.records.schema import ProviderFacts
from ggufbench.stats.sequential_test import Judgement, order_effect


def conclude(
    ongoing: Sequence[Ongoing], session: BenchSession, arms: Mapping[Role, PreparedArm]
) -> list[Comparison]:
    """Documents of a comparison, one for each case."""
    anchor = session.anchored_by or "anchor"
    gated, anchored = judgements(ongoing, session.design), judgements(ongoing, session.design, anchor)
    return [
        _document(
            one,
            session,
            _arms(one, session, arms),
            [
                *_cells(one, gated, "baseline"),
                *_divergence(one),
                *_cells(one, anchored, "anchor", anchor),
            ],
        )
        for one in ongoing
    ]


def exit_code(comparisons: Sequence[Comparison], *, strict: bool) -> ExitCode:
    """Exit code of the gate: the worst case decides.

    14 if no pair counted and nothing broke; 11 takes precedence over 10, 10 over 12; 13 only with
    `strict`.
    """
    found = {comparison.verdict for comparison in comparisons}
    lacking = {comparison.lacking for comparison in comparisons}
    if Verdict.BROKEN in found or "candidate" in lacking:
        return ExitCode.BROKEN
    if Verdict.REGRESSION in found:
        return ExitCode.REGRESSION
    if "baseline" in lacking:
        return ExitCode.NO_BASELINE
    if not any(cell.pairs for comparison in comparisons for cell in comparison.cells):
        return ExitCode.NOTHING_MEASURED
    return ExitCode.INCONCLUSIVE if strict and Verdict.INCONCLUSIVE in found else ExitCode.PASS


def _document(one: Ongoing, session: BenchSession, arms: list[Arm], cells: list[Cell]) -> Comparison:
    case, bench = one.entry.cases["candidate"], session.bench
    gated = [cell for cell in cells if cell.against == "baseline"]
    verdict = one.override[0] if one.override else worst(cell.verdict for cell in gated)
    measured = [block for block in one.blocks if block.number]
    return Comparison(
        purpose=session.purpose,
        run_id=bench.run_id,
        case_id=one.entry.id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_seconds=one.wall_seconds,
        verdict=verdict,
        reason=_reason(one, verdict),
        lacking=one.lacking,
        model=identify(case.model),
        workload=case.workload,
        tolerance=case.scenario.tolerance,
        machine=bench.machine,
        source=bench.source,
        seed=session.seed,
        arms=arms,
        blocks=len(measured),
        disturbed_blocks=one.disturbed,
        launches=sum(len(block.launches) for block in one.blocks),
        order_effect_p=_order_effect(one),
        answers=answers(one.blocks),
        answer_check=one.answer_check,
        cells=cells,
    )


def _arms(one: Ongoing, session: BenchSession, arms: Mapping[Role, PreparedArm]) -> list[Arm]:
    found = [_arm(one, role, arm.spec) for role, arm in arms.items()]
    if session.anchored_by != "baseline":
        return found
    return [*found, *(arm.model_copy(update={"role": "anchor"}) for arm in found if arm.role == "baseline")]


def _arm(one: Ongoing, role: Role, spec: ArmSpec) -> Arm:
    case = one.entry.cases[role]
    return Arm(
        role=role,
        name=spec.name,
        kind=spec.kind,
        commit=spec.commit,
        scenario=case.scenario.name,
        setting=case.setting,
        provider=one.providers.get(role) or ProviderFacts(name=case.scenario.provider),
    )


def _cells(
    one: Ongoing,
    found: dict[Key, Judgement],
    against: Literal["baseline", "anchor"],
    measured_as: Role = "baseline",
) -> list[Cell]:
    return [
        judged_cell(
            metric, against, one.pairs(metric, measured_as), found[one.entry.id, metric], _override(one)
        )
        for metric in one.entry.metrics
        if (one.entry.id, metric) in found
    ]


def _divergence(one: Ongoing) -> list[Cell]:
    found = one.answer_check.divergence if one.answer_check else None
    return [] if found is None else [divergence_cell(found, len(one.counted), one.override)]


def _override(one: Ongoing) -> tuple[Verdict, str] | None:
    if one.override is not None:
        return one.override
    if one.mostly_disturbed:
        return Verdict.INCONCLUSIVE, environment_sentence(one)
    return None


def _reason(one: Ongoing, verdict: Verdict) -> str | None:
    override = _override(one)
    if override is not None:
        return override[1]
    return one.note if verdict is Verdict.INCONCLUSIVE else None


def environment_sentence(one: Ongoing) -> str:
    """Sentence on the blocks with interference: their number, the cause and the remedy."""
    problems = [block.disturbed for block in one.blocks if block.disturbed]
    who = [f"{process.name} used {100 * process.core_share:.0f} % of a core" for process in one.processes[:2]]
    named = f" ({', '.join(who)})" if who else ""
    counted = len(one.counted) + one.disturbed
    return (
        f"{one.disturbed} of {counted} blocks had interference: {problems[-1]}{named}; "
        "end other work and measure again"
    )


def _order_effect(one: Ongoing) -> float | None:
    size = one.entry.cases["candidate"].model.file_size_bytes
    found = second_over_first(one.counted, one.entry.metrics[0], size)
    return order_effect(found) if found else None
