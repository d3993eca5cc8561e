"""Content of a report: the documents that its figures and its page show."""

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
    """Newest record of each case."""
    comparisons: Sequence[Comparison] = ()
    runs: Sequence[str] = ()
    """Names of the runs that contain the documents."""
    history: Sequence[SeriesRow] = ()
    """Series of the cases in the report, with all their sessions."""
    against: StoredRun | None = None
    """An earlier run to compare with."""
    problems: Sequence[str] = field(default_factory=list)
    """Sentences about files that could not be read."""

    @cached_property
    def versus(self) -> list[Versus]:
        """Comparison of every llama.cpp record with every baseline of its model."""
        return compare_with_baselines(self.records)
