"""`ggufbench gate`: judge a stored run by the sessions before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ggufbench.exit_codes import ExitCode
from ggufbench.history import queries
from ggufbench.history.index import ask
from ggufbench.history.judgement import State, other_host
from ggufbench.history.queries import Document, IndexedRun, StoredSeries, Wanted
from ggufbench.history.series import (
    ABSOLUTE,
    ANCHORED,
    LOOK_BACK,
    OtherMachine,
    SeriesRow,
    judged_row,
    other_machines,
    since_moment,
)
from ggufbench.metrics import METRICS
from ggufbench.planning.scenario import gated_by_default
from ggufbench.records.store import RUN_NAME, StoreError

if TYPE_CHECKING:
    import duckdb

_EXPECTING_RUNS = 5
"""Number of earlier runs whose cases are expected in this one."""


@dataclass(frozen=True, slots=True)
class HistoryGateRequest:
    """The run to judge."""

    results: Path
    run: str | None = None
    """Name or folder; the newest run if None."""
    since: str | None = None
    """First run of the history: older runs are ignored."""
    rebuild: bool = False
    progress: Callable[[int, int], None] = lambda _done, _total: None


@dataclass(frozen=True, slots=True)
class Lost:
    """A case that the history has and the run lacks."""

    case_id: str
    broken: bool
    """True if it crashed, hung or failed; else it is missing."""
    reason: str


@dataclass(frozen=True, slots=True)
class HistoryGateResult:
    """Verdict of the history on a run."""

    run: str
    created: int | None
    """Microseconds since 1970; None if the run has no documents."""
    fingerprint: str
    rows: list[SeriesRow]
    """The anchored series, which decide."""
    advisory: list[SeriesRow]
    """The absolute series."""
    lost: list[Lost]
    undecided: list[str]
    """Cases with an anchor but without a figure (interference, or too few pairs), and unreadable files."""
    measured: bool
    others: list[OtherMachine]
    """Other machines, if this one has no earlier session."""
    anchors: list[str]
    """Anchors of earlier sessions, if none has the anchor of this one."""
    other_host: float | None = None
    """Median shift of the anchor, as a logarithm, if all its figures moved far in one direction."""
    unreadable: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def compared(self) -> bool:
        """True if there is an earlier session of the deciding kind to compare with."""
        return any(row.judged[-1].before for row in self.rows or self.advisory)

    def exit_code(self, *, strict: bool) -> ExitCode:
        """Exit code: 11 broken, 14 nothing measured, 11 missing, then 10, 12, 13, 0.

        A run whose cases all crashed measured nothing because it is broken, and the code says so.
        """
        if any(case.broken for case in self.lost):
            return ExitCode.BROKEN
        if not self.measured:
            return ExitCode.NOTHING_MEASURED
        if self.lost:
            return ExitCode.BROKEN
        if any(row.state is State.REGRESSION for row in self.rows):
            return ExitCode.REGRESSION
        if not self.compared:
            return ExitCode.NO_BASELINE
        return ExitCode.INCONCLUSIVE if strict and not self.decided else ExitCode.PASS

    @property
    def decided(self) -> bool:
        """True if every case was judged by an anchor and enough sessions, and no series is suspect."""
        states = {row.state for row in self.rows}
        return bool(states) and not self.undecided and not states & {State.TOO_FEW, State.SUSPECT}


def gate(question: HistoryGateRequest) -> HistoryGateResult:
    """Judge a run. Raises StoreError, in one sentence, if there is no such run."""
    return ask(
        question.results,
        lambda connection: _gate(connection, question),
        rebuild=question.rebuild,
        progress=question.progress,
    )


def _gate(connection: duckdb.DuckDBPyConnection, question: HistoryGateRequest) -> HistoryGateResult:
    run = _find(connection, question)
    unreadable, problems = queries.problems(connection, question.results, 10)
    if not run.documents:
        return HistoryGateResult(
            run.name, None, "", [], [], [], [], False, [], [], unreadable=unreadable, problems=problems
        )
    unread = queries.unreadable_in(connection, run)
    since = since_moment(connection, question.results, question.since) if question.since else None
    rows = _rows(connection, run, ANCHORED, since)
    advisory = _rows(connection, run, ABSOLUTE, since)
    host = other_host(_anchors(rows))
    if host is not None:
        rows = [_held_back(row) for row in rows]
    seen = queries.machines(connection)
    here = next(one for one in seen if one.fingerprint == run.fingerprint)
    return HistoryGateResult(
        run=run.name,
        created=run.created,
        fingerprint=run.fingerprint,
        rows=rows,
        advisory=advisory,
        lost=_lost(connection, run, {kind for kind, _ in unread}),
        undecided=[
            *(one.case_id for one in run.documents if one.kind == ANCHORED and one.outcome == "environment"),
            *(name for _, name in unread),
        ],
        measured=any(one.outcome == "measured" for one in run.documents),
        others=other_machines(here, seen) if here.runs == 1 else [],
        anchors=_earlier_anchors(connection, run, rows),
        other_host=host,
        unreadable=unreadable,
        problems=problems,
    )


def _find(connection: duckdb.DuckDBPyConnection, question: HistoryGateRequest) -> IndexedRun:
    """The run; empty if the newest folder has no documents: no older run replaces it."""
    run = queries.find_run(connection, question.run)
    if question.run is not None:
        if run is None:
            known = ", ".join(queries.run_names(connection)[-5:]) or "none"
            raise StoreError(f"{question.results} has no run {question.run!r}; its newest runs are {known}")
        return run
    barren = [name for name in queries.barren_folders(connection) if RUN_NAME.fullmatch(name)]
    newest = max(barren, default="")
    if run is None or (RUN_NAME.fullmatch(run.name) and newest > run.name):
        return IndexedRun(newest, "", 0, [])
    return run


def _rows(
    connection: duckdb.DuckDBPyConnection, run: IndexedRun, kind: str, since: int | None
) -> list[SeriesRow]:
    """The series of that kind in which the run has a session, up to that session."""
    documents = [one for one in run.documents if one.kind == kind]
    if not documents:
        return []
    wanted = Wanted(
        run.fingerprint,
        kind,
        LOOK_BACK[kind],
        since,
        max(one.created for one in documents),
        None if kind == ANCHORED else gated_by_default(),
        [one.subject for one in documents],
    )
    found = (_up_to(one, run.name) for one in queries.series(connection, wanted))
    return [judged_row(one) for one in found if one is not None]


def _up_to(series: StoredSeries, run: str) -> StoredSeries | None:
    """The series that ends with the run's session; None if it has no session of the run."""
    places = [place for place, session in enumerate(series.sessions) if session.run == run]
    return replace(series, sessions=series.sessions[: places[-1] + 1]) if places else None


