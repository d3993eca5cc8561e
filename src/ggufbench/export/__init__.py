"""Stored runs in the formats of other programs: one `Exporter` for each format."""

from __future__ import annotations

from ggufbench.export import (
    bencher,
    csv_table,
    github_action_benchmark,
    llama_bench_jsonl,
    llama_bench_sql,
    markdown,
    parquet,
)
from ggufbench.export.exporter import Exporter

EXPORTERS: dict[str, Exporter] = {
    exporter.name: exporter
    for exporter in (
        csv_table.EXPORTER,
        parquet.EXPORTER,
        markdown.EXPORTER,
        llama_bench_jsonl.EXPORTER,
        llama_bench_sql.EXPORTER,
        github_action_benchmark.EXPORTER,
        bencher.EXPORTER,
    )
}
"""Every format by its name."""
