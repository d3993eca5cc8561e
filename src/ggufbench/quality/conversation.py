"""Conversation with a worker that scores tokens: a script asks, the worker replies."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Generic, TypeVar

from ggufbench.errors import GgufbenchError
from ggufbench.launching.launcher import Interpreter, LaunchRefusedError, PhaseTimeouts, launch
from ggufbench.outcomes import Outcome
from ggufbench.paths import unusable_path
from ggufbench.worker.job import SCORER, Job, Setting, Workload
from ggufbench.worker.protocol import GO, Event, Reply, Request, Scored, Tokens, Vocabulary, encode

T = TypeVar("T")
Asking = Generator[Request, Reply, T]
"""Yields requests and is sent the reply to each."""
Script = Callable[[Vocabulary], Asking[T]]
"""Begins with the vocabulary of the loaded model."""


class ScoringError(GgufbenchError):
    """A model could not be scored; the message is one sentence with the reason."""


class Conversation(Generic[T]):
    """One script and its progress; its result is in `results` when the script has ended."""

    def __init__(self, script: Script[T]) -> None:
        self._script = script
        self._asking: Asking[T] | None = None
        self.results: list[T] = []
        self.refused: str | None = None
        """Why the script ended early."""

    def answer(self, event: Event, _pid: int = 0) -> str:
        """The answer to any event of the worker: the next request, or that it may go on.

        Raises LaunchRefusedError where the script raises ScoringError, or OSError for a file that it needs.
        """
        if not isinstance(event, Reply):
            return GO
        try:
            if self._asking is None:
                assert isinstance(event, Vocabulary)  # noqa: S101 (the first reply of the worker)
                self._asking = self._script(event)
                return encode(next(self._asking))
            return encode(self._asking.send(event))
        except StopIteration as stop:
            self.results.append(stop.value)
            return GO
        except ScoringError as error:
            self.refused = str(error)
            raise LaunchRefusedError(str(error)) from None
        except OSError as error:
            raise LaunchRefusedError(unusable_path(error)) from None


def tokens_of(reply: Reply) -> list[int]:
    """The tokens of the reply to `Text` or `Continue`."""
    assert isinstance(reply, Tokens)  # noqa: S101 (the worker replies to what it was asked)
    return reply.ids


def scores_of(reply: Reply) -> Scored:
    """The reply to `Score`."""
    assert isinstance(reply, Scored)  # noqa: S101 (the worker replies to what it was asked)
    return reply


def converse(
    model_path: str,
    setting: Setting,
    script: Script[T],
    timeouts: PhaseTimeouts,
    interpreter: Interpreter | None = None,
) -> T:
    """Load the model in a fresh process, run the script against it, and return the script's result.

    Raises ScoringError if the worker fails, crashes, hangs or lacks memory.
    """
    conversation = Conversation(script)
    job = Job(SCORER, model_path, setting, Workload())
    ended = launch(job, timeouts, interpreter=interpreter, answer=conversation.answer)
    if conversation.results:
        return conversation.results[0]
    reason = ended.reason or "it ended early"
    outcome = "" if ended.outcome is Outcome.FAILED else f"{ended.outcome}: "
    raise ScoringError(f"{model_path} could not be scored: {outcome}{reason}")
