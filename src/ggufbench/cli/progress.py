"""Progress on a terminal, for the commands and for pytest; plain lines where there is none.

The line of progress is drawn when an event arrives, and at no other time. rich would redraw it from a thread
of its own, and a thread that runs while a worker is timed would interfere with the measurement.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_BAR_COLUMNS = 30

PLAIN_SECONDS = 30
"""Time between two lines of progress in a log."""

_LEAST_SECONDS, _LEAST_SHARE = 2, 0.02
"""Work that must be done before the rest is estimated."""


def tell(step: str) -> None:
    """Print the step that begins now, on a line that stays; on a terminal only."""
    if sys.stderr.isatty():
        print(f"{step} ...", file=sys.stderr)


class ProgressLine:
    """One line that each event replaces and that is removed at the end.

    Without a terminal it prints the current sentence every half minute.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live: Live | None = None
        self._next_plain = time.monotonic() + PLAIN_SECONDS
        self._bytes_since: tuple[int, float] | None = None
        self.sentence = ""
        """The text of the line; empty while there is no line."""

    def __enter__(self) -> Self:
        """Begin without a line."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the line, after Ctrl-C as well."""
        self.clear()

    def show(self, sentence: str, share: float | None = None) -> None:
        """Replace the line; it begins with a bar if the completed share of the work, 0 to 1, is given."""
        if not self._stream.isatty():
            self._show_plain(sentence)
            return
        if sentence == self.sentence:
            return
        self.sentence = sentence
        line = _line(sentence, share)
        if self._live is None:
            self._live = self._started(line)
        else:
            self._live.update(line, refresh=True)

    def show_bytes(self, share: float, total: int) -> None:
        """Show the completed share of a file, and an estimate of the remaining time."""
        from ggufbench.text import size

        now = time.monotonic()
        if self._bytes_since is None or self._bytes_since[0] != total:
            self._bytes_since = total, now
        left = _time_left(now - self._bytes_since[1], share)
        self.show(f"{100 * share:3.0f} % of {size(total)}{left}", share)

    def clear(self) -> None:
        """Remove the line."""
        if self._live is not None:
            self._live.stop()
            self._live, self.sentence = None, ""

    def _show_plain(self, sentence: str) -> None:
        now = time.monotonic()
        if now >= self._next_plain:
            self._next_plain = now + PLAIN_SECONDS
            print(sentence, file=self._stream, flush=True)

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


def _time_left(elapsed: float, share: float) -> str:
    """`, about 3 min left`; empty while too little is done for an estimate."""
    from ggufbench.text import duration

    if elapsed < _LEAST_SECONDS or share < _LEAST_SHARE:
        return ""
    return f", about {duration(elapsed * (1 - share) / share)} left"


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
