"""Style of the figures: colours with a light and a dark value, fonts, and a canvas measured in inches.

The colours are close to those of Okabe and Ito (2008), which colour-blind readers can distinguish. No colour
carries meaning alone: a marker, a hatch or a word always repeats it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 10.0
"""Width of every figure in inches; shown 1200 px wide, its smallest text is 14 px high."""

SMALL, NORMAL, LARGE = 8.5, 9.5, 12.0
"""Font sizes in points."""

_SLACK = 1.06
"""Reserve for text in an SVG: the font of the reader may be wider than the font it was measured with."""


@dataclass(frozen=True, slots=True)
class Color:
    """A named colour; an inline SVG reads it from the CSS variable `--NAME`."""

    name: str
    light: str
    dark: str


INK = Color("ink", "#1a1a1a", "#ececec")
PAPER = Color("paper", "#ffffff", "#16181b")
MUTED = Color("muted", "#575757", "#b4b4b4")
GRID = Color("grid", "#dcdcdc", "#3a3d41")
BAND = Color("band", "#dfeee6", "#20372d")
BLUE = Color("blue", "#0072b2", "#56ade6")
VERMILLION = Color("vermillion", "#d55e00", "#ff8f4a")
GREEN = Color("green", "#009e73", "#2fc69a")
SKY = Color("sky", "#56b4e9", "#8fd0f5")
AMBER = Color("amber", "#e69f00", "#f2bb4a")
PURPLE = Color("purple", "#b5588f", "#e39cc4")
GRAY = Color("gray", "#8f8f8f", "#7d8288")

COLORS = (INK, PAPER, MUTED, GRID, BAND, BLUE, VERMILLION, GREEN, SKY, AMBER, PURPLE, GRAY)
"""All colours of the figures; each light value occurs once, because it identifies the colour."""


def theme_css() -> str:
    """CSS variables of the inline figures, for the light and the dark theme."""
    light = " ".join(f"--{color.name}: {color.light};" for color in COLORS)
    dark = " ".join(f"--{color.name}: {color.dark};" for color in COLORS)
    return f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """Draw with the settings of this module alone, without matplotlibrc and the style of the caller."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # For a script that the font lacks, the browser uses another font; a PNG shows boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        warnings.filterwarnings(
            "ignore", message="Matplotlib currently does not support", category=UserWarning
        )
        matplotlib.rcdefaults()
        settings: Any = _settings(name)
        matplotlib.rcParams.update(settings)
        yield


def _settings(name: str) -> dict[str, Any]:
    ink, muted = INK.light, MUTED.light
    return {
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "DejaVu Sans",
        "font.size": NORMAL,
        "axes.labelsize": NORMAL,
        "axes.titlesize": NORMAL,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "legend.fontsize": SMALL,
        "legend.frameon": False,
        "legend.handlelength": 1.6,
        "legend.borderaxespad": 0.0,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": muted,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.facecolor": "none",
        "axes.axisbelow": True,
        "axes.grid": True,
        "grid.color": GRID.light,
        "grid.linewidth": 0.8,
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.labelcolor": ink,
        "ytick.labelcolor": ink,
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
        "hatch.linewidth": 0.9,
        "path.simplify": False,
    }


class Canvas:
    """A figure whose parts are placed in inches from the upper left corner."""

    def __init__(self, height: float, title: str | None = None) -> None:
        from matplotlib.figure import Figure

        self._top = 0.5 if title else 0.05
        self.height = height + self._top
        # 72 dots per inch make a pixel a point, in which text is measured.
        self.figure: Figure = Figure(figsize=(WIDTH, self.height), dpi=72)
        if title:
            self.figure.text(
                0.15 / WIDTH, 1 - 0.14 / self.height, title, size=LARGE, weight="bold", va="top", ha="left"
            )

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Add axes of this size."""
        bottom = self.height - self._top - top - height
        return self.figure.add_axes((left / WIDTH, bottom / self.height, width / WIDTH, height / self.height))

    def text(self, left: float, top: float, words: str, **look: Any) -> None:
        """Write words with their upper left corner at this position."""
        look = {"va": "top", "ha": "left", "size": SMALL, **look}
        self.figure.text(left / WIDTH, 1 - (self._top + top) / self.height, words, **look)

    def legend(self, handles: Sequence[object], labels: Sequence[str]) -> None:
        """Draw the legend in one line below the title; labels are text, whatever they begin with."""
        wide = sum(width_of(label) for label in labels) + 0.55 * len(labels)
        legend = self.figure.legend(
            handles=list(handles),
            # matplotlib leaves out entries whose label begins with `_`, so the labels are set afterwards.
            labels=["label"] * len(labels),
            loc="upper left",
            ncols=len(labels),
            bbox_to_anchor=(0.15 / WIDTH, 1 - (self._top + 0.06) / self.height),
            borderpad=0.0,
            # Many entries are set closer together.
            columnspacing=1.4 if wide < WIDTH - 1 else 0.7,
            handletextpad=0.5,
            handlelength=1.6 if wide < WIDTH - 1 else 1.2,
        )
        for text, label in zip(legend.get_texts(), labels, strict=True):
            text.set_text(label)


@lru_cache(maxsize=4096)
def width_of(words: str, size: float = SMALL, weight: str = "normal") -> float:
    """Width of the longest line in inches, with a reserve."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    measured = (
        text_to_path.get_text_width_height_descent(line, font, ismath=False)[0] for line in words.split("\n")
    )
    return _SLACK * max(measured, default=0.0) / 72


def fit(words: str, inches: float, size: float = SMALL, weight: str = "normal") -> str:
    """The words, with the middle replaced by an ellipsis if they are wider than this."""
    if width_of(words, size, weight) <= inches:
        return words
    low, high = 1, min(len(words), 200)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high) if width_of(_cut(words, middle), size, weight) <= inches else (low, middle - 1)
        )
    return _cut(words, low)


def _cut(words: str, kept: int) -> str:
    head = (kept + 1) // 2
    tail = kept - head
    return words[:head] + "…" + (words[-tail:] if tail else "")
