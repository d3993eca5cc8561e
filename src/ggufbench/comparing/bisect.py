"""Binary search for the release or commit that made a model slower.

Every step is a stored comparison with the good end. An interrupted search is resumed from its stored steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import ValidationError

from ggufbench.comparing.ab import AbRequest, AbResult, Planned, measure, plan
from ggufbench.comparing.arms import ArmError, ArmSpec, parse_arm
from ggufbench.comparing.side_by_side import ComparedCase
from ggufbench.comparing.versions import commits_between, releases_between
from ggufbench.exit_codes import ExitCode
from ggufbench.planning.plan import Case, PlanError
from ggufbench.planning.scenario import GateSpec
from ggufbench.records.comparison import Cell, Comparison, Verdict
from ggufbench.records.comparisons import read_all_comparisons
from ggufbench.thresholds import MetricTolerance
from ggufbench.values import complaint

_MORE_PAIRS = 2
"""Factor of the number of pairs in the one repetition of an inconclusive step."""
_ENDS_DIFFER_AT_LEAST = 0.01

Side = Literal["good", "bad", "skipped"]


@dataclass(frozen=True, slots=True)
class BisectStep:
    """One comparison of the search."""

    baseline: str
    candidate: str
    side: Side
    comparison: Comparison | None
    """The comparison; None if the candidate could not be installed."""
    reason: str | None = None
    """Reason why it was skipped."""
    resumed: bool = False
    """True if it was found among the stored comparisons."""

    @property
    def launches(self) -> int:
        """Number of launches, in this search or in the one that it resumes."""
        return self.comparison.launches if self.comparison else 0


@dataclass(slots=True)
class Bisection:
    """The search, complete or interrupted."""

    candidates: list[str]
    """Versions from good to bad, both included."""
    steps: list[BisectStep] = field(default_factory=list)
    metric: str | None = None
    first_bad: str | None = None
    suspects: list[str] = field(default_factory=list)
    """Versions that the search could not distinguish: the first bad one is one of these."""
    confirmation: Comparison | None = None
    """Comparison of the first bad version with the one before it."""
    exit_code: ExitCode = ExitCode.PASS
    sentence: str = ""
    case_id: str | None = None
    problems: list[str] = field(default_factory=list)
    """Reasons why documents could not be stored; such a search cannot be resumed from them."""

    @property
    def launches(self) -> int:
        """Launches of all steps."""
        return sum(step.launches for step in self.steps)


@dataclass(frozen=True, slots=True)
class Hunt:
    """Inputs of a search."""

    question: AbRequest
    """The baseline is the good end, the candidate the bad one."""
    metric: str | None = None
    """The only metric to judge; the one that regressed most if None."""
    on_step: Callable[[str, int], None] = lambda _candidate, _left: None
    """Called with the next candidate and the number of versions that could still be the first bad one."""


def bisect(hunt: Hunt) -> Bisection:
    """Search for the first bad version. Raises GgufbenchError before anything is measured."""
    good, bad = (parse_arm(text, hunt.question.repository) for text in _ends(hunt.question))
    candidates = _candidates(good, bad, hunt.question)
    found = Bisection(candidates)
    try:
        _search(hunt, found)
    except KeyboardInterrupt:  # the measured blocks are stored
        found.exit_code = ExitCode.INTERRUPTED
        found.sentence = "interrupted; the same command resumes it"
    if found.problems and found.exit_code is ExitCode.PASS:
        found.exit_code = ExitCode.NOT_WRITTEN
    return found


def _ends(question: AbRequest) -> tuple[str, str]:
    return question.baseline, question.candidate


def _candidates(good: ArmSpec, bad: ArmSpec, question: AbRequest) -> list[str]:
    if good.kind != bad.kind or good.kind not in ("requirement", "commit"):
        raise ArmError(
            f"bisect cannot search from {good.name} ({good.kind}) to {bad.name} ({bad.kind}); give two "
            "releases of one package, such as llama-cpp-python==0.3.20, or two commits of --repository"
        )
    if good.kind == "requirement":
        return releases_between(good, bad)
    return commits_between(question.repository, good.commit or good.name, bad.commit or bad.name)


def _search(hunt: Hunt, found: Bisection) -> None:
    last = len(found.candidates) - 1
    hunt.on_step(found.candidates[last], last)
    gate = _only_metric(hunt.metric) if hunt.metric else None
    ends = _compare(hunt, found, 0, last, gate)
    cell = _difference(ends, found)
    if cell is None:
        return
    found.metric = cell.metric
    gate = _halfway(cell)
    low, high = _narrow(hunt, found, last, gate)
    if high - low > 1:
        found.suspects = found.candidates[low + 1 : high + 1]
        found.exit_code = ExitCode.INCONCLUSIVE
        found.sentence = "the first bad version is one of these; those before the last could not be judged"
        return
    _confirm(hunt, found, low, high, gate)


def _only_metric(name: str) -> GateSpec:
    """Gate of one metric. Raises PlanError if that metric cannot be gated."""
    try:
        return GateSpec(metrics=[name])
    except ValidationError as error:
        raise PlanError(complaint(error, GateSpec)) from None


def _difference(ends: BisectStep, found: Bisection) -> Cell | None:
    """The metric that regressed most between the ends; None, with a message, if none regressed."""
    comparison = ends.comparison
    if comparison is None:
        found.exit_code, found.sentence = ExitCode.BROKEN, f"the bad end cannot be measured: {ends.reason}"
        return None
    found.case_id = comparison.case_id
    regressed = [
        cell
        for cell in comparison.cells
        if cell.against == "baseline" and cell.verdict is Verdict.REGRESSION and cell.change
    ]
    if regressed:
        return max(regressed, key=lambda cell: math.log1p(cell.change or 0) / (cell.tolerance or 1))
    if comparison.lacking == "baseline":
        found.exit_code = ExitCode.NO_BASELINE
    elif comparison.verdict in (Verdict.BROKEN, Verdict.MISSING):
        found.exit_code = ExitCode.BROKEN
    elif comparison.verdict is Verdict.INCONCLUSIVE:
        pairs = any(cell.pairs for cell in comparison.cells)
        found.exit_code = ExitCode.INCONCLUSIVE if pairs else ExitCode.NOTHING_MEASURED
    found.sentence = (
        f"there is nothing to search: the ends were compared, and the verdict is {comparison.verdict}"
        + (f" ({comparison.reason})" if comparison.reason else "")
    )
    return None


def _halfway(cell: Cell) -> GateSpec:
    """Gate with the tolerance that separates the candidates, halfway between the good and the bad end.

    It is half of the change on a logarithmic scale, so both ends are equally distant.
    """
    relative = max(_ENDS_DIFFER_AT_LEAST, math.sqrt(1 + (cell.change or 0)) - 1)
    return GateSpec(metrics=[cell.metric], tolerance={cell.metric: MetricTolerance(relative=relative)})


def _narrow(hunt: Hunt, found: Bisection, last: int, gate: GateSpec) -> tuple[int, int]:
    """Narrow the search to the last good and the first bad candidate, as far as the verdicts allow."""
    low, high, skipped = 0, last, set[int]()
    while True:
        open_ones = [n for n in range(low + 1, high) if n not in skipped]
        if not open_ones:
            return low, high
        middle = min(open_ones, key=lambda n: (abs(2 * n - low - high), n))
        hunt.on_step(found.candidates[middle], high - low)
        step = _compare(hunt, found, 0, middle, gate)
        if step.side == "skipped":
            skipped.add(middle)
        elif step.side == "bad":
            high = middle
        else:
            low = middle


def _confirm(hunt: Hunt, found: Bisection, low: int, high: int, gate: GateSpec) -> None:
    """Compare the first bad version with the one before it, to confirm the change."""
    hunt.on_step(found.candidates[high], 1)
    step = _compare(hunt, found, low, high, gate)
    if step.side == "bad":
        found.first_bad, found.confirmation = found.candidates[high], step.comparison
        return
    found.suspects, found.exit_code = [found.candidates[high]], ExitCode.INCONCLUSIVE
    found.sentence = (
        f"the search ended at {found.candidates[high]}, but compared with the one before it the verdict is "
        f"{step.comparison.verdict if step.comparison else step.reason}; the change may have several causes"
    )


def _compare(hunt: Hunt, found: Bisection, low: int, high: int, gate: GateSpec | None) -> BisectStep:
    """Compare two candidates, again with more pairs if inconclusive. Stored comparisons are reused."""
    baseline, candidate = found.candidates[low], found.candidates[high]
    question = replace(hunt.question, baseline=baseline, candidate=candidate, gate=gate, purpose="bisect")
    try:
        planned = _single(plan(question))
    except ArmError as error:
        step = BisectStep(baseline, candidate, "skipped", None, str(error))
        found.steps.append(step)
        return step
    step = _measured(question, planned, found)
    if step.comparison and _wants_more(step.comparison):
        found.steps.append(step)
        design = question.design.extended(_MORE_PAIRS)
        step = _measured(replace(question, design=design), planned, found)
    found.steps.append(step)
    return step


def _measured(question: AbRequest, planned: Planned, found: Bisection) -> BisectStep:
    stored = _stored(question, planned)
    if stored is not None:
        return _step(question, stored, resumed=True)
    answer = measure(question, planned)
    found.problems += answer.problems
    comparison = _only(answer)
    if answer.interrupted or comparison is None:
        raise KeyboardInterrupt
    return _step(question, comparison)


def _step(question: AbRequest, comparison: Comparison, *, resumed: bool = False) -> BisectStep:
    side: Side = "skipped"
    if comparison.verdict is Verdict.REGRESSION:
        side = "bad"
    elif comparison.verdict in (Verdict.NO_REGRESSION, Verdict.IMPROVEMENT):
        side = "good"
    reason = None
    if side == "skipped":
        reason = comparison.reason or f"{comparison.verdict} after {_pairs(comparison)} pairs"
    return BisectStep(question.baseline, question.candidate, side, comparison, reason, resumed)


def _wants_more(comparison: Comparison) -> bool:
    return comparison.verdict is Verdict.INCONCLUSIVE and comparison.reason is None


def _pairs(comparison: Comparison) -> int:
    return max((cell.pairs for cell in comparison.cells), default=0)


def _only(answer: AbResult) -> Comparison | None:
    return answer.comparisons[0] if answer.comparisons else None


def _single(planned: Planned) -> Planned:
    """Require exactly one planned case. Raises PlanError otherwise."""
    entries = planned.entries
    if len(entries) == 1:
        return planned
    if not entries:
        skipped = planned.skipped[0][1] if planned.skipped else "no model was found; give one with --models"
        raise PlanError(f"there is no case to bisect: {skipped}")
    ids = ", ".join(entry.id for entry in entries[:6])
    raise PlanError(
        f"{len(entries)} cases match, but bisect needs one; choose it with --match or --scenario: {ids}"
    )


def _stored(question: AbRequest, planned: Planned) -> Comparison | None:
    """Stored comparison of the same step on this machine; None if it was not completed."""
    entry = planned.entries[0]
    for comparison in reversed(read_all_comparisons(question.request.results)):
        if _is_same(comparison, question, planned, entry) and _is_finished(comparison, question):
            return comparison
    return None


def _is_same(comparison: Comparison, question: AbRequest, planned: Planned, entry: ComparedCase) -> bool:
    case: Case = entry.cases["candidate"]
    names = {arm.role: (arm.name, arm.commit, arm.scenario, arm.setting) for arm in comparison.arms}
    wanted = {
        role: (arm.spec.name, arm.spec.commit, entry.cases[role].scenario.name, entry.cases[role].setting)
        for role, arm in planned.arms.items()
    }
    return (
        comparison.purpose == question.purpose
        and comparison.machine.fingerprint == planned.machine.fingerprint
        and comparison.model.identity == case.model.identity
        and comparison.workload == case.workload
        and names == wanted
        and _same_gate(comparison, case.scenario.gate)
    )


def _same_gate(comparison: Comparison, gate: GateSpec) -> bool:
    """True if the same metrics were judged with the tolerances of this search."""
    judged = {cell.metric: cell.tolerance for cell in comparison.cells if cell.against == "baseline"}
    return set(judged) == set(gate.metrics) and all(
        math.isclose(judged[metric] or 0.0, asked.relative) for metric, asked in gate.tolerance.items()
    )


def _is_finished(comparison: Comparison, question: AbRequest) -> bool:
    if comparison.reason is not None:
        return False
    conclusive = comparison.verdict is not Verdict.INCONCLUSIVE
    return conclusive or _pairs(comparison) >= question.design.looks[-1]
