"""An index over the stored documents, which answers queries about all of them quickly.

It is a DuckDB file beside the runs, `results/.index.duckdb`, with data from the documents only: it may be
deleted at any time, and a missing, damaged, foreign or outdated one is made again. Code that writes documents
does not use it. If it cannot be written beside the runs, it is kept in the user's cache folder or in memory.

Two rules keep a file of unknown origin from doing harm. The database may not access other files or the
network, and a file is accepted as an index only if its tables are exactly the ones defined here, with no
other definitions: a view could read files, and a macro could replace a function.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ggufbench.history.scan import find_changes
from ggufbench.history.writer import TABLES, apply
from ggufbench.metrics import METRICS
from ggufbench.records.store import StoreError
from ggufbench.worker.job import Setting, Workload

if TYPE_CHECKING:
    import duckdb

INDEX_NAME = ".index.duckdb"

_VERSION = 3
_WAIT_SECONDS = 20.0
"""Timeout for another process that has the index open for writing."""

_SAFE = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "temp_directory": "",
}

_T = TypeVar("_T")
Progress = Callable[[int, int], None]


def ask(
    results: Path,
    question: Callable[[duckdb.DuckDBPyConnection], _T],
    *,
    rebuild: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> _T:
    """Answer a query from an index that is up to date with the documents under `results`.

    `progress` is called with the number of new files read and their total. Raises StoreError if there is
    no such folder.
    """
    import duckdb

    if not results.is_dir():
        raise StoreError(f"{results} is not a folder; give the one that contains the runs with --results")
    for path in _places(results):
        if rebuild:
            _remove(path)
        # The second attempt is for a file that was found to be damaged only when it was read.
        for _attempt in range(2):
            try:
                with _up_to_date(path, results, progress) as connection:
                    return question(connection)
            except _UnusableError:
                break
            except (_ForeignError, duckdb.Error):
                _remove(path)
    with duckdb.connect(config=dict(_SAFE)) as connection:
        _create(connection)
        apply(connection, find_changes(connection, results), progress)
        return question(connection)


class _UnusableError(Exception):
    """No index is possible at this place."""


class _ForeignError(Exception):
    """The file there is not an index of this version."""


def _places(results: Path) -> Iterator[Path]:
    """Places of the index: beside the documents, or in the user's cache folder if that is read-only."""
    from ggufbench.paths import cache_folder

    yield results / INDEX_NAME
    name = hashlib.sha256(os.fsencode(results.resolve())).hexdigest()[:16]
    folder = cache_folder() / "indexes"
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        yield folder / f"{name}.duckdb"


@contextmanager
def _up_to_date(path: Path, results: Path, progress: Progress) -> Iterator[duckdb.DuckDBPyConnection]:
    """The index at that place, opened for writing only if there is something to write.

    Any number of processes may read it at once; a writer is alone. Raises _UnusableError, _ForeignError
    and duckdb.Error.
    """
    if _is_there(path):
        with _opened(path, read_only=True) as connection:
            _check(connection)
            if not find_changes(connection, results):
                yield connection
                return
    with _opened(path, read_only=False) as connection:
        if not _definitions(connection):
            _create(connection)
        _check(connection)
        apply(connection, find_changes(connection, results), progress)
        yield connection


@contextmanager
def _opened(path: Path, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    """Wait for another process that writes it. Raises _UnusableError and duckdb.Error."""
    import duckdb

    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            connection = duckdb.connect(path, read_only=read_only, config=dict(_SAFE))
            break
        except duckdb.Error as error:
            if not _is_in_use(error):
                raise
            if time.monotonic() > deadline:
                raise _UnusableError from None
            time.sleep(0.05)
    with connection:
        yield connection


def _is_in_use(error: Exception) -> bool:
    """True if another process or thread has it open; DuckDB reports that only as text.

    If the text changes, the file counts as damaged, and a new one is made beside the one in use.
    """
    return "lock on file" in str(error) or "different configuration" in str(error)


def _is_there(path: Path) -> bool:
    """True if there is a file. Raises _UnusableError for a pipe, which DuckDB might wait for."""
    found = False
    for one in (path, _log_of(path)):
        try:
            status = one.stat()
        except OSError:
            if one.is_symlink():
                raise _UnusableError from None
            continue
        if not stat.S_ISREG(status.st_mode):
            raise _UnusableError
        found = found or one == path
    return found


def _remove(path: Path) -> None:
    for one in (path, _log_of(path)):
        with suppress(OSError):
            one.unlink()


def _log_of(path: Path) -> Path:
    """Path where DuckDB keeps changes that are not yet merged."""
    return path.with_name(f"{path.name}.wal")


def _create(connection: duckdb.DuckDBPyConnection) -> None:
    connection.begin()
    connection.execute(TABLES)
    connection.execute("insert into version values (?)", [_stamp()])
    connection.commit()


def _check(connection: duckdb.DuckDBPyConnection) -> None:
    """Check a database. Raises _ForeignError unless it has exactly the definitions of this module."""
    import duckdb

    with duckdb.connect(config=dict(_SAFE)) as reference:
        reference.execute(TABLES)
        wanted = _definitions(reference)
    if _definitions(connection) != wanted:
        raise _ForeignError
    if connection.execute("select stamp from version limit 2").fetchall() != [(_stamp(),)]:
        raise _ForeignError


def _definitions(connection: duckdb.DuckDBPyConnection) -> set[tuple[str, ...]]:
    """All definitions in a database."""
    return set(
        connection.execute(
            "select 'table', table_name, sql from duckdb_tables() union all "
            "select 'view', view_name, sql from duckdb_views() where not internal union all "
            "select 'function', function_name, '' from duckdb_functions() where not internal"
        ).fetchall()
    )


def _stamp() -> str:
    """Hash of everything that determines the content of the index."""
    names = [field.name for kind in (Setting, Workload) for field in fields(kind)]
    return hashlib.sha256(repr((_VERSION, names, list(METRICS))).encode()).hexdigest()
