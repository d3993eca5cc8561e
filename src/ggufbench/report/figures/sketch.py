"""A figure before it is drawn: its words, and how to draw it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Sketch:
    """A figure that has something to show."""

    name: str
    """A slug; ids in its SVG begin with it."""
    title: str
    caption: str
    """What to see in it."""
    description: str
    """The same for those who do not see it."""
    draw: Callable[[str | None], Figure]
    """Called with the title that stands in the picture; None where the page says it."""
