"""Updates of the index: new files are read, and the data that the history needs is inserted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggufbench.history.scan import COMPARISONS, FolderChange, Stamp
from ggufbench.records.store import StoreError
from ggufbench.text import escaped

if TYPE_CHECKING:
    import duckdb

    from ggufbench.history.row import Excerpt

_BATCH = 4000
"""Files in one transaction: an interruption loses at most these."""

_COLUMNS = {
    "folders": ("id int32", "place text", "modified int64", "changed int64", "settled bool"),
    "files": (
        "id int32", "folder int32", "name text", "size int64", "modified int64", "problem text",
        "subject uint64", "run text", "case_id text", "created int64", "outcome text", "reason text",
        "versions text", "counted bool",
    ),
    "subjects": (
        "id uint64", "work uint64", "kind text", "model text", "scenario text", "fingerprint text",
        "anchor text",
    ),
    "machines": ("fingerprint text", "facts text"),
    "points": (
        "file int32", "subject uint64", "metric text", "created int64", "value double",
        "reference double", "tolerance double",
    ),
}  # fmt: skip

TABLES = ";".join(
    f"create table {table} ({', '.join(columns)})"
    for table, columns in {"version": ("stamp text",), **_COLUMNS}.items()
)
"""The tables. Times are microseconds, those of files nanoseconds, since 1970; a missing number is NaN."""


def apply(
    connection: duckdb.DuckDBPyConnection,
    changes: Sequence[FolderChange],
    progress: Callable[[int, int], None],
) -> None:
    """Apply the changes to the index, in transactions of some thousands of files."""
    total, done = sum(len(change.added) for change in changes), 0
    for batch in _batches(changes):
        connection.begin()
        rows = _Rows(_next(connection, "files"), _next(connection, "folders"))
        _forget(connection, batch)
        for change in batch:
            if change.stamp is None:
                continue
            folder = rows.add_folder(change, change.stamp)
            for name, (on_disk, stamp) in change.added.items():
                rows.add_file(change.path / on_disk, folder, name, stamp)
                done += 1
                progress(done, total)
        _insert(connection, rows)
        _choose_among_copies(connection)
        connection.commit()


def _batches(changes: Iterable[FolderChange]) -> Iterator[list[FolderChange]]:
    batch: list[FolderChange] = []
    files = 0
    for change in changes:
        batch.append(change)
        files += len(change.added)
        if files >= _BATCH:
            yield batch
            batch, files = [], 0
    if batch:
        yield batch


def _forget(connection: duckdb.DuckDBPyConnection, batch: Iterable[FolderChange]) -> None:
    """Delete the rows of removed files, and of folders that were removed or written again."""
    known = [change.id for change in batch if change.id is not None]
    gone = [change.id for change in batch if change.stamp is None]
    files = [number for change in batch for number in change.removed]
    if gone:
        rows = connection.execute(f"select id from files where folder in {_THESE}", [gone]).fetchall()  # noqa: S608
        files += [number for (number,) in rows]
    for table, column, numbers in (
        ("points", "file", files),
        ("files", "id", files),
        ("folders", "id", known),
    ):
        if numbers:
            connection.execute(f"delete from {table} where {column} in {_THESE}", [numbers])  # noqa: S608


_THESE = "(select unnest(?::integer[]))"


@dataclass(slots=True)
class _Rows:
    """Rows to insert, by table."""

    next_file: int
    next_folder: int
    tables: dict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: {name: [] for name in _COLUMNS})
    subjects: set[int] = field(default_factory=set)
    machines: set[str] = field(default_factory=set)

    def add_folder(self, change: FolderChange, stamp: Stamp) -> int:
        """Number of the folder."""
        number = change.id
        if number is None:
            number, self.next_folder = self.next_folder, self.next_folder + 1
        self.tables["folders"].append((number, change.place, *stamp, change.settled))
        return number

    def add_file(self, path: Path, folder: int, name: str, stamp: Stamp) -> None:
        """Add a document, or the problem with a file that is not one."""
        from ggufbench.history.row import read_excerpt

        place = (self.next_file, folder, name, *stamp)
        self.next_file += 1
        try:
            found = read_excerpt(path, "anchored" if path.parent.name == COMPARISONS else "absolute")
        except StoreError as error:
            # Without the path, which changes when the results are moved.
            problem = escaped(str(error).removeprefix(str(path)))
            self.tables["files"].append((*place, problem, *_NOTHING))
            return
        if found is None:
            self.tables["files"].append((*place, None, *_NOTHING))
            return
        said = (found.run, found.case_id, found.created, found.outcome, found.reason, found.versions)
        self.tables["files"].append((*place, None, found.subject.id, *said, True))
        self._add_points(place[0], found)
        self._add_context(found)

    def _add_points(self, number: int, found: Excerpt) -> None:
        nan = float("nan")
        for point in found.points:
            reference = nan if point.reference is None else point.reference
            tolerance = nan if point.tolerance is None else point.tolerance
            row = (number, found.subject.id, point.metric, found.created, point.value, reference, tolerance)
            self.tables["points"].append(row)

    def _add_context(self, found: Excerpt) -> None:
        subject, fingerprint = found.subject, found.machine.fingerprint
        if subject.id not in self.subjects:
            self.subjects.add(subject.id)
            names = (subject.kind, subject.model, subject.scenario, subject.fingerprint, subject.anchor)
            self.tables["subjects"].append((subject.id, subject.work, *names))
        if fingerprint not in self.machines:
            self.machines.add(fingerprint)
            facts = found.machine.model_dump_json(exclude={"fingerprint"})
            self.tables["machines"].append((fingerprint, facts))


_NOTHING = (0, None, None, 0, None, None, None, False)
"""Placeholder columns for unreadable documents and for those outside the history."""


_IF_NEW = {
    "subjects": "where id not in (select id from subjects)",
    "machines": "where fingerprint not in (select fingerprint from machines)",
}


def _insert(connection: duckdb.DuckDBPyConnection, rows: _Rows) -> None:
    for table, found in rows.tables.items():
        if not found:
            continue
        connection.register("batch", _arrays(_COLUMNS[table], found))
        connection.execute(f"insert into {table} select * from batch {_IF_NEW.get(table, '')}")  # noqa: S608
        connection.unregister("batch")


def _arrays(columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    """Columns of numpy, which DuckDB reads a thousand times faster than rows."""
    import numpy as np

    kinds = {"text": "object"}
    values = zip(*rows, strict=True)
    found = {}
    for column, cells in zip(columns, values, strict=True):
        name, kind = column.split()
        found[name] = np.array(cells, dtype=kinds.get(kind, kind))
    return found


def _choose_among_copies(connection: duckdb.DuckDBPyConnection) -> None:
    """Mark copies: a run stored under two names is one session, and its first copy counts."""
    connection.execute(
        "update files set counted = not counted where subject <> 0 and counted <> (id in "
        "(select min(id) from files where subject <> 0 group by subject, run))"
    )


def _next(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    rows = connection.execute(f"select coalesce(max(id) + 1, 1) from {table}").fetchall()  # noqa: S608
    return int(rows[0][0])
