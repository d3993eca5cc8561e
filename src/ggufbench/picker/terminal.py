"""Access to the terminal even if the standard streams of this process are redirected."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ggufbench.errors import GgufbenchError

_STREAMS = (0, 1, 2)


class NoTerminalError(GgufbenchError):
    """There is no terminal to draw on. The message names the reason and the remedy."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; use --json, which needs no terminal")


@contextmanager
def on_the_terminal() -> Iterator[None]:
    """Connect standard input, output and error to the terminal, and restore them afterwards.

    So `MODEL=$(ggufbench pick)` draws on the user's terminal, in its size. Raises NoTerminalError.
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
    """Open the controlling terminal of this process."""
    name = os.environ.get("TERM", "")
    if name in {"", "dumb", "unknown"}:
        raise NoTerminalError(f"the picker cannot draw on a terminal of the type TERM={name[:40]!r}")
    if None in {sys.__stdin__, sys.__stdout__, sys.__stderr__}:
        raise NoTerminalError("standard input, output or error is closed")
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        raise NoTerminalError("there is no terminal") from None
    if os.tcgetpgrp(terminal) != os.getpgrp():
        os.close(terminal)
        raise NoTerminalError("this process runs in the background, where it cannot read keys")
    return terminal
