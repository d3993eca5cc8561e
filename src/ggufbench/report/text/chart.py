"""A series drawn with characters: a mark for each session, and where the level changed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.text import Text

ROWS = 9

_SESSION, _BAD, _LEVEL, _CHANGE = "•", "▲", "─", "┊"
_STYLES = {_SESSION: "", _BAD: "bold red", _LEVEL: "dim", _CHANGE: "yellow", " ": ""}

LEGEND = f"{_SESSION} session   {_BAD} suspect or regression   {_CHANGE} change of level   {_LEVEL} level"


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is drawn."""

    values: Sequence[float]
    """In the order of the sessions; up is more."""
    bad: Sequence[bool]
    """Of each value: whether it is marked."""
    changes: Sequence[int]
    """Indexes of the first values at a new level, in order."""
    label: Callable[[float], str]
    """A value in words."""
    ends: tuple[str, str]
    """What stands below the first and the last value."""


def chart(drawing: Drawing, width: int) -> Text:
    """The series in a box of `width` columns; where it has more sessions, each column is several of them."""
    low, high = min(drawing.values), max(drawing.values)
    labels = [drawing.label(high), drawing.label((low + high) / 2), drawing.label(low)]
    margin = max(map(len, labels))
    columns = _columns(drawing, max(10, width - margin - 2))
    cells = [[" "] * len(columns) for _ in range(ROWS)]
    for x, column in enumerate(columns):
        if column.change:
            for row in cells:
                row[x] = _CHANGE
        cells[_row(column.level, low, high)][x] = _LEVEL
        cells[_row(column.value, low, high)][x] = _BAD if column.bad else _SESSION
    drawn = Text(no_wrap=True, overflow="crop")
    beside = {0: labels[0], ROWS // 2: labels[1], ROWS - 1: labels[2]}
    for number, row in enumerate(cells):
        drawn.append(f"{beside.get(number, '') if high > low or number == ROWS // 2 else '':>{margin}} ")
        for cell in row:
            drawn.append(cell, style=_STYLES[cell])
        drawn.append("\n")
    first, last = drawing.ends
    gap = max(1, len(columns) - len(first) - len(last))
    drawn.append(" " * (margin + 1) + first + (" " * gap + last if last != first else ""), style="dim")
    return drawn


@dataclass(frozen=True, slots=True)
class _ChartColumn:
    value: float
    bad: bool
    change: bool
    level: float


def _columns(drawing: Drawing, most: int) -> list[_ChartColumn]:
    """One for each session, or for several where there are more than columns."""
    count = len(drawing.values)
    levels = _levels(drawing)
    size = -(-count // most)
    columns = []
    for start in range(0, count, size):
        part = range(start, min(count, start + size))
        bad = [drawing.values[place] for place in part if drawing.bad[place]]
        # Of several sessions the bad one is shown: it is what one looks for.
        value = bad[-1] if bad else statistics.median([drawing.values[place] for place in part])
        changes = any(place in part for place in drawing.changes)
        columns.append(_ChartColumn(value, bool(bad), changes, levels[part[-1]]))
    return columns


def _levels(drawing: Drawing) -> list[float]:
    """Of each session: the median between the change points around it."""
    edges = [0, *drawing.changes, len(drawing.values)]
    levels: list[float] = []
    for start, end in pairwise(edges):
        levels += [statistics.median(drawing.values[start:end])] * (end - start)
    return levels


def _row(value: float, low: float, high: float) -> int:
    if high <= low:
        return ROWS // 2
    return round((high - value) / (high - low) * (ROWS - 1))
