"""Changes since the last update of the index: new, removed and changed folders and files.

A document never changes once it has its name, so a folder with the modification times of the last visit has
the same contents. File systems have coarse clocks, and a file may appear in the same tick as the visit: a
folder counts as settled only if its last change was some seconds before the visit.
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
    """A folder that is new, removed or changed."""

    place: str
    """Path relative to the results, as stored in the index."""
    path: Path
    id: int | None
    """Its number in the index; None for a new one."""
    stamp: Stamp | None
    """Modification time; None if it was removed."""
    settled: bool
    removed: list[int] = field(default_factory=list)
    """Files of the index that were removed or changed."""
    added: dict[str, tuple[str, Stamp]] = field(default_factory=dict)
    """Name in the index to the name on the disk, with size and modification time."""


def find_changes(connection: duckdb.DuckDBPyConnection, results: Path) -> list[FolderChange]:
    """All changes. Raises StoreError if the results cannot be listed."""
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
    """Every folder that may contain documents: of each run, and of its comparisons."""
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
    """Add the files that were added and removed since the files in the index were read."""
    left = dict(stored)
    for name, on_disk, stamp in _listing(change.path):
        number, before = left.pop(name, (None, None))
        if before != stamp:
            change.added[name] = (on_disk, stamp)
            if number is not None:
                change.removed.append(number)
    change.removed.extend(number for number, _ in left.values())


def _listing(folder: Path) -> Iterator[tuple[str, str, Stamp]]:
    """Files that may be documents. A folder that cannot be listed counts as unreadable."""
    try:
        entries = [entry for entry in os.scandir(folder) if entry.name.endswith(".json")]
    except OSError:
        yield "", "", (-1, 0)
        return
    for entry in sorted(entries, key=lambda found: found.name):
        try:
            status = entry.stat()
            yield _storable(entry.name), entry.name, (status.st_size, status.st_mtime_ns)
        except OSError:  # a broken link
            yield _storable(entry.name), entry.name, (-1, 0)


def _storable(name: str) -> str:
    """A name as text for a database: bytes that are not UTF-8 become their escapes."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def _stored_files(
    connection: duckdb.DuckDBPyConnection, folders: Iterable[int | None]
) -> dict[int | None, dict[str, tuple[int, Stamp]]]:
    """Files of each folder in the index."""
    known = [number for number in folders if number is not None]
    query = "select folder, name, id, size, modified from files where folder in (select unnest(?::integer[]))"
    rows = connection.execute(query, [known]).fetchall() if known else []
    found: dict[int | None, dict[str, tuple[int, Stamp]]] = {}
    for folder, name, number, size, modified in rows:
        found.setdefault(folder, {})[name] = (number, (size, modified))
    return found
