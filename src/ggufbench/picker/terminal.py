"""Draws on the terminal and reads its keys wherever input and output of this process lead."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ggufbench.errors import GgufbenchError

_STREAMS = (0, 1, 2)


class NoTerminalError(GgufbenchError):
    """There is no terminal to draw on; the message names the reason and the remedy."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; take --json, which asks nothing")


@contextmanager
def on_the_terminal() -> Iterator[None]:
    """Within, input, output and errors are the terminal's; after, again what they were.

    So `MODEL=$(ggufbench pick)` draws where the user looks, and in the size of that. Raises NoTerminalError.
    """
    terminal = _open_terminal()
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(stream) for stream in _STREAMS]
    try:
        for stream in _STREAMS:
            os.dup2(terminal, stream)
        yield
    finally:
        for stream, copy in zip(_STREAMS, kept, strict=True):
            os.dup2(copy, stream)
            os.close(copy)
        os.close(terminal)


def _open_terminal() -> int:
    """A handle of the terminal that this process belongs to."""
    name = os.environ.get("TERM", "")
    if name in {"", "dumb", "unknown"}:
        raise NoTerminalError(f"no picture can be drawn on a terminal of the kind {name[:40]!r} (TERM)")
    if None in {sys.__stdin__, sys.__stdout__, sys.__stderr__}:
        raise NoTerminalError("standard input, output or error is closed")
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        raise NoTerminalError("there is no terminal") from None
    if os.tcgetpgrp(terminal) != os.getpgrp():
        os.close(terminal)
        raise NoTerminalError("this runs in the background, where no key reaches it")
    return terminal
