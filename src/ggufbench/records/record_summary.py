"""Records without their logs and counters, which are most of a record, for pages over thousands of cases."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ConfigDict, Field

from ggufbench.machine.parts import Conditions
from ggufbench.records.schema import Launch, Record, Sample
from ggufbench.records.store import StoreError, read_document

# An alias that no file contains: the field is skipped and no object is created for it.
_UNUSED_ALIAS = "\0"


class BriefSample(Sample):
    """A sample without the kernel's counters."""

    model_config = ConfigDict(extra="ignore")

    evidence: dict[str, float] = Field(default_factory=dict, validation_alias=_UNUSED_ALIAS)


class BriefLaunch(Launch):
    """A launch without the messages of the libraries and the conditions of the machine."""

    model_config = ConfigDict(extra="ignore")

    samples: list[BriefSample] = Field(default_factory=list)  # type: ignore[assignment]  # only read
    conditions: list[Conditions] = Field(default_factory=list, validation_alias=_UNUSED_ALIAS)
    log: list[str] = Field(default_factory=list, validation_alias=_UNUSED_ALIAS)
    stderr: str = Field(default="", validation_alias=_UNUSED_ALIAS)


class BriefRecord(Record):
    """A record with such launches; all other fields are as strict."""

    launches: list[BriefLaunch]  # type: ignore[assignment]  # only read, so that the narrower type is safe


def read_brief_folder(run: Path) -> Iterator[Record | StoreError]:
    """Every record of one run, without logs and counters."""
    for path in sorted(run.glob("*.json")):
        try:
            yield read_document(path, BriefRecord)
        except StoreError as error:
            yield error


@contextmanager
def many_objects() -> Iterator[None]:
    """Disable garbage collection, which only slows down the creation of millions of permanent objects."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # they stay until the process ends
        if was_enabled:
            gc.enable()
