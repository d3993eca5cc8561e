"""Series of stored sessions with their judgement, for the commands `history` and `gate`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggufbench.history import queries
from ggufbench.history.index import ask
from ggufbench.history.judgement import WINDOW, JudgedValue, State, creep, judge
from ggufbench.history.queries import SeenMachine, StoredSeries, StoredSession, Wanted
from ggufbench.metrics import METRICS
from ggufbench.planning.scenario import gated_by_default
from ggufbench.records.store import StoreError
from ggufbench.text import did_you_mean
from ggufbench.thresholds import default_tolerance

if TYPE_CHECKING:
    import duckdb

    from ggufbench.stats.change_points import ChangePoint

ANCHORED, ABSOLUTE = "anchored", "absolute"

MOST_DRAWN = 4
"""Maximum number of series that are drawn; the others are listed only."""

LOOK_BACK = {ANCHORED: 200, ABSOLUTE: WINDOW + 2}
"""Sessions needed for a state. An absolute state depends on the last sessions; see `judge`."""

_MOST_SESSIONS = 2000
"""Number of sessions of a drawn series."""

_MOST_PROBLEMS = 10


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """Request of the history."""

    results: Path
    match: Sequence[str] = ()
    """Only cases whose id contains one of these."""
    metrics: Sequence[str] = ()
    """Metrics; those that scenarios gate, if empty."""
    machine: str | None = None
    """A fingerprint or its beginning; the machine of the newest document if None."""
    since: str | None = None
    """First run of the history: older runs are ignored."""
    rebuild: bool = False
    progress: Callable[[int, int], None] = lambda _done, _total: None


@dataclass(frozen=True, slots=True)
class Level:
    """A change point, with the versions that changed at it."""

    point: ChangePoint
    run: str
    """The first session at the new level."""
    changes: list[str]
    """Versions and commit, old and new."""


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """One series with the state of its newest session."""

    series: StoredSeries
    judged: list[JudgedValue]
    """Judgement of each session in the series."""
    crept: float | None = None
    """Relative slowdown of the last sessions against the first ones, if it exceeds the tolerance."""
    levels: list[Level] = field(default_factory=list)

    @property
    def newest(self) -> StoredSession:
        """The session that is judged."""
        return self.series.sessions[-1]

    @property
    def state(self) -> State:
        """State of the newest session."""
        return self.judged[-1].state

    @property
    def change(self) -> float | None:
        """Relative change of the newest session against those before it; negative is better."""
        excess = self.judged[-1].excess
        return None if excess is None else math.expm1(excess)

    @property
    def before(self) -> float | None:
        """Median of the sessions before it, in the unit of the series."""
        center = self.judged[-1].center
        return None if center is None else _value(self.series, center)


@dataclass(frozen=True, slots=True)
class OtherMachine:
    """A machine whose documents are not shown."""

    fingerprint: str
    documents: int
    differing: list[tuple[str, Any, Any]]
    """Key of the fingerprint, with its value on the machine shown and on this one."""


@dataclass(frozen=True, slots=True)
class History:
    """Every series of a machine."""

    machine: SeenMachine
    rows: list[SeriesRow]
    drawn: bool
    """True if the rows have all their sessions, and change points."""
    others: list[OtherMachine]
    unreadable: int
    problems: list[str]
    """Sentences about the newest files that could not be read as documents."""


def history(question: HistoryQuery) -> History:
    """The history of a request. Raises StoreError, in one sentence, if no stored document matches."""
    _check_metrics(question.metrics)
    return ask(
        question.results,
        lambda connection: _history(connection, question),
        rebuild=question.rebuild,
        progress=question.progress,
    )


def _history(connection: duckdb.DuckDBPyConnection, question: HistoryQuery) -> History:
    seen = queries.machines(connection)
    unreadable, problems = queries.problems(connection, question.results, _MOST_PROBLEMS)
    if not seen:
        first = f": {problems[0]}" if problems else "; make one with `ggufbench run`"
        raise StoreError(f"{question.results} has no record{first}")
    machine = _choose_machine(seen, question)
    since = _since(connection, question)
    found = [
        one
        for kind, newest in LOOK_BACK.items()
        for one in queries.series(
            connection,
            Wanted(machine.fingerprint, kind, newest, since, metrics=_metrics_of(kind, question.metrics)),
        )
        if not question.match or any(part in one.case_id for part in question.match)
    ]
    if not found:
        raise StoreError(_nothing_found(question, machine))
    drawn = len(found) <= MOST_DRAWN
    rows = [_drawn(connection, one, machine, since) if drawn else judged_row(one) for one in found]
    others = other_machines(machine, seen)
    return History(machine, rows, drawn, others, unreadable, problems)


def judged_row(series: StoredSeries) -> SeriesRow:
    """Judge each of its sessions by those before it."""
    values = logarithms(series)
    tolerance = _tolerance(series, values)
    judged = judge(values, tolerance, hold_out=series.kind == ANCHORED)
    crept = creep(values, tolerance)
    return SeriesRow(series, judged, None if crept is None else math.expm1(crept))


def logarithms(series: StoredSeries) -> list[float]:
    """The sessions as judged: larger is worse."""
    if series.kind == ANCHORED:
        return [math.log1p(session.value) for session in series.sessions]
    sign = _sign(series.metric)
    return [sign * math.log(session.value) for session in series.sessions]


def other_machines(machine: SeenMachine, seen: Iterable[SeenMachine]) -> list[OtherMachine]:
    """Other machines, each with the keys in which it differs."""
    return [
        OtherMachine(other.fingerprint, other.documents, _differing(machine.facts, other.facts))
        for other in seen
        if other.fingerprint != machine.fingerprint
    ]


def since_moment(connection: duckdb.DuckDBPyConnection, results: Path, name: str) -> int:
    """Time of the first document of a run. Raises StoreError if there is no such run."""
    run = queries.find_run(connection, name)
    if run is None:
        raise StoreError(f"{results} has no run {name!r} to begin the history with; name one of its runs")
    return min(document.created for document in run.documents)


def _drawn(
    connection: duckdb.DuckDBPyConnection, series: StoredSeries, machine: SeenMachine, since: int | None
) -> SeriesRow:
    """The same row with all its sessions and with its change points."""
    from ggufbench.stats.change_points import change_points

    wanted = Wanted(
        machine.fingerprint,
        series.kind,
        _MOST_SESSIONS,
        since,
        metrics=[series.metric],
        subjects=[series.subject],
    )
    row = judged_row(queries.series(connection, wanted)[0])
    values = logarithms(row.series)
    # Half of the threshold of a regression: a slow drift is visible in its steps.
    points = change_points(values, math.log1p(_tolerance(row.series, values)) / 2)
    versions = queries.versions_of(connection, series.subject) if points else {}
    return replace(row, levels=[_level(row.series.sessions, versions, point) for point in points])


def _level(
    sessions: Sequence[StoredSession], versions: Mapping[str, Mapping[str, str]], point: ChangePoint
) -> Level:
    old, new = (sessions[place].run for place in (point.index - 1, point.index))
    before, after = versions.get(old, {}), versions.get(new, {})
    changes = [
        f"{name} {before.get(name, 'none')} -> {after.get(name, 'none')}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    return Level(point, new, changes)


def _tolerance(series: StoredSeries, values: Sequence[float]) -> float:
    """The smallest relative change that exceeds both bounds of the metric's tolerance."""
    newest = series.sessions[-1]
    if newest.tolerance is not None and newest.tolerance > 0:
        return newest.tolerance
    asked = default_tolerance(series.metric)
    level = newest.reference if series.kind == ANCHORED else _value(series, statistics.median(values))
    return max(asked.relative, asked.absolute / level) if level else asked.relative


