"""Horizontal bar figures: a row for each case, below the name of its model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ggufbench.report.figures.cases import Chosen, FigureBlock, FigureRow
from ggufbench.report.figures.style import GRID, INK, MUTED, SMALL, VERMILLION, WIDTH, Canvas, fit, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ROW, _HEADING = 0.25, 0.34
"""Inches of height."""
_MOST_LABEL = 2.7
_TOP = 0.62
"""Inches above the rows, for the legend and a line that explains the values."""
_BOTTOM = 0.55
_FULL_BAR = 0.62
"""Height of a bar relative to its row."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A row and its position."""

    row: FigureRow
    y: float
    """Middle of the row, in rows from the top."""


@dataclass(frozen=True, slots=True)
class Words:
    """Text behind a bar."""

    words: str
    behind: float
    """Value at which the text starts."""
    color: str = INK.light
    style: Literal["normal", "italic"] = "normal"
    bar: float = 0.0
    """End of the bar, if a mark is farther out."""
    before: float = 0.0
    """Position of that mark; a text that fits is placed between bar and mark."""


class RowFigure:
    """Axes with labelled rows, to which the caller adds its bars."""

    def __init__(self, chosen: Chosen, title: str | None, note: str) -> None:
        self.placed, headings, total = _place(chosen.blocks)
        height = total * _ROW
        self.canvas = Canvas(_TOP + height + _BOTTOM, title)
        left = min(_MOST_LABEL, max(map(_label_width, chosen.blocks), default=1.0)) + 0.35
        self.width = WIDTH - left - 0.2
        self.axes: Axes = self.canvas.axes(left, _TOP, self.width, height)
        self.axes.set_ylim(total, 0)
        self.axes.grid(visible=False, axis="y")
        self.axes.spines["left"].set_visible(False)
        self.axes.set_yticks([])
        self.canvas.text(0.15, 0.31, fit(note, WIDTH - 0.3), color=MUTED.light)
        for block, y in zip(chosen.blocks, headings, strict=True):
            self._side(fit(block.heading, left - 0.3, weight="bold"), y, 0.15, left, weight="bold")
            self.axes.axhline(y - _HEADING / _ROW / 2, color=GRID.light, linewidth=0.8)
        for placed in self.placed:
            color = VERMILLION.light if placed.row.is_baseline else INK.light
            self._side(fit(placed.row.label, left - 0.45), placed.y, 0.3, left, color=color)

    def _side(self, words: str, y: float, inches: float, left: float, **look: Any) -> None:
        x = (inches - left) / self.width
        self.axes.text(
            x, y, words, transform=self.axes.get_yaxis_transform(), va="center", ha="left", size=SMALL, **look
        )

    def write(self, words_of: Callable[[FigureRow], Words], least: float = 0.0) -> None:
        """Write the text behind every bar and make the axis long enough for both."""
        said = [(placed.y, words_of(placed.row)) for placed in self.placed]
        longest = max([least, *(words.behind for _, words in said)]) or 1.0
        for _, words in said:
            room = max(self.width - width_of(words.words) - 0.15, 0.18 * self.width)
            longest = max(longest, words.behind * self.width / room)
        self.axes.set_xlim(0, longest)
        for y, words in said:
            start = words.behind
            room = words.before and (words.before - words.bar) * self.width / longest
            if room and width_of(words.words) + 0.2 < room:
                start = words.bar
            room = self.width * (1 - start / longest) - 0.1
            self.axes.annotate(
                fit(words.words, max(room, 0.5)), (start, y), xytext=(5, 0), textcoords="offset points",
                va="center", ha="left", size=SMALL, color=words.color, style=words.style,
            )  # fmt: skip

    @property
    def bar(self) -> float:
        """Height of a bar in rows."""
        return _FULL_BAR


def _place(blocks: Sequence[FigureBlock]) -> tuple[list[Placed], list[float], float]:
    """Positions of rows and headings and the total height, in rows."""
    placed, headings = [], []
    y, heading = 0.0, _HEADING / _ROW
    for block in blocks:
        headings.append(y + heading / 2)
        y += heading
        for row in block.rows:
            placed.append(Placed(row, y + 0.5))
            y += 1
        y += 0.2
    return placed, headings, max(y, 1.0)


def _label_width(block: FigureBlock) -> float:
    rows = max((width_of(row.label) + 0.15 for row in block.rows), default=0.0)
    return max(width_of(block.heading, weight="bold"), rows)
