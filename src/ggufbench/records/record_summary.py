"""Records without their logs and counters, which are most of a record, for pages over thousands of cases."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from ggufbench.machine.parts import Conditions
from ggufbench.records.schema import Launch, Record, Sample
from ggufbench.values import Amount


def _emptied(value: Any) -> Any:
    return type(value)()


_Emptied = AfterValidator(_emptied)
"""The value is validated as in a whole record, so that both accept the same files, and then dropped."""


class BriefSample(Sample):
    """A sample without the kernel's counters."""

    evidence: Annotated[dict[str, Amount], _Emptied] = Field(default_factory=dict)


class BriefLaunch(Launch):
    """A launch without the messages of the libraries and the conditions of the machine."""

    samples: list[BriefSample] = Field(default_factory=list)  # type: ignore[assignment]  # only read
    conditions: Annotated[list[Conditions], _Emptied] = Field(default_factory=list)
    log: Annotated[list[str], _Emptied] = Field(default_factory=list)
    stderr: Annotated[str, _Emptied] = ""


class BriefRecord(Record):
    """A record with such launches; all other fields are as strict."""

    launches: list[BriefLaunch]  # type: ignore[assignment]  # only read, so that the narrower type is safe


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
