"""The picture that opens the page: one model with llama.cpp and with transformers, as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ggufbench.analysis.baselines import Versus
from ggufbench.metrics import METRICS
from ggufbench.records.schema import Record
from ggufbench.report.content import Content
from ggufbench.report.figures.captions import compared, failure, gain
from ggufbench.report.figures.cases import CaseFacts
from ggufbench.report.figures.versus import featured, median_of
from ggufbench.report.page.results import BarCell, bar_cell, largest_of, shortened, shown_columns
from ggufbench.report.text.phrases import TIMES
from ggufbench.text import times


@dataclass(frozen=True, slots=True)
class PictureBar:
    """One bar: llama.cpp itself, or a transformers baseline."""

    name: str
    is_baseline: bool
    cell: BarCell
    outcome: str
    """Outcome of the baseline, if it has no value."""
    factor: str
    """llama.cpp relative to this baseline: `3.8x as fast`."""


@dataclass(frozen=True, slots=True)
class PicturePanel:
    """One metric with its bars."""

    label: str
    bars: Sequence[PictureBar]


@dataclass(frozen=True, slots=True)
class Picture:
    """One panel for each metric."""

    title: str
    panels: Sequence[PicturePanel]


def picture_of(content: Content) -> Picture | None:
    """The comparison with the most baselines; None if no baseline was measured."""
    pairs = featured(CaseFacts(content))
    if not pairs:
        return None
    model = pairs[0].record.model
    return Picture(
        f"{shortened(f'{model.name}-{model.quantization}')}: llama.cpp and transformers",
        [_panel(pairs, metric) for metric in shown_columns([pairs[0].record])],
    )


def _panel(pairs: Sequence[Versus], metric: str) -> PicturePanel:
    record = pairs[0].record
    largest = largest_of([median_of(one, metric) for one in (record, *(pair.baseline for pair in pairs))])
    bars = [
        _bar(pair.baseline, metric, largest, pair.baseline.scenario, _factor(pair, metric)) for pair in pairs
    ]
    return PicturePanel(
        METRICS[metric].label, [_bar(record, metric, largest, f"llama.cpp {record.scenario}", ""), *bars]
    )


def _bar(record: Record, metric: str, largest: float | None, name: str, factor: str) -> PictureBar:
    value = median_of(record, metric)
    outcome = "" if value is not None else failure(record) or "not measured"
    return PictureBar(name, record.is_baseline, bar_cell(metric, value, largest), outcome, factor)


def _factor(pair: Versus, metric: str) -> str:
    found = gain(pair, metric)
    what = compared(metric).removesuffix(" as").removesuffix(" of")
    return "" if found is None else f"{times(found)}{TIMES} {what}"
