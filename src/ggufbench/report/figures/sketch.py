"""A figure before it is drawn: its texts and its drawing function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Sketch:
    """A figure that has data."""

    name: str
    """Prefix of the ids in the SVG."""
    title: str
    caption: str
    """Explanation for readers of the figure."""
    description: str
    """Text alternative with the values."""
    draw: Callable[[str | None], Figure]
    """Draws the figure with this title; with None, the title is left to the page."""
