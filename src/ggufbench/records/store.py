"""Stored records: one folder for each run, one file for each case, written once and never changed."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from ggufbench.errors import GgufbenchError
from ggufbench.machine.parts import Machine
from ggufbench.paths import atomic_write, read_regular, temporary_file
from ggufbench.records.schema import Record
from ggufbench.text import printable
from ggufbench.values import first_complaint

_Document = TypeVar("_Document", bound=BaseModel)


class _OfCase(Protocol):
    @property
    def run_id(self) -> str: ...

    @property
    def case_id(self) -> str: ...

    @property
    def machine(self) -> Machine: ...


_Case = TypeVar("_Case", bound=_OfCase)

_SAFE_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,149}")
RUN_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]+")
"""Names from `new_run_id`."""
IMPORT_PREFIX = "import-"
"""Begins the name of a run with results of another program."""

_PROBE_BYTES = 64 * 2**10
"""A record of one case with few samples; a full disk may still accept an empty file."""

MOST_BYTES = 64 * 2**20
"""Maximum size of a document; real ones have 0.2 MB, and 5 MB with ten thousand tokens in each sample."""


class StoreError(GgufbenchError):
    """A record could not be written or read; the message names the file and the fix."""


def new_run_id(now: datetime | None = None) -> str:
    """A name for a run that sorts by time: `20260102T030405Z-1f2e`."""
    moment = now or datetime.now(UTC)
    return f"{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def file_name(case_id: str) -> str:
    """A file name for a case, safe on every file system and unique to its id, which the record contains.

    A changed name ends with `~`, which no safe name contains, and a part of the id's hash.
    """
    if _SAFE_NAME.fullmatch(case_id):
        return f"{case_id}.json"
    readable = re.sub(r"[^A-Za-z0-9._+-]+", "_", case_id).lstrip(".")[:120]
    digest = hashlib.sha256(case_id.encode("utf-8", errors="surrogatepass")).hexdigest()[:16]
    return f"{readable}~{digest}.json"


def write_record(folder: Path, record: Record) -> Path:
    """Write the record under `folder/run_id/` in one step, and return its path. Raises StoreError.

    The content is complete on the disk before the name appears, and an existing file is never replaced.
    """
    return write_document(run_folder(folder, record.run_id) / file_name(record.case_id), record)


def run_folder(results: Path, run_id: str) -> Path:
    """The folder of a run's documents. Raises StoreError for a name that could lead out of `results`."""
    if not _SAFE_NAME.fullmatch(run_id):
        raise StoreError(f"{run_id!r} is not a valid run name; use one from new_run_id()")
    return results / run_id


def check_writable(results: Path) -> None:
    """Write and remove a file, because a run whose results cannot be stored should not begin.

    Raises StoreError.
    """
    try:
        existing = next(folder for folder in (results, *results.absolute().parents) if folder.exists())
        with temporary_file(existing / "check") as probe:
            probe.write_bytes(bytes(_PROBE_BYTES))
    except OSError as error:
        raise StoreError(_unwritable(results, error)) from None


def _unwritable(path: Path, error: OSError) -> str:
    return f"{printable(str(path))} cannot be written: {error.strerror}; free some space or give --results"


def write_document(path: Path, document: BaseModel) -> Path:
    """Write a document once, under a name that is not taken, and return the path. Raises StoreError."""
    try:
        text = document.model_dump_json(indent=1) + "\n"
        with atomic_write(path, overwrite=False) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except FileExistsError:
        raise StoreError(f"{path} exists; a record is never rewritten") from None
    except PydanticSerializationError as error:
        raise StoreError(f"{path} cannot be written: it cannot be stored as JSON ({error})") from None
    except OSError as error:
        raise StoreError(_unwritable(path, error)) from None
    return path


def read_record(path: Path) -> Record:
    """Read one record. Raises StoreError for any other file."""
    return read_document(path, Record)


def read_document(path: Path, kind: type[_Document]) -> _Document:
    """Read one document. Raises StoreError for any file that is not a document of that kind.

    All commands read with this function, so that each accepts the same files. Numbers must be numbers, not
    their texts.
    """
    try:
        return kind.model_validate_json(read_regular(path, MOST_BYTES), strict=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    except (ValidationError, RecursionError) as error:
        detail = first_complaint(error) if isinstance(error, ValidationError) else "nested too deeply"
        name = kind.__name__.lower()
        raise StoreError(f"{path} is not a {name} of this version of ggufbench: {detail}") from None


def read_records(folder: Path, newest: int | None = None) -> Iterator[Record | StoreError]:
    """Every record under the folder, oldest run first; any other file is returned as its error.

    With `newest`, only the records of that many runs, by the names of their folders.
    """
    runs = run_folders(folder)
    for run in runs[-newest:] if newest else runs:
        yield from read_folder(run)


def run_folders(folder: Path) -> list[Path]:
    """The folders of runs, the newest last: names from `new_run_id` sort by time, after all other names.

    Imported results come first, so that they are never taken for the newest run.
    """

    def order(path: Path) -> tuple[bool, bool, str]:
        return not path.name.startswith(IMPORT_PREFIX), RUN_NAME.fullmatch(path.name) is not None, path.name

    return sorted((path for path in folder.glob("*") if path.is_dir()), key=order)


def read_folder(run: Path, kind: type[Record] = Record) -> Iterator[Record | StoreError]:
    """Every record of one run; any other file, and a second record of a case, is returned as its error."""
    return once(read_each(run, kind))


def read_each(folder: Path, kind: type[_Document]) -> Iterator[tuple[Path, _Document | StoreError]]:
    """Read every document in a folder."""
    for path in sorted(folder.glob("*.json")):
        try:
            yield path, read_document(path, kind)
        except StoreError as error:
            yield path, error


def once(found: Iterable[tuple[Path, _Case | StoreError]]) -> Iterator[_Case | StoreError]:
    """The documents, where a copy of an earlier one becomes an error: a case counts once in a run."""
    first: dict[tuple[str, str, str], Path] = {}
    for path, one in found:
        if not isinstance(one, StoreError):
            kept = first.setdefault((one.run_id, one.case_id, one.machine.fingerprint), path)
            if kept != path:
                yield StoreError(f"{path} has the same run and case as {kept.name}; remove one of them")
                continue
        yield one
