"""A chart of a series in characters, with a mark for each session and each change of level."""

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
    """The series to draw."""

    values: Sequence[float]
    """One value for each session, in order."""
    bad: Sequence[bool]
    """True for each value that is marked."""
    changes: Sequence[int]
    """Indexes of the first values at a new level, in order."""
    label: Callable[[float], str]
    """The text of a value."""
    ends: tuple[str, str]
    """The labels below the first and the last value."""


def chart(drawing: Drawing, width: int) -> Text:
    """The series in `width` columns. If it has more sessions, each column stands for several."""
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
    """One chart column for each session, or for several sessions if there are too many."""
    count = len(drawing.values)
    levels = _levels(drawing)
    size = -(-count // most)
    columns = []
    for start in range(0, count, size):
        part = range(start, min(count, start + size))
        bad = [drawing.values[place] for place in part if drawing.bad[place]]
        # A bad session is never hidden by the others of its column.
        value = bad[-1] if bad else statistics.median([drawing.values[place] for place in part])
        changes = any(place in part for place in drawing.changes)
        columns.append(_ChartColumn(value, bool(bad), changes, levels[part[-1]]))
    return columns


def _levels(drawing: Drawing) -> list[float]:
    """The level of each session: the median between the change points around it."""
    edges = [0, *drawing.changes, len(drawing.values)]
    levels: list[float] = []
    for start, end in pairwise(edges):
        levels += [statistics.median(drawing.values[start:end])] * (end - start)
    return levels


def _row(value: float, low: float, high: float) -> int:
    if high <= low:
        return ROWS // 2
    return round((high - value) / (high - low) * (ROWS - 1))
