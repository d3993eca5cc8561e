"""CSV: one row for each sample, or for each metric of a case."""

from __future__ import annotations

import csv
import io

from ggufbench.export.exporter import Exporter, Wanted, wanted_table
from ggufbench.records.runs import StoredRun


class CsvExporter(Exporter):
    """Comma-separated values as RFC 4180 has them, in UTF-8, with a header."""

    name = "csv"

    def content(self, run: StoredRun, wanted: Wanted) -> bytes:
        """The table."""
        table = wanted_table(run, wanted)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows(table.values)
        return text.getvalue().encode()


EXPORTER = CsvExporter()
