"""CSV: one row for each sample, or for each metric of a case."""

from __future__ import annotations

import csv
import io

from ggufbench.export.exporter import Exporter, Wanted, wanted_table
from ggufbench.records.runs import StoredRun
from ggufbench.records.tables import Cell

_FORMULA = ("=", "+", "-", "@")
"""Beginnings of a text that a spreadsheet computes; the name of a file may have one."""


class CsvExporter(Exporter):
    """Comma-separated values as RFC 4180 has them, in UTF-8, with a header."""

    name = "csv"

    def content(self, run: StoredRun, wanted: Wanted) -> bytes:
        """The table."""
        table = wanted_table(run, wanted)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows([_neutral(cell) for cell in row] for row in table.values)
        return text.getvalue().encode()


def _neutral(cell: Cell) -> Cell:
    """A text that would be a formula gets an apostrophe before it, so that spreadsheets show it as text."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


EXPORTER = CsvExporter()
