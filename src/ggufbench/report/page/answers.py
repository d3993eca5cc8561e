"""The table of scored cases: how far the answers are from those of the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ggufbench.analysis.quality import compared_with, quality_of
from ggufbench.analysis.wording import label
from ggufbench.records.schema import Record
from ggufbench.report.text.quality import divergence

_MOST_ROWS = 100


@dataclass(frozen=True, slots=True)
class AnswersRow:
    """One scored case."""

    number: int
    """Number of its record on the page; 0 if the page does not hold it."""
    name: str
    scenario: str
    reference: str
    divergence: str
    same: str
    """Share of tokens with the same likeliest next token."""
    perplexity: str
    sentence: str


def answers_rows(records: Sequence[Record], numbers: Mapping[int, int]) -> list[AnswersRow]:
    """The scored cases, the closest to its reference first.

    `numbers` has the number of each record that the page holds, by its id().
    """
    found = [(record, quality) for record in records if (quality := quality_of(record))]
    found.sort(key=lambda one: one[1].kl_divergence.value)
    return [
        AnswersRow(
            number=numbers.get(id(record), 0),
            name=label(record),
            scenario=record.scenario,
            reference=compared_with(record),
            divergence=divergence(quality.kl_divergence),
            same=f"{100 * (1 - quality.other_likeliest_share.value):.1f} %",
            perplexity=f"{quality.perplexity:.2f} ({quality.reference_perplexity:.2f})",
            sentence=quality.sentence,
        )
        for record, quality in found[:_MOST_ROWS]
    ]
