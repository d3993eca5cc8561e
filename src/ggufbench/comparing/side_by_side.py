"""Blocks of one launch of each arm, in random order, until the gate reaches a verdict.

Interim looks are made only after the planned numbers of pairs, so that stopping early does not raise the
error rates of the gate.
A block with interference is repeated, whichever arm was affected.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ggufbench.analysis.pairs import Pairs, block_problem, pairs
from ggufbench.analysis.verdicts import answers, changed_answer, changed_device, other_answer
from ggufbench.machine.parts import BusyProcess
from ggufbench.measuring.case import Bench, MeasuredLaunch
from ggufbench.outcomes import Outcome
from ggufbench.planning.plan import Case
from ggufbench.processes import cause
from ggufbench.records.comparison import AnswerCheck, Block, Purpose, Role, Verdict
from ggufbench.records.schema import Launch, ProviderFacts
from ggufbench.stats.sequential_test import Design, Judgement, Series, judge

MOST_DISTURBED_BLOCKS = 8
_PADDING_BYTES = 4096

Key = tuple[str, str]
"""A gated cell: the case's id and the metric."""


class ComparedArm(Protocol):
    """One arm of a comparison: an object that measures one launch of a case."""

    def measure(self, case: Case, bench: Bench, variables: Mapping[str, str]) -> MeasuredLaunch:
        """Measure one launch in a fresh process, with `variables` added to its environment."""


@dataclass(frozen=True, slots=True)
class ComparedCase:
    """One case as planned in each arm; an arm that cannot run it has the reason in its case."""

    id: str
    cases: Mapping[Role, Case]

    @property
    def metrics(self) -> list[str]:
        """Gated metrics of launches, from the candidate's scenario."""
        return self.cases["candidate"].scenario.gate.timed

    def tolerance(self, metric: str, found: Pairs) -> float:
        """The smallest relative change of this metric that counts as a regression."""
        asked = self.cases["candidate"].scenario.gate.tolerance_of(metric)
        return found.tolerance(asked.relative, asked.absolute)


@dataclass(frozen=True, slots=True)
class SessionStep:
    """State of a session, for the progress line."""

    case_id: str
    role: Role
    pairs: int
    """Number of pairs that count so far."""
    most_pairs: int
    disturbed: int
    seconds_left: float | None
    """Upper bound of the remaining seconds of all cases; None before the first block has ended."""


@dataclass(frozen=True, slots=True)
class BenchSession:
    """Settings that all cases of a comparison share."""

    arms: Mapping[Role, ComparedArm]
    bench: Bench
    seed: int
    """Random seed of the arm order."""
    design: Design = field(default_factory=Design)
    purpose: Purpose = "ab"
    allow_other_answers: bool = False
    check_answers: Callable[[ComparedCase], AnswerCheck | None] = lambda _entry: None
    """Compares the answers of baseline and candidate, once for each case; None if digests must do."""
    time_budget_seconds: float | None = None
    anchored_by: Role | None = None
    """Arm of the anchor: `anchor`, or `baseline` if that is the same release; None without an anchor."""
    keep: Callable[[Block], None] = lambda _block: None
    """Called with each block when its launches have ended."""
    on_step: Callable[[SessionStep], None] = lambda _step: None


@dataclass(slots=True)
class Ongoing:
    """State of one case during and after its comparison."""

    entry: ComparedCase
    blocks: list[Block] = field(default_factory=list)
    providers: dict[Role, ProviderFacts] = field(default_factory=dict)
    processes: list[BusyProcess] = field(default_factory=list)
    """Busiest other processes at the first interference."""
    answer_check: AnswerCheck | None = None
    override: tuple[Verdict, str] | None = None
    """Verdict that replaces those of the gate, with its reason."""
    lacking: Role | None = None
    """The arm without a result to compare."""
    note: str | None = None
    """Reason why it ended before the gate reached a verdict."""
    done: bool = False
    wall_seconds: float = 0.0

    @property
    def counted(self) -> list[Block]:
        """Blocks without interference, except the warm-up block."""
        return [block for block in self.blocks if block.number and block.disturbed is None]

    @property
    def disturbed(self) -> int:
        """Number of blocks with interference, without the warm-up block."""
        return sum(1 for block in self.blocks if block.number and block.disturbed is not None)

    @property
    def mostly_disturbed(self) -> bool:
        """True if more blocks had interference than count."""
        return self.disturbed > len(self.counted)

    def pairs(self, metric: str, reference: Role = "baseline") -> Pairs:
        """Pairs of the blocks that count."""
        size = self.entry.cases["candidate"].model.file_size_bytes
        return pairs(self.counted, metric, reference, size)


