"""Records without their logs and counters, for pages over thousands of cases: most of a record is these."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ConfigDict, Field

from ggufbench.machine.parts import Conditions
from ggufbench.records.schema import Launch, Record, Sample
from ggufbench.records.store import StoreError, read_document

# What no name of the file fills is passed over without an object made of it.
_NOWHERE = "\0"


class BriefSample(Sample):
    """A sample without what the kernel counted."""

    model_config = ConfigDict(extra="ignore")

    evidence: dict[str, float] = Field(default_factory=dict, validation_alias=_NOWHERE)


class BriefLaunch(Launch):
    """A launch without what the libraries said and what the machine did."""

    model_config = ConfigDict(extra="ignore")

    samples: list[BriefSample] = Field(default_factory=list)  # type: ignore[assignment]  # only read
    conditions: list[Conditions] = Field(default_factory=list, validation_alias=_NOWHERE)
    log: list[str] = Field(default_factory=list, validation_alias=_NOWHERE)
    stderr: str = Field(default="", validation_alias=_NOWHERE)


class BriefRecord(Record):
    """A record of such launches; everything else is as strict."""

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
    """While millions of objects are made that all stay, looking for garbage among them only takes time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # nor later: they stay until the process ends
        if was_enabled:
            gc.enable()
