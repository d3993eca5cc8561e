"""What the index does not know yet: which folders and files are new, gone or others.

A document never changes once it has its name, so a folder whose times of change are those of the last visit
holds what it held then. The clock of a file system ticks slowly, and a file may appear in the tick in which a
folder was visited: a folder counts as settled only when its last change lay some seconds before the visit.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ggufbench.records.store import StoreError

if TYPE_CHECKING:
    import duckdb

COMPARISONS = "comparisons"

_SETTLED_AFTER_NANOSECONDS = 3 * 10**9
Stamp = tuple[int, int]


@dataclass(frozen=True, slots=True)
class FolderChange:
    """A folder that is new, gone or not as it was."""

    place: str
    """Its path below the results, as the index writes it."""
    path: Path
    id: int | None
    """In the index; None for a new one."""
    stamp: Stamp | None
    """When its entries last changed; None where it is gone."""
    settled: bool
    removed: list[int] = field(default_factory=list)
    """Files in the index that are there no longer, or are others now."""
    added: dict[str, tuple[str, Stamp]] = field(default_factory=dict)
    """Name in the index to the name on the disk, with size and time of change."""


def find_changes(connection: duckdb.DuckDBPyConnection, results: Path) -> list[FolderChange]:
    """What the index does not know yet. Raises StoreError where the results cannot be listed."""
    rows = connection.execute("select place, id, modified, changed, settled from folders").fetchall()
    known = {
        place: (number, (modified, changed), settled) for place, number, modified, changed, settled in rows
    }
    now = time.time_ns()
    unsure: list[tuple[FolderChange, bool]] = []
    for path, place, stamp in _folders(results):
        number, before, was_settled = known.pop(place, (None, None, False))
        if before == stamp and was_settled:
            continue
        settled = now - max(stamp) > _SETTLED_AFTER_NANOSECONDS
        unsure.append((FolderChange(place, path, number, stamp, settled), before == stamp and not settled))
    stored = _stored_files(connection, [change.id for change, _ in unsure])
    for change, _ in unsure:
        _compare(change, stored.get(change.id, {}))
    gone = [FolderChange(place, results, number, None, True) for place, (number, _, _) in known.items()]
    return gone + [change for change, same in unsure if change.added or change.removed or not same]


def _folders(results: Path) -> Iterator[tuple[Path, str, Stamp]]:
    """Every folder that may hold documents: of each run, and of its comparisons."""
    try:
        runs = [entry for entry in os.scandir(results) if _is_folder(entry)]
    except OSError as error:
        raise StoreError(f"{results} cannot be listed: {error.strerror}; give another --results") from None
    for run in runs:
        place = _storable(run.name)
        folder = Path(run.path)
        for path, name in ((folder, place), (folder / COMPARISONS, f"{place}/{COMPARISONS}")):
            try:
                status = path.stat()
            except OSError:
                continue
            yield path, name, (status.st_mtime_ns, status.st_ctime_ns)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _compare(change: FolderChange, stored: dict[str, tuple[int, Stamp]]) -> None:
    """Note what was added and removed since the files in the index were read."""
    left = dict(stored)
    for name, on_disk, stamp in _listing(change.path):
        number, before = left.pop(name, (None, None))
        if before != stamp:
            change.added[name] = (on_disk, stamp)
            if number is not None:
                change.removed.append(number)
    change.removed.extend(number for number, _ in left.values())


def _listing(folder: Path) -> Iterator[tuple[str, str, Stamp]]:
    """Files that may be documents. A folder that cannot be listed counts as one that cannot be read."""
    try:
        entries = [entry for entry in os.scandir(folder) if entry.name.endswith(".json")]
    except OSError:
        yield "", "", (-1, 0)
        return
    for entry in sorted(entries, key=lambda found: found.name):
        try:
            status = entry.stat()
            yield _storable(entry.name), entry.name, (status.st_size, status.st_mtime_ns)
        except OSError:  # a link to nothing
            yield _storable(entry.name), entry.name, (-1, 0)


def _storable(name: str) -> str:
    """A name as text that a database takes: bytes that are not UTF-8 become their escapes."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def _stored_files(
    connection: duckdb.DuckDBPyConnection, folders: Iterable[int | None]
) -> dict[int | None, dict[str, tuple[int, Stamp]]]:
    """Folder to the files that the index has of it."""
    known = [number for number in folders if number is not None]
    query = "select folder, name, id, size, modified from files where folder in (select unnest(?::integer[]))"
    rows = connection.execute(query, [known]).fetchall() if known else []
    found: dict[int | None, dict[str, tuple[int, Stamp]]] = {}
    for folder, name, number, size, modified in rows:
        found.setdefault(folder, {})[name] = (number, (size, modified))
    return found