def measure_side_by_side(
    entries: Sequence[ComparedCase], session: BenchSession
) -> tuple[list[Ongoing], bool]:
    """Compare all cases, one block of each in turn. The second result is True after Ctrl-C."""
    ongoing = [_begin(entry) for entry in entries]
    clock = _Clock(session, time.monotonic())
    try:
        while left := [one for one in ongoing if not one.done]:
            for one in left:
                if clock.is_over(one):
                    _end(one, f"the time budget ended after {len(one.counted)} pairs")
                    continue
                started = time.monotonic()
                _measure_block(one, session, clock.seconds_left(ongoing))
                one.wall_seconds += time.monotonic() - started
                if len(one.blocks) == 1 and not one.done:
                    clock.started += _check_answers(one, session)
                _look(one, ongoing, session)
    except KeyboardInterrupt as interrupt:
        for one in ongoing:
            if not one.done:
                _end(one, f"interrupted by {cause(interrupt)} after {len(one.counted)} pairs")
        return ongoing, True
    return ongoing, False


def judgements(
    ongoing: Sequence[Ongoing], design: Design, reference: Role = "baseline"
) -> dict[Key, Judgement]:
    """Judgements of all cells of all cases, adjusted for the number of cells."""
    family: dict[Key, Series] = {}
    for one in ongoing:
        if one.lacking is not None or reference not in one.entry.cases:
            continue
        for metric in one.entry.metrics:
            found = one.pairs(metric, reference)
            family[one.entry.id, metric] = Series(found.log_ratios, one.entry.tolerance(metric, found))
    return judge(family, design)


def _begin(entry: ComparedCase) -> Ongoing:
    """State of a case before its first block. A case that an arm cannot run gets its verdict here."""
    one = Ongoing(entry)
    for role in ("baseline", "candidate"):
        skip = entry.cases[role].skip
        if skip is not None:
            _lacks(one, role, f"the {role} cannot run it: {skip}")
            break
    return one


def _measure_block(one: Ongoing, session: BenchSession, seconds_left: float | None) -> None:
    number = len(one.blocks)
    rng = random.Random(f"{session.seed} {one.entry.id} {number}")  # noqa: S311 (reproducible, not a secret)
    order = [role for role in session.arms if _takes_part(one, role)]
    rng.shuffle(order)
    launches: dict[Role, Launch] = {}
    for role in order:
        most = session.design.looks[-1]
        session.on_step(SessionStep(one.entry.id, role, len(one.counted), most, one.disturbed, seconds_left))
        launches[role] = _measure_arm(one, role, session, rng)
    problem = _problem(one.entry, launches)
    bench = session.bench
    block = Block(
        run_id=bench.run_id,
        case_id=one.entry.id,
        number=number,
        order=order,
        disturbed=problem,
        launches=launches,
    )
    one.blocks.append(block)
    session.keep(block)
    _refuse_broken(one, launches, session)


def _check_answers(one: Ongoing, session: BenchSession) -> float:
    """Compare the answers once, after the warm-up; return the seconds that it took.

    They do not count for the time budget, which a slow model's check could use up before the first pair.
    """
    started = time.monotonic()
    check = session.check_answers(one.entry)
    seconds = time.monotonic() - started
    if check is not None:
        one.answer_check = check.model_copy(update={"wall_seconds": seconds})
        _refuse_broken(one, one.blocks[0].launches, session)
    return seconds


def _takes_part(one: Ongoing, role: Role) -> bool:
    """True if the arm can run the case and has not failed: the gate works without an anchor."""
    launches = [block.launches[role] for block in one.blocks if role in block.launches]
    failed = any(launch.outcome is not Outcome.MEASURED for launch in launches)
    return one.entry.cases[role].skip is None and not failed


