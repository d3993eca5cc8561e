"""github-action-benchmark: the values for its tools `customBiggerIsBetter` and `customSmallerIsBetter`."""

from __future__ import annotations

from ggufbench.errors import GgufbenchError
from ggufbench.export.exporter import SummaryExporter, Wanted, json_text
from ggufbench.metrics import METRICS
from ggufbench.records.runs import StoredRun
from ggufbench.records.tables import build_of
from ggufbench.text import escaped


class GithubActionBenchmarkExporter(SummaryExporter):
    """Medians, with the range of the samples; one file has one direction."""

    name = "github-action-benchmark"
    usual = ("prompt_tokens_per_second", "encode_tokens_per_second", "decode_tokens_per_second")

    def content(self, run: StoredRun, wanted: Wanted) -> bytes:
        """The list. Raises GgufbenchError for metrics of both directions."""
        by_direction = {METRICS[name].better: name for name in wanted.metrics}
        if len(by_direction) > 1:
            higher, lower = by_direction["higher"], by_direction["lower"]
            raise GgufbenchError(
                f"--metric: of {higher} more is better, of {lower} less, and a file for "
                "github-action-benchmark has one direction; export each to a file of its own"
            )
        return json_text(
            [
                {
                    "name": f"{escaped(record.case_id)} {metric.name}",
                    "unit": metric.unit,
                    "value": summary.median,
                    "range": f"{summary.minimum:.6g} to {summary.maximum:.6g}",
                    "extra": f"median of {summary.samples} samples; {build_of(record)}",
                }
                for record, metric, summary in self.summaries(run, wanted)
            ]
        )


EXPORTER = GithubActionBenchmarkExporter()
