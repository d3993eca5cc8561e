"""Before and after: the change of each metric in a comparison, with its interval and tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufbench.metrics import metric_of
from ggufbench.records.comparison import Cell, Comparison, Verdict
from ggufbench.report.figures.captions import plain
from ggufbench.report.figures.sketch import Sketch
from ggufbench.report.figures.style import (
    AMBER,
    BAND,
    BLUE,
    GREEN,
    GRID,
    INK,
    MUTED,
    VERMILLION,
    WIDTH,
    Canvas,
    Color,
    fit,
)  # fmt: skip
from ggufbench.report.text.comparison import arms_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLE = "Before and after"
_MOST = 24
"""Most metrics in the figure; comparisons with the worst verdict come first."""
_ROW, _HEAD, _TOP, _BOTTOM = 0.25, 0.5, 0.35, 0.55
_LEFT, _WORDS = 1.55, 4.6
"""Inches for the names of metrics and for the text of the values."""
_WIDEST = 1e6
"""A larger tolerance comes from a damaged file."""
_FARTHEST = 3.0
"""A larger change is drawn at the edge, so that the others stay distinguishable; its text has the value."""

_LOOKS: dict[Verdict, tuple[Color, str]] = {
    Verdict.BROKEN: (VERMILLION, "x"),
    Verdict.REGRESSION: (VERMILLION, ">"),
    Verdict.MISSING: (VERMILLION, "x"),
    Verdict.INCONCLUSIVE: (AMBER, "D"),
    Verdict.NO_REGRESSION: (BLUE, "o"),
    Verdict.IMPROVEMENT: (GREEN, "<"),
}
"""Colour and marker of each verdict, the worst first."""


@dataclass(frozen=True, slots=True)
class Group:
    """One comparison with the cells that are drawn."""

    comparison: Comparison
    cells: Sequence[Cell]


def before_after(comparisons: Sequence[Comparison]) -> Sketch | None:
    """Build the figure of all comparisons with a baseline; None if there are none."""
    groups = [
        Group(one, [cell for cell in one.cells if cell.against == "baseline"])
        for one in sorted(comparisons, key=lambda one: list(_LOOKS).index(one.verdict))
    ]
    drawn: list[Group] = []
    room = _MOST
    for group in groups:
        cells = sorted(group.cells, key=lambda cell: list(_LOOKS).index(cell.verdict))[: max(room, 0)]
        if room > 0:
            drawn.append(Group(group.comparison, cells))
        room -= max(1, len(cells))
    if not drawn:
        return None

    def draw(title: str | None) -> Figure:
        return _draw(drawn, title)

    left_out = (
        f" The figure shows {len(drawn)} of {len(groups):,} comparisons, the worst first."
        if len(drawn) < len(groups)
        else ""
    )
    caption = (
        "The change from baseline to candidate with its confidence interval. For every metric, right of zero "
        f"is worse. The shaded band is the tolerance of the gate.{left_out}"
    )
    return Sketch("before-after", _TITLE, caption, _description(drawn), draw)


def _draw(groups: Sequence[Group], title: str | None) -> Figure:
    rows = sum(max(1, len(group.cells)) for group in groups)
    height = rows * _ROW + len(groups) * _HEAD
    canvas = Canvas(_TOP + height + _BOTTOM, title)
    axes = canvas.axes(_LEFT, _TOP, WIDTH - _LEFT - _WORDS, height)
    axes.set_ylim(height, 0)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    _limits(axes, [cell for group in groups for cell in group.cells])
    y = 0.0
    for group in groups:
        comparison = group.comparison
        name = fit(f"{plain(comparison.case_id)}: {comparison.verdict}", WIDTH - 0.3, weight="bold")
        canvas.text(0.15, _TOP + y + 0.08, name, weight="bold")
        canvas.text(0.15, _TOP + y + 0.25, fit(plain(arms_line(comparison)), WIDTH - 0.3), color=MUTED.light)
        y += _HEAD
        _grid(axes, y, y + _ROW * max(1, len(group.cells)))
        if not group.cells:
            reason = plain(comparison.reason or "nothing was measured")
            canvas.text(
                0.3, _TOP + y + 0.05, fit(reason, WIDTH - 0.5), color=VERMILLION.light, style="italic"
            )
            y += _ROW
        for cell in group.cells:
            _cell(canvas, axes, cell, y + _ROW / 2)
            y += _ROW
    _legend(canvas, groups)
    return canvas.figure


def _grid(axes: Axes, top: float, bottom: float) -> None:
    """Draw the grid lines of one comparison, below its heading."""
    low, high = axes.get_xlim()
    for tick in axes.get_xticks():
        if tick and low < tick < high:
            axes.plot([tick, tick], [top, bottom], color=GRID.light, linewidth=0.8, zorder=0)
    axes.plot([0, 0], [top, bottom], color=INK.light, linewidth=0.9, zorder=2)


def _limits(axes: Axes, cells: Sequence[Cell]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    found = [
        value
        for cell in cells
        for value in (cell.low, cell.high, cell.change, cell.tolerance)
        if value is not None
    ]
    found += [-cell.tolerance for cell in cells if cell.tolerance is not None]
    low, high = max(-1.0, min([-0.02, *found])), min(_FARTHEST, max([0.02, *found]))
    room = 0.06 * (high - low)
    axes.set_xlim(low - room, high + room)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.3g} %" if value else "0"))
    axes.set_xlabel("change (right is worse)")


def _cell(canvas: Canvas, axes: Axes, cell: Cell, y: float) -> None:
    color, marker = _LOOKS[cell.verdict]
    canvas.text(0.3, _TOP + y, fit(metric_of(cell.metric).short_label, _LEFT - 0.45), va="center")
    if cell.tolerance is not None and cell.tolerance < _WIDEST:
        axes.barh(
            y, 2 * cell.tolerance, _ROW * 0.9, left=-cell.tolerance, color=BAND.light, linewidth=0, zorder=1
        )
    low, high = axes.get_xlim()
    if cell.change is not None:
        ends = [min(max(end, low), high) for end in (cell.low, cell.high) if end is not None]
        if len(ends) == 2:
            axes.plot(ends, [y, y], color=color.light, linewidth=2, marker="|", markersize=7, zorder=3)
        axes.plot(
            [min(max(cell.change, low), high)],
            [y],
            color=color.light,
            marker=marker,
            markersize=6.5,
            zorder=4,
        )
    canvas.text(WIDTH - _WORDS + 0.15, _TOP + y, fit(_words(cell), _WORDS - 0.25), va="center")


def _words(cell: Cell) -> str:
    """`19.1 t/s → 17.6 t/s, +8.1 % (+7.7 to +8.4), 5 % tolerated: regression`."""
    if cell.change is None:
        return f"{cell.verdict}: {plain(cell.reason or 'nothing was measured')}"
    said = f"{100 * cell.change:+.1f} %"
    if cell.low is not None and cell.high is not None:
        said += f" ({100 * cell.low:+.1f} to {100 * cell.high:+.1f})"
    if cell.reference_median is not None and cell.candidate_median is not None:
        show = metric_of(cell.metric).amount
        said = f"{show(cell.reference_median)} → {show(cell.candidate_median)}, {said}"
    return f"{said}: {cell.verdict}"


def _legend(canvas: Canvas, groups: Sequence[Group]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    seen = {cell.verdict for group in groups for cell in group.cells if cell.change is not None}
    handles: list[object] = []
    labels = []
    for verdict, (color, marker) in _LOOKS.items():
        if verdict in seen:
            handles.append(Line2D([], [], color=color.light, marker=marker, markersize=6.5, linewidth=2))
            labels.append(str(verdict))
    if any(cell.tolerance is not None for group in groups for cell in group.cells):
        handles.append(Patch(color=BAND.light, linewidth=0))
        labels.append("tolerance")
    if handles:
        canvas.legend(handles, labels)


def _description(groups: Sequence[Group]) -> str:
    said = []
    for group in groups:
        cells = "; ".join(f"{metric_of(cell.metric).short_label} {_words(cell)}" for cell in group.cells)
        found = cells or plain(group.comparison.reason or "nothing was measured")
        said.append(f"{plain(group.comparison.case_id)} ({plain(arms_line(group.comparison))}): {found}")
    return f"{_TITLE}. " + ". ".join(said) + "."