def _measure_arm(one: Ongoing, role: Role, session: BenchSession, rng: random.Random) -> Launch:
    # The size of the environment moves the stack, which changes the speed slightly. It is random for each
    # launch, so that the different paths of the arms do not appear as a difference.
    padding = {"GGUFBENCH_PADDING": "x" * rng.randrange(_PADDING_BYTES)}
    measured = session.arms[role].measure(one.entry.cases[role], session.bench, padding)
    one.providers.setdefault(role, measured.provider)
    one.processes = one.processes or measured.processes
    keep_log = not any(role in block.launches for block in one.blocks)
    return measured.launch if keep_log else measured.launch.model_copy(update={"log": []})


def _problem(entry: ComparedCase, launches: Mapping[Role, Launch]) -> str | None:
    size = entry.cases["candidate"].model.file_size_bytes
    return block_problem(list(launches.values()), entry.metrics, size)


def _refuse_broken(one: Ongoing, launches: Mapping[Role, Launch], session: BenchSession) -> None:
    """End a case after a failed launch; another answer or placement only replaces the verdict."""
    for role in ("baseline", "candidate"):
        launch = launches.get(role)
        if launch is not None and launch.outcome is not Outcome.MEASURED:
            reason = f"the {role} {_ended(launch)}"
            if role == "baseline":
                _lacks(one, role, reason)
            else:
                one.override, one.done = (Verdict.BROKEN, reason), True
            return
    other = _other_work(one, session)
    one.override = (Verdict.BROKEN, other) if other is not None else None


def _other_work(one: Ongoing, session: BenchSession) -> str | None:
    """Reason why the candidate did other work than the baseline in all blocks so far; None if not."""
    changed = None if session.allow_other_answers else _other_answer(one)
    if changed is None and _same_device(one.entry):
        both = ((block.launches["baseline"], block.launches["candidate"]) for block in one.blocks)
        changed = next(filter(None, (changed_device(old, new) for old, new in both)), None)
    return changed


def _other_answer(one: Ongoing) -> str | None:
    """Reason why the candidate answers otherwise; None if it does not, apart from rounding."""
    if one.answer_check is None:
        return changed_answer(answers(one.blocks))
    return other_answer(one.answer_check)


def _ended(launch: Launch) -> str:
    how = {Outcome.FAILED: "failed", Outcome.HUNG: "hung", Outcome.OUT_OF_MEMORY: "ran out of memory"}
    return f"{how.get(launch.outcome, str(launch.outcome))}: {launch.reason}"


def _same_device(entry: ComparedCase) -> bool:
    settings = [entry.cases[role].setting for role in ("baseline", "candidate")]
    return len({(setting.device, setting.n_gpu_layers) for setting in settings}) == 1


def _look(one: Ongoing, ongoing: Sequence[Ongoing], session: BenchSession) -> None:
    """End a case that has a verdict, has all its pairs, or had interference too often."""
    if one.done:
        return
    if one.disturbed > MOST_DISTURBED_BLOCKS:
        _end(one, f"{one.disturbed} blocks had interference")
    pairs, looks = len(one.counted), session.design.looks
    one.done = one.done or pairs == looks[-1]
    if one.done or pairs not in looks:
        return
    found = judgements(ongoing, session.design)
    cells = [found[one.entry.id, metric] for metric in one.entry.metrics]
    decided = all(cell.decided for cell in cells)
    one.done = decided or any(cell.verdict == "regression" for cell in cells)


def _lacks(one: Ongoing, role: Role, reason: str) -> None:
    one.lacking, one.override, one.done = role, (Verdict.MISSING, reason), True


def _end(one: Ongoing, note: str) -> None:
    one.note, one.done = note, True


@dataclass(slots=True)
class _Clock:
    """Elapsed and remaining time of a session."""

    session: BenchSession
    started: float
    """Reading of the monotonic clock at the start, later by what does not count for the budget."""

    def is_over(self, one: Ongoing) -> bool:
        """True if another block of this case would end after the time budget."""
        budget = self.session.time_budget_seconds
        return budget is not None and time.monotonic() - self.started + _block_seconds(one) > budget

    def seconds_left(self, ongoing: Sequence[Ongoing]) -> float | None:
        """Upper bound of the remaining seconds; None before a block has ended."""
        if not any(one.blocks for one in ongoing):
            return None
        most = self.session.design.looks[-1]
        return sum(_block_seconds(one) * (most - len(one.counted)) for one in ongoing if not one.done)


def _block_seconds(one: Ongoing) -> float:
    if one.blocks:
        return one.wall_seconds / len(one.blocks)
    return sum(case.estimate.seconds for case in one.entry.cases.values())
