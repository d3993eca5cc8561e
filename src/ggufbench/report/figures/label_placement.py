"""Labels beside points, so that none lies on another label or on a point."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from ggufbench.report.figures.style import INK, MUTED, SMALL, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Box = tuple[float, float, float, float]
Align = Literal["left", "center", "right"]

_DISTANCES = (6.0, 12.0, 20.0, 32.0, 46.0, 62.0)
"""Points from a mark to its label; from the third on, a line joins them."""
_JOINED = 3
_LINE = 1.3
"""Height of a line of text, of its size."""


class Labels:
    """Put labels into axes whose limits and scales are settled."""

    def __init__(self, axes: Axes) -> None:
        self._axes = axes
        box = axes.get_window_extent()
        self._inside: Box = (box.x0, box.y0, box.x1, box.y1)
        self._taken: list[Box] = []
        self._lines: list[Box] = []

    def keep_off(self, points: Iterable[tuple[float, float]], radius: float = 4.0) -> None:
        """No label is put on these marks; radius in points."""
        for x, y in self._pixels(points):
            self._taken.append((x - radius, y - radius, x + radius, y + radius))

    def keep_off_line(self, points: Iterable[tuple[float, float]], step: float = 6.0) -> None:
        """No label is put on this line while there is another place."""
        for (x1, y1), (x2, y2) in pairwise(self._pixels(points)):
            count = min(200, max(1, int(math.hypot(x2 - x1, y2 - y1) / step)))
            for n in range(count + 1):
                x, y = x1 + (x2 - x1) * n / count, y1 + (y2 - y1) * n / count
                self._lines.append((x - 1.5, y - 1.5, x + 1.5, y + 1.5))

    def put(
        self, point: tuple[float, float], words: str, color: str = INK.light, *, far: bool = True
    ) -> bool:
        """Write the words beside the point; False where there is no room for them, and nothing is written.

        Not `far` is so near that it needs no line to the point, and crosses none.
        """
        width, height = 72 * width_of(words), _LINE * SMALL * (words.count("\n") + 1)
        ((x, y),) = self._pixels([point])
        everything = self._taken + self._lines
        for avoided in (everything, self._taken) if far else (everything,):
            for place in _places((x, y), (width, height)):
                if (far or not place.is_far) and self._is_free(place.box, avoided):
                    self._write((x, y), place, words, color)
                    self._taken.append(place.box)
                    return True
        return False

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
        )
        if place.is_far:
            self._join(at, place.end)

    def _join(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        back = self._axes.transData.inverted()
        (x1, y1), (x2, y2) = back.transform(start), back.transform(end)
        self._axes.plot([x1, x2], [y1, y2], color=MUTED.light, linewidth=0.6, zorder=2)

    def _pixels(self, points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
        return [tuple(map(float, self._axes.transData.transform(point))) for point in points]  # type: ignore[misc]

    def _is_free(self, box: Box, avoided: Sequence[Box]) -> bool:
        x0, y0, x1, y1 = self._inside
        if box[0] < x0 or box[1] < y0 or box[2] > x1 or box[3] > y1:
            return False
        return not any(
            box[0] < taken[2] and box[2] > taken[0] and box[1] < taken[3] and box[3] > taken[1]
            for taken in avoided
        )


@dataclass(frozen=True, slots=True)
class _LabelPlace:
    """Where a label could stand; in points."""

    box: Box
    end: tuple[float, float]
    """Where a line from the mark ends."""
    middle: float
    """Height of the middle of the words."""
    align: Align
    is_far: bool


def _places(at: tuple[float, float], size: tuple[float, float]) -> Iterator[_LabelPlace]:
    """Around a mark, the nearest first."""
    (x, y), (width, height) = at, size
    for number, distance in enumerate(_DISTANCES):
        for dx, dy, align in _DIRECTIONS:
            end = x + dx * distance, y + dy * distance
            left = end[0] - {"left": 0.0, "center": width / 2, "right": width}[align]
            bottom = end[1] - height / 2 + dy * height / 2
            box = (left - 1, bottom - 1, left + width + 1, bottom + height + 1)
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
"""In which label and point may stand to each other, the best first, with the label's alignment."""
