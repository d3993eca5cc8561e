"""The worker's side of the conversation with the harness: one JSON document a line, each one answered.

The answer matters for the clocks. The harness has read, stored and shown a message before it answers and
sleeps again, so none of its work falls into the timed part that follows. A harness that died answers
nothing, and the worker ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO


class ProviderError(Exception):
    """The library under test refused or failed; the message is for a person."""


class StoppedError(Exception):
    """The harness asked this worker to end, or is gone."""


GO, AGAIN = "go", "again"
"""Answers: go on; or take this sample once more, because something else had the machine meanwhile."""


class Channel:
    """Sends events and waits for the answer to each."""

    def __init__(self, out: TextIO, answers: TextIO | None) -> None:
        self._out = out
        self._answers = answers
        self.phase = "start"

    @classmethod
    def over_stdio(cls, answered: bool) -> Channel:
        """Keep the real stdout for events and send whatever libraries print there to stderr."""
        out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        return cls(out, sys.stdin if answered else None)

    def enter(self, phase: str) -> None:
        """Tell the harness which phase begins; its deadline for that phase runs from here."""
        self.phase = phase
        self.send("phase", phase=phase)

    def send(self, event: str, **fields: Any) -> str:
        """Send one event and return the answer, `GO` or `AGAIN`. Raises StoppedError for any other."""
        self._out.write(json.dumps({"event": event, **fields}, allow_nan=False) + "\n")
        self._out.flush()
        if self._answers is None:
            return GO
        answer = self._answers.readline().strip()
        if answer not in (GO, AGAIN):
            raise StoppedError
        return answer

    def guarded(self, work: Callable[[], None]) -> int:
        """Run the work and turn whatever it raises into an `error` event. Returns the exit code."""
        try:
            work()
        except StoppedError:
            return 0
        except Exception as error:
            sys.excepthook(*sys.exc_info())
            with contextlib.suppress(StoppedError, OSError):
                self.send("error", phase=self.phase, message=_sentence(error))
            return 1
        return 0


def _sentence(error: Exception) -> str:
    """What a provider says of itself stands alone; any other error needs its type to make sense."""
    return str(error) if isinstance(error, ProviderError) else f"{type(error).__name__}: {error}"
