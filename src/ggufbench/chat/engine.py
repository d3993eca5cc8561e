"""A loaded model and its one context: text to tokens, a prompt to the tokens of its answer.

What one token costs beside `llama_decode` is the product here, so the loop calls llama.cpp's functions
directly: the binding's own `create_completion` makes text of the whole answer again at every token.
"""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggufbench.chat.errors import ChatModelError
from ggufbench.chat.native import log
from ggufbench.chat.sampling import Sampler
from ggufbench.text import printable

_SEQUENCE = 0
_SPM = 1
"""`LLAMA_VOCAB_TYPE_SPM`: sentencepiece, whose words carry the space before them."""
_PATIENCE = 60.0
"""Seconds that somebody may leave an answer unread while another one waits."""
_LOOK = 0.1


class CancelledError(Exception):
    """Whoever asked does not wait for the answer any more."""


@dataclass(slots=True)
class AnswerUsage:
    """What one answer took, in tokens."""

    prompt: int = 0
    reused: int = 0
    """Of the prompt, what was still in the KV cache."""
    answered: int = 0
    finish: str = "stop"
    """`stop` or `length`."""


class ChatEngine:
    """One model in one context. Everything but `turn` and `tokenize` is for whoever has the turn."""

    def __init__(self, api: Any, path: Path, model: int, context: int) -> None:
        self.api, self.path, self.context = api, path, context
        self._model = model
        self.vocabulary = api.llama_model_get_vocab(model)
        self.vocabulary_size: int = api.llama_vocab_n_tokens(self.vocabulary)
        self.context_size: int = api.llama_n_ctx(context)
        self._batch_size: int = api.llama_n_batch(context)
        self._memory = api.llama_get_memory(context)
        self._held: list[int] = []
        self._pieces: dict[int, bytes | None] = {}
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._unread_since: float | None = None
        self._free = weakref.finalize(self, _free, api, model, context)
        self.strips_space = self._strips_space()

    # Turns

    @contextmanager
    def turn(self, cancelled: threading.Event | None = None) -> Iterator[None]:
        """Have the model alone. Raises ChatModelError where waiting would never end, or it is closed."""
        self._wait(cancelled)
        self._owner, self._unread_since = threading.get_ident(), None
        try:
            self._check_open()
            yield
        finally:
            self._owner = None
            self._lock.release()

    def _wait(self, cancelled: threading.Event | None) -> None:
        if self._lock.acquire(blocking=False):
            return
        if self._owner == threading.get_ident():
            raise ChatModelError(
                f"An answer of {self.name} is still being streamed in this thread; read it to its end or "
                "close it before asking again, or load the model twice."
            )
        while not self._lock.acquire(timeout=_LOOK):
            if cancelled is not None and cancelled.is_set():
                raise CancelledError
            since = self._unread_since
            if since is not None and time.monotonic() - since > _PATIENCE:
                raise ChatModelError(
                    f"Another answer of {self.name} has been open and unread for {_PATIENCE:.0f} s; read it "
                    "to its end or close it, or load the model twice."
                )

    def close(self) -> None:
        """Free model and context; again and again does no harm."""
        self._wait(None)
        try:
            self._free()
        finally:
            self._lock.release()

    def _check_open(self) -> None:
        if not self._free.alive:
            raise ChatModelError(f"{self.name} was closed; load it again to ask it.")

    @property
    def name(self) -> str:
        """The file's name without its suffix, fit for a message."""
        return printable(self.path.stem)

    # Text

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text in which names of special tokens mean them; without a first token added."""
        self._check_open()
        raw = text.encode("utf-8", errors="replace")
        room = len(raw) + 2  # each takes at least a byte, and a space may be put in front
        tokens = (ctypes.c_int32 * room)()
        count = self.api.llama_tokenize(self.vocabulary, raw, len(raw), tokens, room, False, True)
        if count < 0:
            raise ChatModelError(f"{self.name} cannot take this text apart into tokens; ask something else.")
        return tokens[:count]

    def prompt_tokens(self, text: str) -> list[int]:
        """The tokens of a whole prompt; with the first token that the model wants, unless it is there."""
        tokens = self.tokenize(text)
        first = self.api.llama_vocab_bos(self.vocabulary)
        wanted = self.api.llama_vocab_get_add_bos(self.vocabulary) and first >= 0
        return [first, *tokens] if wanted and tokens[:1] != [first] else tokens

    def _learn(self, token: int) -> bytes | None:
        """The bytes of one token: none for a control token, None for one that ends an answer."""
        ends = self.api.llama_vocab_is_eog(self.vocabulary, token)
        piece = self._pieces[token] = None if ends else self._read_piece(token, special=False)
        return piece

    def _read_piece(self, token: int, *, special: bool) -> bytes:
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = self.api.llama_token_to_piece(self.vocabulary, token, buffer, room, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def special_text(self, which: str) -> str:
        """The text of the token `bos` or `eos`; empty where the model has none."""
        token = getattr(self.api, f"llama_vocab_{which}")(self.vocabulary)
        return self._read_piece(token, special=True).decode("utf-8", errors="replace") if token >= 0 else ""

    def chat_template(self, name: str | None = None) -> str | None:
        """The file's template, or the one of that name; None where it has none."""
        raw = self.api.llama_model_chat_template(self._model, name.encode() if name else None)
        return raw.decode("utf-8", errors="replace") if raw else None

    @property
    def can_end(self) -> bool:
        """Whether the vocabulary has a token that ends an answer."""
        ends = (self.api.llama_vocab_eos(self.vocabulary), self.api.llama_vocab_eot(self.vocabulary))
        return any(token >= 0 for token in ends)

    def _strips_space(self) -> bool:
        """Whether the first word of an answer brings a space that nobody wrote."""
        if self.api.llama_vocab_type(self.vocabulary) != _SPM:
            return False
        value = ctypes.create_string_buffer(8)
        key = b"tokenizer.ggml.add_space_prefix"
        found = self.api.llama_model_meta_val_str(self._model, key, value, len(value))
        return found < 0 or value.value != b"false"

    # Answers

    def reset(self) -> None:
        """Forget everything that was evaluated."""
        self._held.clear()
        self.api.llama_memory_clear(self._memory, False)

    def answer(
        self,
        prompt: Sequence[int],
        sampler: Sampler,
        tally: AnswerUsage,
        most: int | None,
        cancelled: threading.Event | None,
    ) -> Iterator[bytes]:
        """The bytes of each token, without the one that ends the answer; `tally` is complete when they end.

        A token's bytes may be part of a character, and none for a control token. There are at most `most`
        tokens, and no more than fit into the context. Raises ChatModelError where the prompt does not fit or
        llama.cpp fails, CancelledError as soon as `cancelled` is set.
        """
        if not 0 < len(prompt) <= self.context_size:
            raise self._wrong_length(len(prompt))
        self._evaluate(prompt, tally, cancelled)
        decode, held, context = self.api.llama_decode, self._held, self.context
        pieces, learn, sample = self._pieces, self._learn, sampler.next
        one = (ctypes.c_int32 * 1)()
        batch = self.api.llama_batch_get_one(one, 1)
        room = self.context_size - len(prompt) + 1
        limit = room if most is None else min(most, room)
        while True:
            token = sample()
            piece = pieces[token] if token in pieces else learn(token)
            if piece is None:
                return
            tally.answered += 1
            self._unread_since = time.monotonic()
            yield piece
            self._unread_since = None
            if tally.answered >= limit:
                tally.finish = "length"
                return
            if cancelled is not None and cancelled.is_set():
                raise CancelledError
            one[0] = token
            if decode(context, batch):
                raise self._failed()
            held.append(token)

    def _evaluate(self, prompt: Sequence[int], tally: AnswerUsage, cancelled: threading.Event | None) -> None:
        """Evaluate the part of the prompt that the KV cache does not hold; at least its last token."""
        tally.prompt, tally.reused = len(prompt), self._keep_prefix(prompt)
        rest = (ctypes.c_int32 * (len(prompt) - tally.reused))(*prompt[tally.reused :])
        for start in range(0, len(rest), self._batch_size):
            if cancelled is not None and cancelled.is_set():
                raise CancelledError
            count = min(self._batch_size, len(rest) - start)
            at = ctypes.cast(
                ctypes.byref(rest, start * ctypes.sizeof(ctypes.c_int32)), self.api.llama_token_p
            )
            if self.api.llama_decode(self.context, self.api.llama_batch_get_one(at, count)):
                raise self._failed()
            self._held.extend(rest[start : start + count])

    def _keep_prefix(self, prompt: Sequence[int]) -> int:
        """Drop from the KV cache what does not begin this prompt, and say how many tokens are left."""
        most = min(len(self._held), len(prompt) - 1)
        same = next((i for i in range(most) if self._held[i] != prompt[i]), most)
        # Some memories, such as those of recurrent models, cannot forget a part.
        if same == 0 or not self.api.llama_memory_seq_rm(self._memory, _SEQUENCE, same, -1):
            self.reset()
            return 0
        del self._held[same:]
        return same

    def _failed(self) -> ChatModelError:
        self.reset()
        return ChatModelError(
            f"llama.cpp could not evaluate the tokens with {self.name}{log().why()}; ask again, or load it "
            "with a smaller n_ctx or n_batch if memory is short."
        )

    def _wrong_length(self, tokens: int) -> ChatModelError:
        if not tokens:
            return ChatModelError(f"The prompt for {self.name} is empty; say something.")
        return ChatModelError(
            f"The prompt takes {tokens} tokens and the context of {self.name} has {self.context_size}; "
            "shorten the conversation, or load the model with a larger n_ctx."
        )


def _free(api: Any, model: int, context: int) -> None:
    api.llama_free(context)
    api.llama_model_free(model)
