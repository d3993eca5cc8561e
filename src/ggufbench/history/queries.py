"""Queries of the index. Sessions are ordered oldest first, and a copied run counts once."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggufbench.history.scan import COMPARISONS

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True)
class StoredSession:
    """One value of a series."""

    run: str
    created: int
    """Microseconds since 1970."""
    value: float
    """Absolute: the median, in the metric's unit. Anchored: the relative change from the anchor."""
    reference: float | None
    """Anchored: the anchor's own median, in the metric's unit."""
    tolerance: float | None
    """Anchored: the relative change from which a regression matters, as it was stored."""

    @property
    def day(self) -> str:
        """The date as text."""
        return moment(self.created)[:10]


@dataclass(frozen=True, slots=True)
class StoredSeries:
    """One metric of one case on one machine."""

    subject: int
    kind: str
    case_id: str
    model: str
    scenario: str
    anchor: str
    metric: str
    count: int
    """Total number of sessions."""
    sessions: list[StoredSession]
    """The newest sessions, oldest first."""


@dataclass(frozen=True, slots=True)
class Document:
    """The outcome of one case in one run."""

    subject: int
    work: int
    kind: str
    case_id: str
    label: str
    """Name of the model and scenario, which stay if the file is written again."""
    anchor: str
    outcome: str
    reason: str
    created: int

    @property
    def keys(self) -> frozenset[int | str]:
        """Each of them is enough to find the case in another run."""
        return frozenset({self.work, self.case_id, self.label})


@dataclass(frozen=True, slots=True)
class IndexedRun:
    """One run and its machine."""

    name: str
    fingerprint: str
    created: int
    documents: list[Document]


@dataclass(frozen=True, slots=True)
class SeenMachine:
    """A machine with stored documents."""

    fingerprint: str
    facts: dict[str, Any]
    documents: int
    newest: int
    """Time of the newest document."""
    runs: int
    kinds: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Selection of series, and how many sessions of each."""

    fingerprint: str
    kind: str
    newest: int
    """Maximum number of sessions of each series."""
    since: int | None = None
    """Only sessions from this moment on."""
    until: int | None = None
    """Only sessions up to this moment."""
    metrics: Sequence[str] | None = None
    subjects: Sequence[int] | None = None

    def conditions(self) -> tuple[list[str], dict[str, Any]]:
        """SQL conditions on points `p` and subjects `s`, and the values of their parameters."""
        possible = {
            "fingerprint": "s.fingerprint = $fingerprint",
            "kind": "s.kind = $kind",
            "since": "p.created >= $since",
            "until": "p.created <= $until",
            "metrics": "p.metric in (select unnest($metrics))",
            "subjects": "p.subject in (select unnest($subjects::ubigint[]))",
        }
        values = {name: getattr(self, name) for name in possible}
        given = {name: value for name, value in values.items() if value is not None}
        return ["p.file in (select id from files where counted)", *(possible[name] for name in given)], given


def find_run(connection: duckdb.DuckDBPyConnection, name: str | None = None) -> IndexedRun | None:
    """The run with that name or folder, the newest for None; None if there is no such run."""
    where = (
        ""
        if name is None
        else "and (run = $name or folder in (select id from folders where place in $places))"
    )
    named = {} if name is None else {"name": name, "places": [name, f"{name}/{COMPARISONS}"]}
    newest = f"where subject <> 0 {where} order by created desc, run desc limit 1"
    rows = connection.execute(f"select run, subject from files {newest}", named).fetchall()  # noqa: S608
    if not rows:
        return None
    run = rows[0][0]
    documents = _documents(connection, "f.run = ?", [run])
    subject = {"subject": rows[0][1]}
    found = connection.execute("select fingerprint from subjects where id = $subject", subject).fetchall()
    return IndexedRun(run, found[0][0], max(one.created for one in documents), documents)


def runs_before(
    connection: duckdb.DuckDBPyConnection, run: IndexedRun, kind: str, most: int
) -> list[list[Document]]:
    """Cases of the last earlier runs of that kind on the same machine, the newest first."""
    rows = connection.execute(
        "select f.run from files f join subjects s on f.subject = s.id "
        "where s.fingerprint = ? and s.kind = ? and f.run <> ? group by f.run having max(f.created) < ? "
        "order by max(f.created) desc, f.run desc limit ?",
        [run.fingerprint, kind, run.name, run.created, most],
    ).fetchall()
    where = "f.run = ? and s.fingerprint = ? and s.kind = ?"
    return [_documents(connection, where, [name, run.fingerprint, kind]) for (name,) in rows]


def measured_before(connection: duckdb.DuckDBPyConnection, run: IndexedRun) -> set[tuple[str, int | str]]:
    """Every case that an earlier run on this machine measured: pairs of its kind and one of its keys."""
    rows = connection.execute(
        "select distinct s.kind, s.work, f.case_id, s.model || ' ' || s.scenario "
        "from files f join subjects s on f.subject = s.id "
        "where f.outcome = 'measured' and s.fingerprint = ? and f.run <> ? and f.created < ?",
        [run.fingerprint, run.name, run.created],
    ).fetchall()
    return {(kind, key) for kind, *keys in rows for key in keys}


def machines(connection: duckdb.DuckDBPyConnection) -> list[SeenMachine]:
    """Every machine with stored documents, the one of the newest document first."""
    rows = connection.execute(
        "select s.fingerprint, any_value(m.facts), count(*), max(f.created), count(distinct f.run), "
        "list(distinct s.kind) from files f join subjects s on f.subject = s.id "
        "join machines m on m.fingerprint = s.fingerprint "
        "group by s.fingerprint order by max(f.created) desc"
    ).fetchall()
    return [
        SeenMachine(fingerprint, json.loads(facts), count, newest, runs, set(kinds))
        for fingerprint, facts, count, newest, runs, kinds in rows
    ]


def series(connection: duckdb.DuckDBPyConnection, wanted: Wanted) -> list[StoredSeries]:
    """The selected series, by case and metric."""
    conditions, values = wanted.conditions()
    rows = connection.execute(
        "with tails as (select p.subject, p.metric, count(*) as count, "  # noqa: S608
        "arg_max(p.file, p.created, $newest) as files from points p join subjects s on p.subject = s.id "
        f"where {' and '.join(conditions)} group by all), "
        "long as (select subject, metric, count, unnest(files) as file from tails) "
        "select l.subject, l.metric, l.count, f.run, f.case_id, p.created, p.value, p.reference, p.tolerance "
        "from long l join points p on p.file = l.file and p.metric = l.metric join files f on f.id = l.file "
        "order by p.created, f.run",
        {**values, "newest": wanted.newest},
    ).fetchall()
    return _gather(connection, rows)


def versions_of(connection: duckdb.DuckDBPyConnection, subject: int) -> dict[str, dict[str, str]]:
    """Measured versions of each run."""
    rows = connection.execute(
        "select run, versions from files where subject = ? and counted", [subject]
    ).fetchall()
    return {run: json.loads(versions) for run, versions in rows}


def run_names(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Every run, the newest last."""
    rows = connection.execute(
        "select run from files where subject <> 0 group by run order by max(created), run"
    ).fetchall()
    return [run for (run,) in rows]


