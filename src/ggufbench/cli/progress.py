"""Progress on a terminal, for the commands and for pytest.

The line of progress is drawn when an event arrives, and at no other time. rich would redraw it from a thread
of its own; while a worker's clock runs, this process must sleep, or it would disturb what is measured.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_BAR_COLUMNS = 30


def tell(step: str) -> None:
    """Name the step that takes time now, on a line that stays, if a terminal shows it."""
    if sys.stderr.isatty():
        print(f"{step} ...", file=sys.stderr)


class ProgressLine:
    """One line that each event replaces and that is removed at the end; drawn on a terminal only."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live: Live | None = None
        self.sentence = ""
        """What the line says; empty while there is no line."""

    def __enter__(self) -> Self:
        """Begin without a line."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the line, after Ctrl-C as well."""
        self.clear()

    def show(self, sentence: str, share: float | None = None) -> None:
        """Replace the line; with the share of the work that is done, from 0 to 1, it begins with a bar."""
        if sentence == self.sentence or not self._stream.isatty():
            return
        self.sentence = sentence
        line = _line(sentence, share)
        if self._live is None:
            self._live = self._started(line)
        else:
            self._live.update(line, refresh=True)

    def show_bytes(self, share: float, total: int) -> None:
        """Show the share of a file that is done."""
        from ggufbench.text import size

        self.show(f"{100 * share:3.0f} % of {size(total)}", share)

    def clear(self) -> None:
        """Remove the line."""
        if self._live is not None:
            self._live.stop()
            self._live, self.sentence = None, ""

    def _started(self, line: RenderableType) -> Live:
        from rich.console import Console
        from rich.live import Live

        live = Live(
            line,
            console=Console(file=self._stream, force_terminal=True),
            auto_refresh=False,  # no thread: see the module's docstring
            transient=True,
            redirect_stdout=False,
            redirect_stderr=self._stream is sys.stderr,  # a message goes above the line
        )
        live.start(refresh=True)
        live.console.show_cursor()  # a process that is killed could not bring it back
        return live


def _line(sentence: str, share: float | None) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    text = Text(sentence, no_wrap=True, overflow="ellipsis")
    if share is None:
        return text
    line = Table.grid(padding=(0, 1))
    line.add_row(ProgressBar(1, share, width=_BAR_COLUMNS), text)
    return line
