"""Time of each generated token by its position in the answer."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufbench.metrics import slope
from ggufbench.report.figures.captions import beside, sentences, summary
from ggufbench.report.figures.cases import CaseFacts, FigureRow, key_of
from ggufbench.report.figures.scatter import log_axis
from ggufbench.report.figures.sketch import Sketch
from ggufbench.report.figures.style import (
    AMBER,
    BLUE,
    GREEN,
    INK,
    MUTED,
    PURPLE,
    SKY,
    SMALL,
    VERMILLION,
    WIDTH,
    Canvas,
    Color,
    fit,
)
from ggufbench.text import seconds_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLE, _METRIC = "Time for each token", "token_p50_seconds"
_MOST = 8
"""Most cases in the figure, so that the lines stay distinguishable."""
_MOST_POSITIONS = 400
"""Most positions of a line; a longer answer is shown as medians of equal sections."""
_LOOKS: Sequence[tuple[Color, str]] = (
    (BLUE, "o"),
    (GREEN, "^"),
    (PURPLE, "D"),
    (AMBER, "v"),
    (SKY, "P"),
    (INK, "X"),
    (BLUE, "<"),
    (GREEN, ">"),
)
_BASELINE_MARKERS = "s*phHd|_"
_HEIGHT, _MARGIN = 4.6, 3.1
_SHORTEST, _LONGEST = 1e-12, 1e9
"""Limits of the seconds for a token; other values come from a damaged file."""


@dataclass(frozen=True, slots=True)
class Line:
    """One case."""

    row: FigureRow
    positions: Sequence[float]
    """Positions of the tokens in the answer, from 1."""
    seconds: Sequence[float]
    """The median over the samples at each position."""
    slope: float
    """Increase in seconds from one token to the next."""


def tokens(facts: CaseFacts) -> Sketch | None:
    """Build the figure; None if no case generated two tokens."""
    chosen = facts.choose(lambda record: _METRIC in record.summary)
    lines = list(
        itertools.islice((line for row in _spread(facts, chosen.rows) if (line := line_of(row))), _MOST)
    )
    if not lines:
        return None

    def draw(title: str | None) -> Figure:
        return _draw(lines, title)

    left_out = f" The figure shows {len(lines)} of {chosen.of:,} cases." if len(lines) < chosen.of else ""
    caption = sentences(
        f"{summary(facts.pairs, _METRIC)} Each line is the median over the samples at that "
        f"position. The label gives the increase for each token.{left_out}"
    )
    return Sketch("tokens", _TITLE, caption, _description(lines), draw)


def line_of(row: FigureRow) -> Line | None:
    """Median at each position over all valid samples; None if there are fewer than two positions."""
    samples = [
        sample.token_seconds
        for launch in row.record.launches
        for sample in launch.samples
        if sample.phase == "decode"
        and not sample.warmup
        and not sample.disturbed
        and len(sample.token_seconds) > 1
    ]
    if not samples:
        return None
    count = max(map(len, samples))
    medians = [
        statistics.median([one[place] for one in samples if place < len(one)]) for place in range(count)
    ]
    rises = slope(medians)
    size = -(-count // _MOST_POSITIONS)
    parts = [medians[start : start + size] for start in range(0, count, size)]
    positions = [
        start + (len(part) + 1) / 2 for start, part in zip(range(0, count, size), parts, strict=True)
    ]
    seconds = [statistics.median(part) for part in parts]
    if len(seconds) < 2 or min(seconds) <= _SHORTEST or max(seconds) > _LONGEST:
        return None
    return Line(row, positions, seconds, rises)


def _spread(facts: CaseFacts, rows: Sequence[FigureRow]) -> list[FigureRow]:
    """Order of the cases: those with baselines first, then one of each model before a second one."""
    wanted: list[FigureRow] = []
    by_record = {key_of(row.record): row for row in rows}
    for row in sorted(rows, key=lambda row: not row.versus):
        if row.versus and not row.is_baseline:
            keys = [key_of(versus.baseline) for versus in row.versus]
            wanted += [row, *(by_record[key] for key in keys if key in by_record)]
    seen: dict[str, int] = {}
    rest = []
    for row in rows:
        seen[row.record.model.name] = seen.get(row.record.model.name, 0) + 1
        rest.append((row.is_baseline, seen[row.record.model.name], row))
    wanted += [row for _, _, row in sorted(rest, key=lambda item: item[:2])]
    return list({key_of(row.record): row for row in wanted}.values())


def _draw(lines: Sequence[Line], title: str | None) -> Figure:
    canvas = Canvas(_HEIGHT, title)
    width = WIDTH - 0.85 - _MARGIN
    axes = canvas.axes(0.85, 0.15, width, _HEIGHT - 0.7)
    seconds = [value for line in lines for value in line.seconds]
    y = min(seconds) / 1.3, max(seconds) * 1.3
    axes.set_yscale("log")
    axes.set_ylim(*y)
    log_axis(axes.yaxis, *y, "s")
    axes.set_xlim(0.5, max(line.positions[-1] for line in lines) + 0.5)
    axes.set_xlabel("position of the token in the answer")
    axes.set_ylabel("time for the token")
    ends = _ends(axes, [line.seconds[-1] for line in lines])
    looks, markers = itertools.cycle(_LOOKS), itertools.cycle(_BASELINE_MARKERS)
    for line, end in zip(lines, ends, strict=True):
        color, marker = (VERMILLION, next(markers)) if line.row.is_baseline else next(looks)
        axes.plot(
            line.positions,
            line.seconds,
            color=color.light,
            linewidth=1.3,
            marker=marker,
            markersize=5,
            linestyle="--" if line.row.is_baseline else "-",
            markevery=max(1, len(line.positions) // 8),
        )
        axes.annotate(
            _label(line),
            (line.positions[-1], line.seconds[-1]),
            xytext=(1 + 0.28 / width, end),
            textcoords="axes fraction",
            va="center",
            ha="left",
            size=SMALL,
            color=INK.light,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": MUTED.light,
                "linewidth": 0.8,
                "linestyle": ":",
                "relpos": (0, 0.5),
                "shrinkA": 12,
                "shrinkB": 2,
            },
        )
        axes.plot(
            [1 + 0.2 / width],
            [end],
            transform=axes.transAxes,
            clip_on=False,
            marker=marker,
            markersize=6,
            color=color.light,
        )
    return canvas.figure


def _ends(axes: Axes, values: Sequence[float]) -> list[float]:
    """Heights of the labels in the axes, as near to the ends of their lines as their own height allows."""
    back = axes.transAxes.inverted()
    wanted = [float(back.transform(axes.transData.transform((1, value)))[1]) for value in values]
    step = 2.6 * SMALL / (72 * (_HEIGHT - 0.7))
    order = sorted(range(len(values)), key=lambda place: wanted[place])
    heights = [0.0] * len(values)
    below = -step / 2
    for place in order:
        below = heights[place] = max(wanted[place], below + step)
    # Labels that were pushed out at the top move down again, and with them the labels below.
    above = 1 + step / 2
    for place in reversed(order):
        above = heights[place] = min(heights[place], above - step)
    return heights


def _label(line: Line) -> str:
    return "\n".join(fit(words, _MARGIN - 0.35) for words in (line.row.title, _figures(line)))


def _figures(line: Line) -> str:
    rises = f"{'+' if line.slope >= 0 else '-'}{seconds_text(abs(line.slope))} a token"
    return ", ".join(filter(None, (rises, beside(line.row.versus, _METRIC))))


def _description(lines: Sequence[Line]) -> str:
    said = []
    for line in lines:
        ends = f"{seconds_text(line.seconds[0])} at the first, {seconds_text(line.seconds[-1])} at the last"
        said.append(f"{line.row.title}: {_figures(line)}, {ends} of {line.positions[-1]:.0f} tokens")
    return f"{_TITLE}, by its position in the answer. " + "; ".join(said) + "."
