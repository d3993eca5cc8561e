"""A chat model, from a layer over llama.cpp or from the user, and the answers that it streams.

The timed parts are what a user of that application waits for: from the question to the first text of the
answer, and from the first text to the last.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import pairwise
from time import perf_counter_ns
from typing import Any, NamedTuple

from . import questions
from .callables import Callee
from .channel import NoAnswerError, ProviderError, explain
from .compatibility import provider_problem
from .decode_clock import DecodeClock
from .evidence import Watch
from .job import Job
from .native import Library
from .protocol import EffectiveSetting
from .provider import DIGEST_TOKENS, Loading, Timing, digest_of
from .vocabulary import Tokenizer

_SETTLED_TOKENS = 40
"""Tokens that the text must have: more than the digest uses, because the last one may still grow."""
_MOST_CHUNKS_PER_TOKEN = 8
_FEWEST_TOKENS = 2
"""Tokens of an answer that has a decode rate."""

_IN_USE = re.compile(r"\w+: (n_ctx|n_batch|n_ubatch) += (\d{1,9})$", re.ASCII)
_CONTEXT_STEP = 256
"""llama.cpp rounds a context up to whole steps."""


class _Piece(NamedTuple):
    """One chunk of an answer."""

    stamp: int
    """Time of arrival on the clock, in ns."""
    text: str
    """Empty for a chunk without text, such as the role or the reason for stopping."""
    tokens: int
    """Number of tokens that the chunk reports; 0 if it reports none."""


class Chat:
    """A chat model that a callable makes."""

    def __init__(self, library: Library, job: Job, callee: Callee, clock: DecodeClock) -> None:
        problem = provider_problem(job.provider, job.setting, job.workload)
        if problem is not None:
            raise ProviderError(problem)
        self._library, self._job, self._callee, self._clock = library, job, callee, clock
        self._arguments = callee.arguments(_offered(job))
        self._model: Any = None
        self._tokenizer: Tokenizer | None = None
        self._questions = questions.Questions(job, lambda text: len(self._tokens(text)))
        self._watch = Watch()
        self._devices = library.devices_of(job.setting)

    def device_free_bytes(self) -> dict[str, int]:
        """Free bytes of each device that the setting may use."""
        return self._library.free_bytes(self._devices)

    def drain_log(self) -> list[str]:
        """Lines that llama.cpp has logged since the last call."""
        return self._library.log.drain()

    def load(self) -> Loading:
        """Call the user's callable; the returned object must be able to stream."""
        self._watch.start()
        start = perf_counter_ns()
        with self._explained("was called"):
            self._model = self._callee.function(**self._arguments)
        stop = perf_counter_ns()
        evidence = self._watch.stop()
        if not callable(getattr(self._model, "stream", None)):
            kind = type(self._model).__name__
            raise ProviderError(f"{self._callee.name} returned a {kind} that has no stream(text)")
        return Loading((stop - start) / 1e9, None, evidence)

    def effective(self) -> EffectiveSetting:
        """The context according to llama.cpp's log; None if nothing was logged, as with other libraries.

        Raises ProviderError if no context has the requested length.
        """
        lines = [match for line in self._library.log.peek() if (match := _IN_USE.match(line))]
        asked, found = self._job.setting.n_ctx, [int(match[2]) for match in lines if match[1] == "n_ctx"]
        if found and not any(asked <= length < asked + _CONTEXT_STEP for length in found):
            raise ProviderError(
                f"{self._callee.name} was given n_ctx = {asked} and made a context of {found[-1]}; pass it on"
            )
        in_use = {match[1]: int(match[2]) for match in lines}
        return EffectiveSetting(in_use.get("n_ctx"), in_use.get("n_batch"), in_use.get("n_ubatch"))

    def first_decode(self) -> Timing:
        """The first text of the first answer; lazy loading of the library is included in it."""
        return Timing([self._until_first(questions.FIRST)], 1, self._watch.stop())

    def prompt(self, number: int) -> Timing:
        """Time to the first text that answers a long message; only the tokens of the message count.

        The time of the text that a provider adds around the message counts, but its tokens do not. So the
        same message is the same work for two providers. The warm-up fills a whole ubatch.
        """
        message = self._questions.long(number)
        tokens = len(self._tokens(message))
        seconds = self._until_first(message)
        return Timing([seconds], tokens, self._watch.stop())

    def decode(self, number: int) -> Timing:
        """The tokens after the first text of an answer, over the time from the first text to the last.

        Raises ProviderError if the answer came in one piece.
        """
        question = self._questions.endless(number)
        self._forget()
        self._watch.start()
        with closing(self._chunks(question)) as chunks:
            answered = list(chunks)
        evidence = self._watch.stop()
        answer = [_piece(stamp, chunk) for stamp, chunk in answered]
        tokens = self._count(answer)
        spoken = [piece for piece in answer if piece.text]
        times = self._clock.tokens_between([piece.stamp for piece in spoken]) if spoken else None
        if len(spoken) > 1 and times is not None:
            return Timing(times.seconds, len(times.seconds), evidence, times.native_seconds)
        tokens -= len(self._tokens(spoken[0].text)) if spoken else 0
        if self._count(answer) < _FEWEST_TOKENS:
            raise self._silent()
        if len(spoken) < 2 or tokens < 1:
            raise ProviderError(
                f"{self._callee.name} sent only one piece of text, and a rate needs two: its stream must "
                f"yield text while it generates"
            )
        seconds = [(later.stamp - earlier.stamp) / 1e9 for earlier, later in pairwise(spoken)]
        return Timing(seconds, tokens, evidence)

    def loop_overhead(self) -> float | None:
        """None: the loop here is a `for`, and the rest is the provider's work."""
        return None

    def digest(self) -> str:
        """Hash of the first 32 tokens of the answer to a fixed message."""
        text = ""
        self._forget()
        with closing(self._chunks(questions.FIXED)) as chunks:
            for _, chunk in chunks:
                more = _text(chunk)
                text += more
                if more and len(self._tokens(text)) >= _SETTLED_TOKENS:
                    break
        ids = self._tokens(text)[:DIGEST_TOKENS]
        if not ids:
            raise self._silent()
        return digest_of(ids)

    def close(self) -> None:
        """Drop the reference to the model; the provider decides whether that frees it."""
        self._model = None
        if self._tokenizer is not None:
            self._tokenizer.close()

    def _until_first(self, message: str) -> float:
        """Seconds from the question to the first text; starts the watch and leaves it running."""
        self._forget()
        self._watch.start()
        start = perf_counter_ns()
        with closing(self._chunks(message)) as chunks:
            stop = next((stamp for stamp, chunk in chunks if _text(chunk)), None)
        if stop is None:
            raise self._silent()
        return (stop - start) / 1e9

    def _forget(self) -> None:
        """Clear what remains of earlier questions, if the chat model supports it."""
        if callable(reset := getattr(self._model, "reset", None)):
            with self._explained("was reset"):
                reset()
        self._clock.clear()

    def _chunks(self, message: str) -> Generator[tuple[int, Any]]:
        """Every chunk of the answer and its time of arrival; closing it closes the provider's.

        The content of a chunk is read later where possible: reading it here would add to the provider's time.
        """
        most = _MOST_CHUNKS_PER_TOKEN * self._arguments["max_tokens"] + 1000
        with self._explained("answered"):
            stream = self._model.stream(message)
            try:
                for count, chunk in enumerate(stream):
                    yield perf_counter_ns(), chunk
                    if count > most:
                        raise self._too_long(f"more than {most} chunks")
            finally:
                if callable(close := getattr(stream, "close", None)):
                    close()

    def _count(self, answer: list[_Piece]) -> int:
        """Number of tokens of a whole answer, from the provider or else from the model's tokenizer.

        Raises ProviderError for many more than were allowed. Text without language, which random weights
        produce, is split into more tokens than were generated.
        """
        most = self._arguments["max_tokens"]
        said = sum(piece.tokens for piece in answer)
        count = said or len(self._tokens("".join(piece.text for piece in answer)))
        if count > (most if said else 4 * most) + 16:
            raise self._too_long(f"{count} tokens")
        return count

    def _tokens(self, text: str) -> list[int]:
        if self._tokenizer is None:
            self._tokenizer = Tokenizer(self._job.model_path)
        return self._tokenizer.tokens(text)

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except ProviderError:
            raise
        except Exception as error:
            raise ProviderError(f"{self._callee.name} failed when it {doing}: {explain(error)}") from error

    def _silent(self) -> NoAnswerError:
        return NoAnswerError(
            f"{self._callee.name} ended its answer before the second token, so there is nothing to time; "
            "use a model that was trained for chat"
        )

    def _too_long(self, much: str) -> ProviderError:
        given = f"max_tokens = {self._arguments['max_tokens']} was given"
        return ProviderError(f"{self._callee.name} answered with {much}, but {given}; pass it on")