def _anchors(rows: Iterable[SeriesRow]) -> dict[str, list[float]]:
    """Times and rates of the anchor itself, session by session, as logarithms."""
    import math

    found = {}
    for row in rows:
        metric = METRICS[row.series.metric]
        values = [session.reference for session in row.series.sessions]
        if metric.unit in ("s", "tokens/s") and values[-1]:
            sign = 1 if metric.better == "lower" else -1
            found[f"{row.series.subject} {metric.name}"] = [
                sign * math.log(value) for value in values if value is not None and value > 0
            ]
    return found


def _held_back(row: SeriesRow) -> SeriesRow:
    """Downgrade a regression to suspect: it takes two sessions on the machine that the history knows."""
    newest = row.judged[-1]
    if newest.state is not State.REGRESSION:
        return row
    return replace(row, judged=[*row.judged[:-1], replace(newest, state=State.SUSPECT)])


def _lost(connection: duckdb.DuckDBPyConnection, run: IndexedRun, unread: set[str]) -> list[Lost]:
    """Cases that broke though an earlier run measured them, and cases that this run lacks."""
    measured = queries.measured_before(connection, run)
    lost = [
        Lost(one.case_id, one.outcome not in ("missing", "skipped"), one.reason or f"ended as {one.outcome}")
        for one in run.documents
        if one.outcome not in ("measured", "environment") and _known(one, measured)
    ]
    for kind in sorted({one.kind for one in run.documents} | unread):
        present = {key for one in run.documents if one.kind == kind for key in one.keys}
        expected = _expected(queries.runs_before(connection, run, kind, _EXPECTING_RUNS))
        lost += [
            Lost(one.case_id, False, "runs before this one measured it")
            for one in expected
            if _known(one, measured) and not one.keys & present
        ]
    return lost


def _expected(runs: Sequence[Sequence[Document]]) -> list[Document]:
    """Cases of at least two of these runs, or of the only one: a case tried once is not expected."""
    newest: dict[int, Document] = {}
    counts: Counter[int] = Counter()
    for documents in runs:
        for one in documents:
            if one.outcome != "skipped":
                newest.setdefault(one.work, one)
                counts[one.work] += 1
    return [one for work, one in newest.items() if counts[work] >= min(2, len(runs))]


def _known(document: Document, measured: set[tuple[str, int | str]]) -> bool:
    return any((document.kind, key) in measured for key in document.keys)


def _earlier_anchors(
    connection: duckdb.DuckDBPyConnection, run: IndexedRun, rows: Sequence[SeriesRow]
) -> list[str]:
    """Anchors of earlier sessions of these cases, if this run has another one in all of them."""
    if not rows or any(row.judged[-1].before for row in rows):
        return []
    works = [one.work for one in run.documents if one.kind == ANCHORED]
    return queries.anchors_before(connection, works, run)
