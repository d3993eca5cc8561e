"""llama-bench's JSON Lines, as `llama-bench -o jsonl` writes them."""

from __future__ import annotations

import json

from ggufbench.export.exporter import Wanted
from ggufbench.export.llama_bench_rows import LlamaBenchExporter
from ggufbench.records.runs import StoredRun


class LlamaBenchJsonlExporter(LlamaBenchExporter):
    """One line for each test, with fields of its own after those of llama-bench."""

    name = "llama-bench-jsonl"

    def content(self, run: StoredRun, wanted: Wanted) -> bytes:
        """The lines."""
        return "".join(json.dumps(row) + "\n" for row in self.rows(run)).encode()


EXPORTER = LlamaBenchJsonlExporter()