def _value(series: StoredSeries, logarithm: float) -> float:
    """Inverse of `logarithms`."""
    if series.kind == ANCHORED:
        return math.expm1(logarithm)
    return math.exp(_sign(series.metric) * logarithm)


def _sign(metric: str) -> int:
    return 1 if METRICS[metric].better == "lower" else -1


def _metrics_of(kind: str, named: Sequence[str]) -> Sequence[str] | None:
    """Metrics of a session: an anchored one has those of its scenario's gate, a record has all."""
    if named:
        return named
    return None if kind == ANCHORED else gated_by_default()


def _check_metrics(names: Iterable[str]) -> None:
    for name in names:
        if name not in METRICS:
            hint = did_you_mean(name, METRICS) or f"; known: {', '.join(METRICS)}"
            raise StoreError(f"{name!r} is not a metric{hint}")


def _choose_machine(seen: Sequence[SeenMachine], question: HistoryQuery) -> SeenMachine:
    if question.machine is None:
        return seen[0]
    found = [one for one in seen if one.fingerprint.startswith(question.machine)]
    if len(found) != 1:
        known = ", ".join(one.fingerprint for one in seen[:8])
        which = "no machine" if not found else f"{len(found)} machines"
        raise StoreError(f"{question.results} has {which} {question.machine!r}; give one of {known}")
    return found[0]


def _since(connection: duckdb.DuckDBPyConnection, question: HistoryQuery) -> int | None:
    return None if question.since is None else since_moment(connection, question.results, question.since)


def _nothing_found(question: HistoryQuery, machine: SeenMachine) -> str:
    asked = [*question.match, *question.metrics]
    about = f" that matches {', '.join(asked)}" if asked else ""
    return (
        f"{question.results} has no measured session of machine {machine.fingerprint}{about}; "
        "select less with --match and --metric, or give another --machine"
    )


def _differing(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    return [
        (key, here.get(key), there.get(key)) for key in {**here, **there} if here.get(key) != there.get(key)
    ]
