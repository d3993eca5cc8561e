"""Names in tables: whole where they fit, shortened in the middle where they do not, and never alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Column, Table
from rich.text import Text

from ggufbench.text import escaped

_ELLIPSIS = "\u2026"
_LEAST_NAME = 12
_LEAST_PROSE = 16
_GAP = 2

_HEAD_SHARES = (0.5, 0.3, 0.7, 0.15, 0.85)
"""How much of a shortened name is its beginning; the first share that keeps all names distinct is used."""


def shortened(names: Iterable[str], width: int) -> dict[str, str]:
    """Each name in at most `width` columns. Names that would look alike stay whole."""
    distinct = list(dict.fromkeys(names))
    for share in _HEAD_SHARES:
        shown = {name: _cut(name, width, share) for name in distinct}
        if len(set(shown.values())) == len(distinct):
            return shown
    return {name: name for name in distinct}


def _cut(name: str, width: int, head_share: float) -> str:
    if cell_len(name) <= width:
        return name
    head = int((width - 1) * head_share)
    tail = width - 1 - head
    return set_cell_size(name, head) + _ELLIPSIS + set_cell_size(name[::-1], tail)[::-1]


class Name:
    """A cell with a name, which may have a mark behind it and a second line with another name."""

    def __init__(self, words: str, mark: str = "", below: str = "", style: str = "") -> None:
        self.words = escaped(words)
        self.below = escaped(below)
        self._mark = f" {mark}" if mark else ""
        self._style = style
        self._shown: dict[str, str] = {}

    @property
    def width(self) -> int:
        """Columns that the whole name takes."""
        return max(cell_len(self.words + self._mark), cell_len(self.below))

    @property
    def mark_width(self) -> int:
        """Columns that the mark takes."""
        return len(self._mark)

    def fit(self, shown: dict[str, str]) -> None:
        """Set the spelling of each name in the width of the column."""
        self._shown = shown

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        """Write the name, its mark and the second line."""
        yield Text(self._spelled(self.words) + self._mark, style=self._style, overflow="fold")
        if self.below:
            yield Text(self._spelled(self.below), style="dim", overflow="fold")

    def _spelled(self, words: str) -> str:
        return self._shown.get(words, words)


class NameTable(Table):
    """A table that gives figures their width first, then names, and wraps only sentences."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Choose the widths of the columns of names, and write the table."""
        named = [column for column in self.columns if _names(column)]
        left = options.max_width - _GAP * (len(self.columns) - 1)
        left -= sum(_least_width(column) for column in self.columns if column not in named)
        for column, width in zip(named, _shared(left, [_width(column) for column in named]), strict=True):
            _fit(column, width)
        yield from super().__rich_console__(console, options)


def _names(column: Column) -> list[Name]:
    return [cell for cell in column.cells if isinstance(cell, Name)]


def _width(column: Column) -> int:
    widths = [cell.width for cell in _names(column)] + [_text_width(column.header)]
    return max(widths + [_text_width(cell) for cell in column.cells])


def _text_width(cell: object) -> int:
    words = cell.plain if isinstance(cell, Text) else cell if isinstance(cell, str) else ""
    return max(map(cell_len, words.split("\n")))


def _least_width(column: Column) -> int:
    """The width of a column without names: all of its figures, or the beginning of its sentences."""
    heading = _text_width(column.header)
    content = max((_text_width(cell) for cell in column.cells), default=0)
    return max(heading, content if column.no_wrap else min(content, _LEAST_PROSE))


def _shared(left: int, wanted: Sequence[int]) -> list[int]:
    """Widths within `left`: the widest column gives way first, down to a minimum."""
    widths = list(wanted)
    while sum(widths) > left and max(widths) > _LEAST_NAME:
        widths[widths.index(max(widths))] -= 1
    return widths


def _fit(column: Column, width: int) -> None:
    names = _names(column)
    column.width = width
    room = width - max(name.mark_width for name in names)
    shown = shortened((name.words for name in names), room)
    shown |= shortened((name.below for name in names if name.below not in shown), width)
    for name in names:
        name.fit(shown)
