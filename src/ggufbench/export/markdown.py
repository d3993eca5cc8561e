"""Markdown: one line for each case, to paste into a page or an issue."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from ggufbench.export.exporter import Exporter, Wanted
from ggufbench.metrics import METRICS
from ggufbench.records.runs import StoredRun
from ggufbench.records.samples import rates_of
from ggufbench.records.schema import Record
from ggufbench.text import printable

_SPECIAL = re.compile(r"([\\`*_\[\]|~])")


class MarkdownExporter(Exporter):
    """A table of medians in GitHub's Markdown."""

    name = "markdown"

    def content(self, run: StoredRun, wanted: Wanted) -> bytes:
        """The table, and the run and the machine above it."""
        rates = [f"{name}_tokens_per_second" for name in rates_of(run.records)]
        scored = ["kl_divergence"] if any(record.reference for record in run.records) else []
        names = wanted.metrics or ["ready_seconds", "peak_rss_bytes", *rates, *scored]
        heads = ["Case", *(METRICS[name].label for name in names), "Outcome"]
        lines = [
            f"Run {cell(run.name)}, medians over all launches.",
            "",
            f"| {' | '.join(heads)} |",
            f"| --- |{' ---: |' * len(names)} --- |",
            *(f"| {' | '.join(_cells(record, names))} |" for record in run.records),
        ]
        return ("\n".join(lines) + "\n").encode()


def cell(text: str) -> str:
    """Text that no Markdown or HTML in it can change: on one line, with every special character escaped."""
    return _SPECIAL.sub(r"\\\1", html.escape(printable(text), quote=False))


def _cells(record: Record, names: Sequence[str]) -> list[str]:
    amounts = [
        METRICS[name].amount(record.summary[name].median) if name in record.summary else "" for name in names
    ]
    return [cell(record.case_id), *amounts, record.outcome.value]


EXPORTER = MarkdownExporter()
