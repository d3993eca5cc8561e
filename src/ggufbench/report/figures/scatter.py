"""Helpers for scatter figures: thinning of points, and logarithmic axes of bytes and seconds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from ggufbench.text import size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_Point = TypeVar("_Point", bound=tuple[float, float])

_CELLS = 60
"""Cells of a decade in each direction; a mark is about two cells wide."""
MOST_POINTS = 500
"""Most points of one kind in a figure, which limits its size."""


def thin(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Positive points without those that other points cover on logarithmic axes."""
    cells: dict[tuple[int, int], tuple[float, float]] = {}
    found = [(x, y) for x, y in points if x > 0 and y > 0]
    fineness = float(_CELLS)
    while True:
        cells.clear()
        for x, y in found:
            cells.setdefault((int(fineness * math.log10(x)), int(fineness * math.log10(y))), (x, y))
        if len(cells) <= MOST_POINTS or fineness < 1:
            return list(cells.values())
        fineness *= 0.7


def bytes_axis(axis: Axis, low: float, high: float) -> None:
    """Put ticks at powers of two on a logarithmic axis, as many as are legible."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    first, last = math.ceil(math.log2(low)), math.floor(math.log2(high))
    step = max(1, math.ceil((last - first + 1) / 9))
    axis.set_major_locator(FixedLocator([2.0**power for power in range(first, last + 1, step)]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: size(value).replace(".0 ", " ")))


def log_axis(axis: Axis, low: float, high: float, unit: str) -> None:
    """Put ticks at 1, 2 and 5 of each decade on a logarithmic axis; only at 1 if there are many decades."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    digits = (1, 2, 5) if last - first <= 4 else (1,)
    step = max(1, math.ceil((last - first) / 10))
    ticks = [d * 10.0**power for power in range(first, last + 1, step) for d in digits]
    axis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value, unit)))


def number(value: float, unit: str) -> str:
    """Label of a tick: `20 ms`, `2 s`, `500 t/s`."""
    if unit == "s" and value < 1:
        return f"{1e3 * value:.3g} ms" if value >= 1e-3 else f"{1e6 * value:.3g} µs"
    return f"{value:,.10g} {unit}"


def both_log(axes: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    """Make both axes logarithmic, with these limits."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(*x)
    axes.set_ylim(*y)
