"""The worker's side of the conversation with the harness: one JSON document per line, each one answered.

The answer matters for the clocks. The harness has read, stored and shown a message before it answers and
sleeps again, so none of its work falls into the timed part that follows. A harness that died does not answer,
and the worker ends.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from .protocol import AGAIN, GO, Error, Event, Phase, ProtocolError, encode


class ProviderError(Exception):
    """The library under test refused or failed; the message is for the user."""


class NoAnswerError(ProviderError):
    """The chat model ended its answer before there was anything to time."""


class StoppedError(Exception):
    """The harness asked this worker to end, or has ended itself."""


class Channel:
    """Send events and wait for the answer to each."""

    def __init__(self, out: TextIO, answers: TextIO | None) -> None:
        self._out = out
        self._answers = answers
        self.phase = "start"

    @classmethod
    def over_stdio(cls, answered: bool) -> Channel:
        """Keep the real stdin and stdout for the conversation.

        Output of libraries goes to stderr, and their standard input is empty.
        """
        out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        answers = os.fdopen(os.dup(0), encoding="utf-8") if answered else None
        os.dup2(2, 1)
        with Path(os.devnull).open(encoding="utf-8") as nothing:
            os.dup2(nothing.fileno(), 0)
        return cls(out, answers)

    def first_line(self) -> str:
        """The job, which is the first line that the harness sends."""
        return self._answers.readline() if self._answers else ""

    def enter(self, phase: str) -> None:
        """Begin a phase; the harness measures its timeout from here."""
        self.phase = phase
        self.send(Phase(phase))

    def send(self, event: Event) -> str:
        """Send one event and return the answer, `GO` or `AGAIN`. Raises StoppedError for any other."""
        answer = self.exchange(event)
        if answer not in (GO, AGAIN):
            raise StoppedError
        return answer

    def exchange(self, event: Event) -> str:
        """Send one event and return the answering line, which is empty if the other side has ended."""
        self._out.write(encode(event) + "\n")
        self._out.flush()
        return GO if self._answers is None else self._answers.readline().strip()

    def guarded(self, work: Callable[[], None]) -> int:
        """Run the work and turn any exception into an `error` event. Returns the exit code."""
        try:
            work()
        except StoppedError:
            return 0
        except Exception as error:
            sys.excepthook(*sys.exc_info())
            with contextlib.suppress(StoppedError, OSError):
                self.send(Error(self.phase, _sentence(error), isinstance(error, NoAnswerError)))
            return 1
        return 0


def _sentence(error: Exception) -> str:
    """Message of a provider's own error; any other error needs its type to make sense."""
    if isinstance(error, ProtocolError):
        return f"the job is not valid: {error}"
    return str(error) if isinstance(error, ProviderError) else explain(error)


def explain(error: Exception) -> str:
    """An error of foreign code in one line: its type and its message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:_MOST_EXPLANATION]}"


_MOST_EXPLANATION = 500
