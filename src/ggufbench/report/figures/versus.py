"""Comparison of one model in llama.cpp and in transformers: load, memory, prompt and decode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufbench.analysis.baselines import Versus
from ggufbench.metrics import METRICS
from ggufbench.records.schema import Record
from ggufbench.report.figures.captions import baseline_name, compared, failure, gain, plain
from ggufbench.report.figures.cases import CaseFacts
from ggufbench.report.figures.sketch import Sketch
from ggufbench.report.figures.style import BLUE, INK, PAPER, VERMILLION, WIDTH, Canvas, fit
from ggufbench.text import times

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = ("ready_seconds", "peak_rss_bytes", "prompt_tokens_per_second", "decode_tokens_per_second")
_NAMES, _BARS, _SAID = 1.75, 4.6, 3.55
"""Inches for the names of the bars, for the bars with their values, and for the ratios."""
_BAR, _HEAD, _GAP = 0.25, 0.24, 0.14


@dataclass(frozen=True, slots=True)
class _Bar:
    record: Record
    name: str
    versus: Versus | None
    """None for llama.cpp itself."""


def versus(facts: CaseFacts) -> Sketch | None:
    """The featured model; None if no baseline was measured."""
    pairs = featured(facts)
    if not pairs:
        return None
    record = pairs[0].record
    bars = [_Bar(record, f"llama.cpp {plain(record.scenario)}", None)]
    bars += [_Bar(pair.baseline, plain(pair.baseline.scenario), pair) for pair in pairs]
    label = plain(f"{record.model.name}-{record.model.quantization}")
    sentences = [f"{METRICS[metric].label}: {_ratios(pairs, metric)}" for metric in _PANELS]
    return Sketch(
        "versus",
        f"{label}: llama.cpp and transformers",
        "Measured on one machine, each launch in a fresh process. Brackets contain the confidence interval "
        "of the ratio, if there are enough launches.",
        ". ".join(sentences) + ".",
        lambda title: _draw(bars, title),
    )


def featured(facts: CaseFacts) -> Sequence[Versus]:
    """The case with the most measured baselines, on the CPU if possible, then of the largest model."""
    with_ratios = [pairs for pairs in facts.versus.values() if any(pair.ratios for pair in pairs)]
    return max(with_ratios, key=_rank, default=())


def median_of(record: Record, metric: str) -> float | None:
    """Median of a metric; None if it is missing or impossible."""
    found = record.summary.get(metric)
    possible = found is not None and math.isfinite(found.median) and 0 < found.median < 1e30
    return found.median if found is not None and possible else None


def _rank(pairs: Sequence[Versus]) -> tuple[bool, int, int, str]:
    record = pairs[0].record
    measured = sum(bool(pair.ratios) for pair in pairs)
    return record.setting.device == "cpu", measured, record.model.parameters, record.model.quantization


def _ratios(pairs: Sequence[Versus], metric: str) -> str:
    said = [
        f"{times(found)}x {compared(metric)} {baseline_name(pair.baseline)}"
        for pair in pairs
        if (found := gain(pair, metric)) is not None
    ]
    return ", ".join(said) or "not measured with transformers"


def _draw(bars: Sequence[_Bar], title: str | None) -> Figure:
    panel = _HEAD + _BAR * len(bars)
    canvas = Canvas(len(_PANELS) * (panel + _GAP) + 0.1, title)
    for number, metric in enumerate(_PANELS):
        top = number * (panel + _GAP)
        canvas.text(0.15, top, METRICS[metric].label, size=9.5, weight="bold")
        axes = canvas.axes(_NAMES, top + _HEAD, _BARS, _BAR * len(bars))
        _panel(canvas, axes, bars, metric, top + _HEAD)
    return canvas.figure


def _panel(canvas: Canvas, axes: Axes, bars: Sequence[_Bar], metric: str, top: float) -> None:
    values = [median_of(bar.record, metric) for bar in bars]
    most = max((value for value in values if value is not None), default=1.0) or 1.0
    axes.set(xlim=(0, 1.38 * most), ylim=(len(bars) - 0.5, -0.5), xticks=[], yticks=[])
    axes.grid(visible=False)
    for side in ("bottom", "left"):
        axes.spines[side].set_visible(False)
    for place, (bar, value) in enumerate(zip(bars, values, strict=True)):
        middle = top + _BAR * (place + 0.5)
        canvas.text(0.15, middle, fit(bar.name, _NAMES - 0.25), va="center")
        if value is None:
            said = failure(bar.record) or "not measured"
            axes.text(
                0.01 * most, place, fit(said, _BARS), va="center", style="italic", color=VERMILLION.light
            )
            continue
        color = VERMILLION if bar.record.is_baseline else BLUE
        axes.barh(
            place, value, 0.72, color=color.light, edgecolor=PAPER.light, linewidth=0,
            hatch="////" if bar.record.is_baseline else None,
        )  # fmt: skip
        axes.text(value + 0.015 * most, place, METRICS[metric].amount(value), va="center", color=INK.light)
        canvas.text(WIDTH - _SAID, middle, _said(bar, metric), va="center")


def _said(bar: _Bar, metric: str) -> str:
    """Ratio to this baseline with its interval."""
    found = bar.versus.ratios.get(metric) if bar.versus else None
    if bar.versus is None or found is None or (value := gain(bar.versus, metric)) is None:
        return ""
    what = compared(metric).removesuffix(" as").removesuffix(" of")
    said = f"llama.cpp: {times(value)}x {what}"
    if found.low is None or found.high is None or found.level is None or found.low <= 0:
        return said
    ends = sorted((1 / found.low, 1 / found.high) if METRICS[metric].unit == "s" else (found.low, found.high))
    return f"{said} ({times(ends[0])}x to {times(ends[1])}x at {100 * found.level:.0f} %)"
