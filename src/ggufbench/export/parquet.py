"""Parquet: one row for each sample, or for each metric of a case."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ggufbench.export.exporter import Exporter, Wanted, wanted_table
from ggufbench.records.runs import StoredRun


class ParquetExporter(Exporter):
    """Parquet as duckdb writes it."""

    name = "parquet"
    is_binary = True

    def content(self, run: StoredRun, wanted: Wanted) -> bytes:
        """The table."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "table.parquet"
            wanted_table(run, wanted).relation().write_parquet(str(path))
            return path.read_bytes()


EXPORTER = ParquetExporter()
