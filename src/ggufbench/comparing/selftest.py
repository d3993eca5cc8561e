"""Validation of the gate's error rates on this machine: A/A sessions and a positive control."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ggufbench.comparing.ab import AbRequest, AbResult, Planned, measure, plan
from ggufbench.exit_codes import ExitCode
from ggufbench.records.comparison import Comparison, Purpose, Verdict
from ggufbench.records.comparisons import read_all_comparisons
from ggufbench.stats.binomial import lower_bound, upper_bound
from ggufbench.worker import positive_control

CONTROL_ENTRY = Path(positive_control.__file__)
"""Worker file of the candidate in a session of the positive control."""

NULL: Purpose = "a/a selftest"
CONTROL: Purpose = "positive control"


@dataclass(frozen=True, slots=True)
class SessionTally:
    """Tally of all sessions of one kind on this machine."""

    kind: Literal["a/a selftest", "positive control"]
    sessions: int
    """Sessions with a decision: not ended early, and not inconclusive because of interference."""
    regressions: int
    launches: int

    @property
    def bound(self) -> float:
        """Bound of the true rate (95 % confidence): upper for false alarms, lower for controls."""
        bound = upper_bound if self.kind == NULL else lower_bound
        return bound(self.regressions, self.sessions)

    @property
    def mean_launches(self) -> float | None:
        """Mean number of launches per session; None without a session."""
        return self.launches / self.sessions if self.sessions else None


@dataclass(frozen=True, slots=True)
class Selftest:
    """Sessions of this run, and the tally that includes earlier runs."""

    answers: list[AbResult]
    tallies: list[SessionTally]
    case_id: str | None

    @property
    def interrupted(self) -> bool:
        """True if Ctrl-C ended it."""
        return any(answer.interrupted for answer in self.answers)

    @property
    def problems(self) -> list[str]:
        """Reasons why documents could not be stored."""
        return [problem for answer in self.answers for problem in answer.problems]

    @property
    def exit_code(self) -> ExitCode:
        """Exit code: 10 false alarm, 11 missed control or broken launch, 14 no decided session."""
        found = [comparison for answer in self.answers for comparison in answer.comparisons]
        if self.interrupted:
            return ExitCode.INTERRUPTED
        if any(one.purpose == NULL and one.verdict is Verdict.REGRESSION for one in found):
            return ExitCode.REGRESSION
        if any(one.verdict in (Verdict.BROKEN, Verdict.MISSING) for one in found):
            return ExitCode.BROKEN
        decided = [one for one in found if is_decided(one)]
        if not decided:
            return ExitCode.NOTHING_MEASURED
        if any(one.purpose == CONTROL and one.verdict is not Verdict.REGRESSION for one in decided):
            return ExitCode.BROKEN
        return ExitCode.NOT_WRITTEN if self.problems else ExitCode.PASS


def selftest(
    question: AbRequest, sessions: int, controls: int, on_session: Callable[[int, Purpose], None]
) -> Selftest:
    """Run A/A sessions and positive controls on the smallest model that runs here.

    Raises the errors of `ab.ask`.
    """
    planned = _smallest(plan(question))
    answers: list[AbResult] = []
    for number, purpose in _order(sessions, controls):
        if not planned.entries or any(answer.interrupted for answer in answers):
            break
        on_session(number, purpose)
        seed = None if question.seed is None else question.seed + number
        asked = replace(question, purpose=purpose, seed=seed, run_id=None)
        answers.append(measure(asked, slow_candidate(planned) if purpose == CONTROL else planned))
    stored = read_all_comparisons(question.request.results)
    entry = planned.entries[0] if planned.entries else None
    model = entry.cases["candidate"].model.identity if entry else None
    return Selftest(answers, tallies(stored, planned.machine.fingerprint, model), entry.id if entry else None)


def slow_candidate(planned: Planned, entry: Path = CONTROL_ENTRY) -> Planned:
    """The same comparison with the positive control as the candidate's worker."""
    arm = planned.arms["candidate"]
    slowed = replace(arm, interpreter=replace(arm.interpreter, entry=entry))
    return replace(planned, arms={**planned.arms, "candidate": slowed})


def _order(sessions: int, controls: int) -> list[tuple[int, Purpose]]:
    """Alternate both kinds, so that a busy hour affects both."""
    kinds = ((sessions, NULL), (controls, CONTROL))
    numbers = range(1, max(sessions, controls) + 1)
    return [(number, purpose) for number in numbers for count, purpose in kinds if number <= count]


def tallies(stored: Sequence[Comparison], fingerprint: str, model: str | None) -> list[SessionTally]:
    """Tallies of the decided sessions with this model on this machine, including earlier runs."""
    mine = [
        one
        for one in stored
        if one.machine.fingerprint == fingerprint and one.model.identity == model and is_decided(one)
    ]
    kinds: tuple[Literal["a/a selftest", "positive control"], ...] = ("a/a selftest", "positive control")
    return [_tally(kind, [one for one in mine if one.purpose == kind]) for kind in kinds]


def is_decided(comparison: Comparison) -> bool:
    """True if the session was not ended early and interference did not prevent a decision."""
    return comparison.reason is None and any(cell.pairs for cell in comparison.cells)


def _tally(kind: Literal["a/a selftest", "positive control"], found: Sequence[Comparison]) -> SessionTally:
    alarms = sum(1 for one in found if one.verdict is Verdict.REGRESSION)
    return SessionTally(kind, len(found), alarms, sum(one.launches for one in found))


def _smallest(planned: Planned) -> Planned:
    """Keep only the case of the smallest file: its sessions are the shortest, and one case is enough."""
    runnable = [entry for entry in planned.entries if entry.cases["candidate"].skip is None]
    chosen = sorted(runnable, key=lambda entry: entry.cases["candidate"].model.file_size_bytes)[:1]
    return replace(planned, entries=chosen)
