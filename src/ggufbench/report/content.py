"""What a report is about: chosen once, and given to its figures and to its page alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ggufbench.history import Row
from ggufbench.records.comparison import Comparison
from ggufbench.records.runs import StoredRun
from ggufbench.records.schema import Record


@dataclass(frozen=True, slots=True)
class Content:
    """The documents that a report shows."""

    records: Sequence[Record]
    """Of one case the newest only."""
    comparisons: Sequence[Comparison] = ()
    runs: Sequence[str] = ()
    """Names of the runs that these come from."""
    history: Sequence[Row] = ()
    """Series with all their sessions, of cases that the report shows."""
    against: StoredRun | None = None
    """An earlier run to compare with."""
    problems: Sequence[str] = field(default_factory=list)
    """Sentences about files that could not be read."""