def _offered(job: Job) -> dict[str, Any]:
    """The arguments for the callable, by name."""
    setting = job.setting
    # Without an explicit choice in the setting, a layer keeps its default.
    chosen = {} if setting.flash_attn == "auto" else {"flash_attn": setting.flash_attn == "on"}
    return {
        **chosen,
        "model_path": job.model_path,
        "n_ctx": setting.n_ctx,
        "n_gpu_layers": 0 if setting.device == "cpu" else setting.n_gpu_layers,
        "n_batch": setting.n_batch,
        "n_threads": setting.n_threads,
        "use_mmap": setting.load_mode in ("auto", "mmap", "mmap+mlock"),
        "use_mlock": setting.load_mode in ("mlock", "mmap+mlock"),
        "temperature": 0.0,
        "max_tokens": job.workload.generated_tokens,
        "seed": job.seed,
    }


def _piece(stamp: int, chunk: Any) -> _Piece:
    return _Piece(stamp, _text(chunk), _output_tokens(chunk))


def _text(chunk: Any) -> str:
    """The text of a chunk's `content`, a string or a list of blocks as LangChain has them.

    Without content it is the reasoning of ggufbench's own chat model, which a user waits for as well.
    """
    content = getattr(chunk, "content", None)
    if isinstance(content, str):
        return content or _reasoning(chunk)
    if isinstance(content, list):
        blocks = [block.get("text", "") if isinstance(block, Mapping) else block for block in content]
        return "".join(block for block in blocks if isinstance(block, str))
    raise ProviderError(f"a chunk of the answer is a {type(chunk).__name__} whose content is not text")


def _reasoning(chunk: Any) -> str:
    more = getattr(chunk, "additional_kwargs", None)
    text = more.get("reasoning_content") if isinstance(more, Mapping) else None
    return text if isinstance(text, str) else ""


def _output_tokens(chunk: Any) -> int:
    """Number of text tokens in a chunk's `usage_metadata`; chunks add up, as in LangChain.

    Reasoning tokens come before the text or are not part of it.
    """
    usage = getattr(chunk, "usage_metadata", None)
    if not isinstance(usage, Mapping):
        return 0
    details = usage.get("output_token_details")
    hidden = details.get("reasoning", 0) if isinstance(details, Mapping) else 0
    counts = [count if isinstance(count, int) else 0 for count in (usage.get("output_tokens"), hidden)]
    return max(0, counts[0] - counts[1])
