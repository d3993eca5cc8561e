"""Tables of the quality of answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from ggufbench.analysis.quality import AnswerQuality, compared_with, quality_of
from ggufbench.analysis.wording import label
from ggufbench.records.schema import Record
from ggufbench.report.text.names import Name
from ggufbench.report.text.terminal import stack, table, text
from ggufbench.stats.clustered_mean import ClusteredMean

QUALITY_NOTE = (
    "Divergence: mean KL divergence of a token's distribution from the reference's, in nats, with its 95 % "
    "interval. Perplexity alone says little: it can improve under damage."
)


def quality_table(records: Iterable[Record]) -> RenderableType | None:
    """The scored cases against their references; None without any."""
    shown = table("Answers", "Against the reference")
    for record in records:
        quality = quality_of(record)
        if quality is not None:
            names = label(record), record.scenario
            for name, line in zip(names, lines(record, quality), strict=True):
                shown.add_row(Name(name), text(line))
    return stack(shown, Text(QUALITY_NOTE, style="dim")) if shown.rows else None


def lines(record: Record, quality: AnswerQuality) -> list[str]:
    """The figures of a case, and what they mean."""
    figures = f"{divergence(quality.kl_divergence)} nats from {compared_with(record)}"
    before, now = f"{quality.reference_perplexity:.2f}", f"{quality.perplexity:.2f}"
    return [f"{figures}, perplexity {before} -> {now}", quality.sentence]


def domains_table(records: Iterable[Record]) -> RenderableType | None:
    """The divergence of each scored case in each kind of text; None without any."""
    shown = table("Answers by text", "Text", ">Tokens", ">Divergence", ">Other likeliest")
    for record in records:
        quality = quality_of(record)
        for domain in quality.domains if quality else ():
            shown.add_row(
                Name(record.case_id),
                text(domain.domain),
                Text(f"{domain.tokens:,}"),
                Text(divergence(domain.kl_divergence)),
                Text(f"{100 * domain.other_likeliest_share.value:.1f} %"),
            )
    return shown if shown.rows else None


def quality_document(record: Record) -> dict[str, Any] | None:
    """The quality of a case for JSON; None if it was not scored."""
    found = quality_of(record)
    if found is None:
        return None
    return {
        "kl_divergence": _interval(found.kl_divergence),
        "log_probability_change": _interval(found.log_probability_change),
        "other_likeliest_share": _interval(found.other_likeliest_share),
        "perplexity": found.perplexity,
        "reference_perplexity": found.reference_perplexity,
        "widest_gap": found.widest_gap,
        "meaning": found.sentence,
        "domains": {
            domain.domain: {
                "tokens": domain.tokens,
                "kl_divergence": _interval(domain.kl_divergence),
                "other_likeliest_share": _interval(domain.other_likeliest_share),
            }
            for domain in found.domains
        },
    }


def divergence(mean: ClusteredMean) -> str:
    """A divergence with its interval: `0.139 (0.118 to 0.165)`."""
    value = _nats(mean.value)
    if mean.low is None or mean.high is None or mean.value == 0:
        return value
    return f"{value} ({_nats(max(0.0, mean.low))} to {_nats(mean.high)})"


def _nats(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.3f}" if value >= 0.01 else f"{value:.4f}" if value >= 1e-4 else "<0.0001"


def _interval(mean: ClusteredMean) -> dict[str, float | None]:
    return {"value": mean.value, "low": mean.low, "high": mean.high}
