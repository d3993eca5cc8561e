"""Overview sheet: several pictures in two columns."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ggufbench.report.figures.captions import plain
from ggufbench.report.figures.style import INK, MUTED, PAPER, width_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TITLE = "ggufbench"
_HEAD = 110
"""Pixels above the pictures."""


def sheet(pictures: Sequence[bytes], facts: str, size: tuple[int, int]) -> bytes:
    """Arrange PNG pictures, each half as wide as the sheet, below a title and a line of facts; return a PNG.

    The sheet is as high as its longer column. Each picture is added to the column that is shorter so far.
    """
    import matplotlib.image
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    read: list[NDArray[Any]] = [matplotlib.image.imread(io.BytesIO(one), format="png") for one in pictures]
    heights = [_HEAD, _HEAD]
    places = []
    for picture in read:
        column = heights.index(min(heights))
        places.append((column * size[0] // 2, heights[column]))
        heights[column] += picture.shape[0]
    width, height = size[0], max(heights)
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor=PAPER.light)
    for picture, (left, top) in zip(read, places, strict=True):
        figure.figimage(picture, xo=left, yo=height - top - picture.shape[0])
    figure.text(24 / width, 1 - 20 / height, _TITLE, size=20, weight="bold", va="top", color=INK.light)
    line = plain(facts)
    scale = min(12.0, 12.0 * (width - 48) / 100 / max(width_of(line, 12.0), 0.1))
    figure.text(24 / width, 1 - 66 / height, line, size=scale, va="top", color=MUTED.light)
    buffer = io.BytesIO()
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
