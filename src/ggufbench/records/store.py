"""Where records lie: one folder for each run, one file for each case, written once and never again."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from ggufbench.records.schema import Record


class StoreError(Exception):
    """A record could not be written or read; the message names the file and the remedy."""


def new_run_id(now: datetime | None = None) -> str:
    """A name for a run that sorts by time: `20260102T030405Z-1f2e`."""
    moment = now or datetime.now(UTC)
    return f"{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def file_name(case_id: str) -> str:
    """A file name for a case, safe on every file system; the id itself stands in the record."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", case_id).lstrip(".")[:150] + ".json"


def write_record(folder: Path, record: Record) -> Path:
    """Write the record under `folder/run_id/` in one step, and return its path. Raises StoreError.

    The content is complete on the disk before the name appears, and a name that is taken is never replaced.
    """
    path = folder / record.run_id / file_name(record.case_id)
    text = record.model_dump_json(indent=1) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_once(path, text)
    except FileExistsError:
        raise StoreError(f"{path} exists; a record is never rewritten") from None
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror}; free some space or give --results"
        ) from None
    return path


def read_record(path: Path) -> Record:
    """Read one record. Raises StoreError for anything that is not one."""
    try:
        return Record.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    except (ValidationError, RecursionError) as error:
        first = error.errors(include_url=False)[0] if isinstance(error, ValidationError) else None
        detail = (
            f"{'.'.join(map(str, first['loc'])) or 'document'}: {first['msg']}"
            if first
            else "nested too deeply"
        )
        raise StoreError(f"{path} is not a record of this version of ggufbench: {detail}") from None


def read_records(folder: Path) -> Iterator[Record | StoreError]:
    """Every record under the folder, oldest run first; what is not a record comes as the error it is."""
    for path in sorted(folder.glob("*/*.json")):
        try:
            yield read_record(path)
        except StoreError as error:
            yield error


def _write_once(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".partial")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _publish(Path(name), path)
    finally:
        Path(name).unlink(missing_ok=True)


def _publish(partial: Path, path: Path) -> None:
    """Give the finished file its name; unlike a rename, a link fails where the name is taken."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(path) from None
        partial.rename(path)