def unreadable_in(connection: duckdb.DuckDBPyConnection, run: IndexedRun) -> list[tuple[str, str]]:
    """Kind and name of the files in a run's folder that could not be read as documents."""
    rows = connection.execute(
        "select o.place, f.name from files f join folders o on f.folder = o.id "
        "where f.problem is not null and split_part(o.place, '/', 1) = ? order by f.name",
        [run.name],
    ).fetchall()
    return [("anchored" if "/" in place else "absolute", name) for place, name in rows]


def barren_folders(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Folders of runs without a readable document."""
    rows = connection.execute(
        "select split_part(o.place, '/', 1) as run_folder "
        "from folders o left join files f on f.folder = o.id "
        "group by run_folder having count(*) filter (f.id is not null and f.problem is null) = 0"
    ).fetchall()
    return [name for (name,) in rows]


def anchors_before(connection: duckdb.DuckDBPyConnection, works: Sequence[int], run: IndexedRun) -> list[str]:
    """Anchors of earlier runs of the same cases."""
    rows = connection.execute(
        "select distinct s.anchor from files f join subjects s on f.subject = s.id where s.kind = 'anchored' "
        "and s.work in (select unnest(?::ubigint[])) and f.run <> ? and f.created < ? order by 1",
        [works, run.name, run.created],
    ).fetchall()
    return [anchor for (anchor,) in rows]


def problems(connection: duckdb.DuckDBPyConnection, results: Path, most: int) -> tuple[int, list[str]]:
    """Number of files that could not be read as documents, and a sentence for each of the newest."""
    rows = connection.execute(
        "select count(*) over (), o.place, f.name, f.problem from files f join folders o on f.folder = o.id "
        "where f.problem is not null order by f.modified desc, f.id limit ?",
        [most],
    ).fetchall()
    sentences = [f"{results / place / name}{problem}" for _, place, name, problem in rows]
    return (rows[0][0] if rows else 0), sentences


def moment(microseconds: int) -> str:
    """A time of the index in ISO 8601."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat(
        timespec="seconds"
    )


def _documents(connection: duckdb.DuckDBPyConnection, where: str, values: Sequence[object]) -> list[Document]:
    rows = connection.execute(
        "select f.subject, s.work, s.kind, f.case_id, s.model || ' ' || s.scenario, s.anchor, f.outcome, "  # noqa: S608
        "f.reason, f.created from files f "
        f"join subjects s on f.subject = s.id where f.counted and {where} order by f.case_id, f.created",
        values,
    ).fetchall()
    return [Document(*row) for row in rows]


def _gather(connection: duckdb.DuckDBPyConnection, rows: Sequence[tuple[Any, ...]]) -> list[StoredSeries]:
    names = connection.execute("select id, kind, model, scenario, anchor from subjects").fetchall()
    about = {subject: rest for subject, *rest in names}
    found: dict[tuple[int, str], StoredSeries] = {}
    for subject, metric, count, run, case_id, created, value, reference, tolerance in rows:
        session = StoredSession(run, created, value, _number(reference), _number(tolerance))
        before = found.get((subject, metric))
        sessions = before.sessions if before else []
        sessions.append(session)
        kind, model, scenario, anchor = about[subject]
        # The newest document has the name of the case.
        found[subject, metric] = StoredSeries(
            subject, kind, case_id, model, scenario, anchor, metric, count, sessions
        )
    return sorted(found.values(), key=lambda one: (one.kind, one.case_id, one.metric, one.anchor))


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
