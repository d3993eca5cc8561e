"""The figures of a report: each a function from content to a sketch, drawn as SVG, as PNG or on a sheet."""

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
"""1600 pixels for a figure, sharp in print up to 25 cm."""
_SHEET = (1600, 2000)
"""Pixels of the overview: its width, and about its height."""
_ON_SHEET = ("versus", "load", "memory", "rate-prompt", "rate-decode", "pareto", "tokens")
_FEW = 12
"""Cases in a figure of the overview."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure for a page."""

    name: str
    """A slug; the ids in the SVG begin with it."""
    title: str
    caption: str
    """One or two sentences: what to see in it, with the ratio to transformers."""
    svg: str
    """To be put into a page as it is: no styles, no scripts, colours by CSS variables."""
    description: str
    """What the figure shows, in words."""


class Figures:
    """The figures of a report; what they need of its content is found once for page and picture."""

    def __init__(self, content: Content) -> None:
        from ggufbench.report.figures.cases import CaseFacts

        self._facts = CaseFacts(content)

    def drawn(self) -> list[Drawn]:
        """The figures that have something to show, in the order in which they are read."""
        from ggufbench.report.figures.style import drawing
        from ggufbench.report.figures.svg import to_svg

        found = []
        for sketch in _sketches(self._facts):
            with drawing(sketch.name):
                svg = to_svg(sketch.draw(None), sketch.name, sketch.title, sketch.description, "inline")
            found.append(Drawn(sketch.name, sketch.title, sketch.caption, svg, sketch.description))
        return found

    def save_overview(self, path: Path, facts: str) -> None:
        """One sheet of the main figures, with a line of facts below its title. Raises OSError."""
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
    """The figures that have something to show, in the order in which they are read."""
    return Figures(content).drawn()


def save_figures(content: Content, folder: Path) -> list[Path]:
    """Every figure as NAME.svg and NAME.png, light, with its title; the folder is made. Raises OSError."""
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
    from ggufbench.report.figures.rates import rates
    from ggufbench.report.figures.tokens import tokens
    from ggufbench.report.figures.versus import versus

    found = (
        versus(facts),
        load(facts),
        memory(facts),
        rates(facts, "prompt"),
        rates(facts, "decode"),
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
