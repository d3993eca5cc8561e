"""Figures of a report, drawn as SVG, as PNG or together on a sheet."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggufbench.report.content import Content

if TYPE_CHECKING:
    from ggufbench.report.figures.cases import CaseFacts
    from ggufbench.report.figures.sketch import Sketch

_PNG_DPI = 160
"""Gives 1600 pixels for a figure, which is sharp in print up to 25 cm."""
_SHEET = (1600, 2000)
"""Width and approximate height of the overview in pixels."""
_ON_SHEET = (
    "versus", "load", "memory", "rate-prompt", "rate-encode", "rate-decode", "quality", "pareto", "tokens",
)  # fmt: skip
_FEW = 12
"""Most cases in a figure of the overview."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure for a page."""

    name: str
    """Prefix of the ids in the SVG."""
    title: str
    caption: str
    """One or two sentences that explain the figure, with the ratio to transformers."""
    svg: str
    """SVG element for a page: without styles and scripts, with colours from CSS variables."""
    description: str
    """Text alternative with the values."""


class Figures:
    """Figures of a report; the facts that they need are shared by page and picture."""

    def __init__(self, content: Content) -> None:
        from ggufbench.report.figures.cases import CaseFacts

        self._facts = CaseFacts(content)

    def drawn(self) -> list[Drawn]:
        """Draw the figures that have data, in reading order."""
        from ggufbench.report.figures.style import drawing
        from ggufbench.report.figures.svg import to_svg

        found = []
        for sketch in _sketches(self._facts):
            with drawing(sketch.name):
                svg = to_svg(sketch.draw(None), sketch.name, sketch.title, sketch.description, "inline")
            found.append(Drawn(sketch.name, sketch.title, sketch.caption, svg, sketch.description))
        return found

    def save_overview(self, path: Path, facts: str) -> None:
        """Write a sheet of the main figures with a line of facts below its title. Raises OSError."""
        from ggufbench.report.figures.sheet import sheet
        from ggufbench.report.figures.style import drawing

        chosen = {sketch.name: sketch for sketch in _sketches(self._facts.with_most(_FEW))}
        shown = [chosen[name] for name in _ON_SHEET if name in chosen] or list(chosen.values())
        pictures = []
        for sketch in shown:
            with drawing(sketch.name):
                pictures.append(_png(sketch, 2 * _SHEET[0] // 40))
        with drawing("overview"):
            path.write_bytes(sheet(pictures, facts, _SHEET))


def draw_all(content: Content) -> list[Drawn]:
    """Draw the figures that have data, in reading order."""
    return Figures(content).drawn()


def save_figures(content: Content, folder: Path) -> list[Path]:
    """Write every figure with its title as NAME.svg and NAME.png; create the folder. Raises OSError."""
    from ggufbench.report.figures.style import drawing
    from ggufbench.report.figures.svg import to_svg

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for sketch in _sketches(Figures(content)._facts):
        with drawing(sketch.name):
            svg = to_svg(sketch.draw(sketch.title), sketch.name, sketch.title, sketch.description, "light")
            png = _png(sketch, _PNG_DPI)
        for suffix, data in ((".svg", svg.encode()), (".png", png)):
            path = folder / f"{sketch.name}{suffix}"
            path.write_bytes(data)
            written.append(path)
    return written


def _sketches(facts: CaseFacts) -> Iterator[Sketch]:
    from ggufbench.report.figures.before_after import before_after
    from ggufbench.report.figures.history import history
    from ggufbench.report.figures.load import load
    from ggufbench.report.figures.memory import memory
    from ggufbench.report.figures.pareto import pareto
    from ggufbench.report.figures.quality import quality
    from ggufbench.report.figures.rates import rates
    from ggufbench.report.figures.tokens import tokens
    from ggufbench.report.figures.versus import versus

    found = (
        versus(facts),
        load(facts),
        memory(facts),
        rates(facts, "prompt"),
        rates(facts, "encode"),
        rates(facts, "decode"),
        quality(facts),
        pareto(facts),
        tokens(facts),
        before_after(facts.content.comparisons),
        history(facts.content.history),
    )
    return (sketch for sketch in found if sketch is not None)


def _png(sketch: Sketch, dpi: int) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from ggufbench.report.figures.style import PAPER

    figure = sketch.draw(sketch.title)
    figure.set_facecolor(PAPER.light)
    figure.set_dpi(dpi)
    buffer = io.BytesIO()
    canvas: Any = FigureCanvasAgg(figure)
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()
