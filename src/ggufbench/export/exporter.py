"""The interface of a format."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ggufbench.metrics import METRICS, Metric, Summary
from ggufbench.outcomes import Outcome
from ggufbench.records.comparison import Comparison
from ggufbench.records.imported import ImportedResult
from ggufbench.records.runs import StoredRun
from ggufbench.records.schema import Record
from ggufbench.records.tables import Table

Document = Record | Comparison | ImportedResult


@dataclass(frozen=True, slots=True)
class Wanted:
    """The part of a run that is exported."""

    metrics: Sequence[str] = ()
    """Names of metrics; empty for the usual ones of the format."""
    summaries: bool = False
    """True for one row for each metric of a case instead of each sample, where the format is a table."""


class Exporter(ABC):
    """One format."""

    name: ClassVar[str]
    is_binary: ClassVar[bool] = False
    """True if a terminal cannot show it, so that a file is needed."""
    takes_metrics: ClassVar[bool] = True
    """True if `Wanted.metrics` chooses among the metrics of the run."""

    def takes(self, document: Document) -> bool:
        """True if the format can hold this document of a run."""
        return isinstance(document, Record)

    @abstractmethod
    def content(self, run: StoredRun, wanted: Wanted) -> bytes:
        """The whole file. Raises GgufbenchError if the format cannot hold what is wanted."""


def wanted_table(run: StoredRun, wanted: Wanted) -> Table:
    """The run's table of samples, or of summaries."""
    table = run.summaries() if wanted.summaries else run.samples()
    metric = list(table.columns).index("metric")
    rows = [row for row in table.values if not wanted.metrics or row[metric] in wanted.metrics]
    return Table(table.columns, rows)


class SummaryExporter(Exporter):
    """A format with one number for each metric of a case, and no place for an outcome."""

    usual: ClassVar[Sequence[str]]
    """The metrics that are exported where none is chosen."""

    def takes(self, document: Document) -> bool:
        """True for the record of a case that was measured without interference or failure."""
        return isinstance(document, Record) and document.outcome is Outcome.MEASURED

    def summaries(self, run: StoredRun, wanted: Wanted) -> Iterator[tuple[Record, Metric, Summary]]:
        """Each summary of each exported case."""
        for record in filter(self.takes, run.records):
            for name in wanted.metrics or self.usual:
                if (summary := record.summary.get(name)) is not None:
                    yield record, METRICS[name], summary


def json_text(value: Any) -> bytes:
    """JSON for a file."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
