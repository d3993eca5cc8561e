"""Bencher: the JSON of its adapter `json` (Bencher Metric Format)."""

from __future__ import annotations

from ggufbench.export.exporter import SummaryExporter, Wanted, json_text
from ggufbench.records.runs import StoredRun
from ggufbench.text import escaped


class BencherExporter(SummaryExporter):
    """Case to metric to its median, with the lowest and the highest sample."""

    name = "bencher"
    usual = (
        "ready_seconds",
        "cold_ready_seconds",
        "prompt_tokens_per_second",
        "encode_tokens_per_second",
        "decode_tokens_per_second",
        "peak_rss_bytes",
    )

    def content(self, run: StoredRun, wanted: Wanted) -> bytes:
        """The object."""
        cases: dict[str, dict[str, dict[str, float]]] = {}
        for record, metric, summary in self.summaries(run, wanted):
            cases.setdefault(escaped(record.case_id), {})[metric.name] = {
                "value": summary.median,
                "lower_value": summary.minimum,
                "upper_value": summary.maximum,
            }
        return json_text(cases)


EXPORTER = BencherExporter()
