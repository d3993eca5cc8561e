"""Placement of labels next to points, so that no label covers another label or a point."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from ggufbench.report.figures.style import INK, MUTED, PAPER, SMALL, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Box = tuple[float, float, float, float]
Align = Literal["left", "center", "right"]

_DISTANCES = (8.0, 13.0, 20.0, 32.0, 46.0, 62.0)
"""Points from a mark to its label; from the third distance on, a line connects them."""
_JOINED = 3
_LINE = 1.3
"""Height of a line of text, relative to the font size."""
_MARGIN = 3.0
"""Points that stay free around a label: the font of the reader may be wider."""


class Labels:
    """Place labels in axes whose limits and scales no longer change."""

    def __init__(self, axes: Axes) -> None:
        self._axes = axes
        box = axes.get_window_extent()
        self._inside: Box = (box.x0, box.y0, box.x1, box.y1)
        self._taken: list[Box] = []
        self._lines: list[Box] = []

    def keep_off(self, points: Iterable[tuple[float, float]], radius: float = 4.0) -> None:
        """Keep labels off these marks; the radius is in points."""
        for x, y in self._pixels(points):
            self._taken.append((x - radius, y - radius, x + radius, y + radius))

    def keep_off_line(self, points: Iterable[tuple[float, float]], step: float = 6.0) -> None:
        """Keep labels off this line as far as there is another place."""
        self._avoid(self._pixels(points), step)

    def _avoid(self, pixels: Sequence[tuple[float, float]], step: float = 6.0) -> None:
        for (x1, y1), (x2, y2) in pairwise(pixels):
            count = min(200, max(1, int(math.hypot(x2 - x1, y2 - y1) / step)))
            for n in range(count + 1):
                x, y = x1 + (x2 - x1) * n / count, y1 + (y2 - y1) * n / count
                self._lines.append((x - 1.5, y - 1.5, x + 1.5, y + 1.5))

    def put(
        self, point: tuple[float, float], words: str, color: str = INK.light, *, far: bool = True
    ) -> bool:
        """Write the words next to the point; return False if there is no free place for them.

        Without `far`, the label must be so near that it needs no line to the point, and must cross no line.
        """
        width, height = 72 * width_of(words), _LINE * SMALL * (words.count("\n") + 1)
        ((x, y),) = self._pixels([point])
        free = [place for place in _places((x, y), (width, height)) if self._is_free(place.box)]
        if not far:
            free = [place for place in free if not place.is_far and not self._crossings(place.box)]
        if not free:
            return False
        place = min(free, key=lambda one: self._cost((x, y), one))  # of equals, the nearest
        self._write((x, y), place, words, color)
        self._taken.append(place.box)
        return True

    def _write(self, at: tuple[float, float], place: _LabelPlace, words: str, color: str) -> None:
        self._axes.annotate(
            words,
            tuple(self._axes.transData.inverted().transform(at)),
            xytext=(place.end[0] - at[0], place.middle - at[1]),
            textcoords="offset points",
            ha=place.align,
            va="center",
            color=color,
            size=SMALL,
            linespacing=_LINE - 0.1,
            zorder=6,
            # A line that cannot be avoided must not run through the words.
            bbox={"facecolor": PAPER.light, "edgecolor": "none", "alpha": 0.85, "pad": 1.0},
        )
        if place.is_far:
            self._join(at, place.end)
            self._avoid([at, place.end])

    def _join(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        back = self._axes.transData.inverted()
        (x1, y1), (x2, y2) = back.transform(start), back.transform(end)
        self._axes.plot([x1, x2], [y1, y2], color=MUTED.light, linewidth=0.6, zorder=2)

    def _pixels(self, points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
        return [tuple(map(float, self._axes.transData.transform(point))) for point in points]  # type: ignore[misc]

    def _is_free(self, box: Box) -> bool:
        x0, y0, x1, y1 = self._inside
        is_inside = box[0] >= x0 and box[1] >= y0 and box[2] <= x1 and box[3] <= y1
        return is_inside and not any(_overlap(box, taken) for taken in self._taken)

    def _cost(self, at: tuple[float, float], place: _LabelPlace) -> float:
        """Cost of a free place: a line over other marks costs more than a label over lines."""
        distance = math.dist(at, place.end)
        steps = [n / 8 for n in range(1, 8)] if place.is_far else []
        line = [(at[0] + (place.end[0] - at[0]) * n, at[1] + (place.end[1] - at[1]) * n) for n in steps]
        others = [box for box in self._taken if not _overlap((*at, *at), box)]
        covered = sum(_overlap((*point, *point), box) for point in line for box in others)
        return 8 * covered + self._crossings(place.box) + distance / 6

    def _crossings(self, box: Box) -> int:
        return sum(_overlap(box, part) for part in self._lines)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and one[2] > other[0] and one[1] < other[3] and one[3] > other[1]


@dataclass(frozen=True, slots=True)
class _LabelPlace:
    """Possible place of a label, in points."""

    box: Box
    end: tuple[float, float]
    """End of the line from the mark."""
    middle: float
    """Vertical middle of the words."""
    align: Align
    is_far: bool


def _places(at: tuple[float, float], size: tuple[float, float]) -> Iterator[_LabelPlace]:
    """Places around a mark, the nearest first."""
    (x, y), (width, height) = at, size
    for number, distance in enumerate(_DISTANCES):
        for dx, dy, align in _DIRECTIONS:
            end = x + dx * distance, y + dy * distance
            left = end[0] - {"left": 0.0, "center": width / 2, "right": width}[align]
            bottom = end[1] - height / 2 + dy * height / 2
            box = (left - _MARGIN, bottom - 1, left + width + _MARGIN, bottom + height + 1)
            yield _LabelPlace(box, end, bottom + height / 2, align, number + 1 >= _JOINED)


_DIRECTIONS: Sequence[tuple[float, float, Align]] = (
    (1.0, 0.0, "left"),
    (-1.0, 0.0, "right"),
    (0.0, 1.0, "center"),
    (0.0, -1.0, "center"),
    (0.7, 0.7, "left"),
    (0.7, -0.7, "left"),
    (-0.7, 0.7, "right"),
    (-0.7, -0.7, "right"),
)
"""Directions from the point to the label, the best first, with the alignment of the label."""
