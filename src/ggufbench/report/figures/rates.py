"""Prompt, encode and decode rates as bars, with the spread of their samples and their physical bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ggufbench.metrics import METRICS
from ggufbench.records.schema import Record
from ggufbench.report.figures.captions import beside, failure, sentences, summary
from ggufbench.report.figures.cases import CaseFacts, FigureRow
from ggufbench.report.figures.rows import RowFigure, Words
from ggufbench.report.figures.sketch import Sketch
from ggufbench.report.figures.style import BLUE, INK, PAPER, VERMILLION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["prompt", "encode", "decode"]

_TITLES: dict[Kind, str] = {"prompt": "Prompt rate", "encode": "Encode rate", "decode": "Decode rate"}
_BOUNDS: dict[Kind, str] = {
    "prompt": "the arithmetic speed of the processor",
    "encode": "the arithmetic speed of the processor",
    "decode": "the speed of reading the weights from memory",
}


def rates(facts: CaseFacts, kind: Kind) -> Sketch | None:
    """Build the figure of a rate; None if no case has this rate."""
    metric = f"{kind}_tokens_per_second"
    chosen = facts.choose(lambda record: metric in record.summary)
    measured = [row for row in chosen.rows if metric in row.record.summary]
    if not measured:
        return None

    def draw(title: str | None) -> Figure:
        note = "Tokens per second; more is better."
        if any(beside(row.versus, metric) for row in chosen.rows):
            note += " 3.2x bf16 means 3.2 times as fast as transformers-bf16."
        figure = RowFigure(chosen, title, note)
        for placed in figure.placed:
            _bar(figure, placed.row, placed.y, metric)
        figure.write(lambda row: _words(row, kind, metric))
        figure.axes.set_xlabel("tokens per second (median of the valid samples)")
        _legend(figure, [placed.row for placed in figure.placed], kind)
        return figure.canvas.figure

    caption = sentences(
        f"{summary(facts.pairs, metric)} Whiskers show the slowest and the fastest "
        f"valid sample. The mark is the physical bound, given by {_BOUNDS[kind]}.{chosen.note}"
    )
    return Sketch(f"rate-{kind}", _TITLES[kind], caption, _description(chosen.rows, kind, metric), draw)


def _bar(figure: RowFigure, row: FigureRow, y: float, metric: str) -> None:
    found = row.record.summary.get(metric)
    if found is None:
        figure.axes.plot([0], [y], marker="x", color=VERMILLION.light, clip_on=False, markersize=6)
        return
    color = VERMILLION if row.is_baseline else BLUE
    figure.axes.barh(
        y, found.median, figure.bar, color=color.light, edgecolor=PAPER.light, linewidth=0,
        hatch="////" if row.is_baseline else None,
    )  # fmt: skip
    if found.maximum > found.minimum:
        figure.axes.errorbar(
            found.median, y, xerr=[[found.median - found.minimum], [found.maximum - found.median]],
            ecolor=INK.light, elinewidth=1.1, capsize=2.5, capthick=1.1, fmt="none", color=INK.light,
        )  # fmt: skip
    bound = _bound(row.record, metric)
    if bound is not None:
        figure.axes.plot([bound], [y], marker="D", markersize=5, color=INK.light, markeredgewidth=0)


def _bound(record: Record, metric: str) -> float | None:
    return next((limit.bound for limit in record.limits if limit.metric == metric), None)


def _words(row: FigureRow, kind: Kind, metric: str) -> Words:
    found, ended = row.record.summary.get(metric), failure(row.record)
    if found is None:
        return Words(ended or "not measured", 0.0, VERMILLION.light, "italic")
    bound = _bound(row.record, metric)
    said = METRICS[metric].amount(found.median)
    if bound:
        said += f" ({100 * found.median / bound:.0f} %)"
    ratios = beside(row.versus, metric)
    parts = [said, ratios, ended or ""]
    return Words(
        " · ".join(part for part in parts if part),
        max(found.maximum, bound or 0.0),
        bar=found.maximum,
        before=bound or 0.0,
    )


def _legend(figure: RowFigure, rows: list[FigureRow], kind: Kind) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    metric = f"{kind}_tokens_per_second"
    handles: list[object] = [Patch(color=BLUE.light, linewidth=0)]
    labels = ["llama.cpp"]
    if any(row.is_baseline for row in rows):
        handles.append(Patch(facecolor=VERMILLION.light, edgecolor=PAPER.light, hatch="////", linewidth=0))
        labels.append("transformers")
    handles.append(Line2D([], [], color=INK.light, linewidth=1.1, marker="|", markersize=6))
    labels.append("slowest to fastest sample")
    if any(_bound(row.record, metric) for row in rows):
        handles.append(Line2D([], [], color=INK.light, linewidth=0, marker="D", markersize=5))
        labels.append("physical bound (in brackets: percentage reached)")
    if any(metric not in row.record.summary for row in rows):
        handles.append(Line2D([], [], color=VERMILLION.light, linewidth=0, marker="x", markersize=6))
        labels.append("no value, with the reason")
    figure.canvas.legend(handles, labels)


def _description(rows: list[FigureRow], kind: Kind, metric: str) -> str:
    said = []
    for row in rows:
        words = _words(row, kind, metric).words
        said.append(f"{row.title}: {words}")
    return f"{_TITLES[kind]}, in tokens per second. " + "; ".join(said) + "."
