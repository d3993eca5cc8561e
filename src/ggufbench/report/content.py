"""What a report is about: chosen once, and given to its figures and to its page alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ggufbench.analysis.baselines import Versus, compare_with_baselines
from ggufbench.history.series import SeriesRow
from ggufbench.records.comparison import Comparison
from ggufbench.records.runs import StoredRun
from ggufbench.records.schema import Record


@dataclass(frozen=True)
class Content:
    """The documents that a report shows."""

    records: Sequence[Record]
    """Of one case the newest only."""
    comparisons: Sequence[Comparison] = ()
    runs: Sequence[str] = ()
    """Names of the runs that these come from."""
    history: Sequence[SeriesRow] = ()
    """Series with all their sessions, of cases that the report shows."""
    against: StoredRun | None = None
    """An earlier run to compare with."""
    problems: Sequence[str] = field(default_factory=list)
    """Sentences about files that could not be read."""

    @cached_property
    def versus(self) -> list[Versus]:
        """Every llama.cpp record beside every baseline of its model: found once, for figures and page."""
        return compare_with_baselines(self.records)
