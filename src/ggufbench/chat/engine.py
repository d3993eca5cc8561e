"""A loaded model with one context: tokenizes text and generates the tokens of an answer.

The overhead per token on top of `llama_decode` matters most here, so the loop calls llama.cpp's functions
directly: the binding's `create_completion` detokenizes the whole answer again at every token.
"""

from __future__ import annotations

import ctypes
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggufbench.chat.errors import ChatModelError, PromptTooLongError
from ggufbench.chat.native import log
from ggufbench.chat.sampling import Sampler
from ggufbench.text import printable

_SEQUENCE = 0
_SPM = 1
"""`LLAMA_VOCAB_TYPE_SPM`: sentencepiece, whose words include the space before them."""
_UNREAD_TIMEOUT = 60.0
"""Seconds that an answer may stay unread while another request waits."""
_POLL_SECONDS = 0.1


class CancelledError(Exception):
    """The caller cancelled the request."""


@dataclass(slots=True)
class AnswerUsage:
    """Token usage of one answer."""

    prompt: int = 0
    reused: int = 0
    """Prompt tokens that were still in the KV cache."""
    answered: int = 0
    finish: str = "stop"
    """`stop` or `length`."""


class ChatEngine:
    """One model in one context. All methods but `turn` and `tokenize` require the lock taken by `turn`."""

    def __init__(self, api: Any, path: Path, model: int, context: int, learned_positions: int) -> None:
        self.api, self.path, self.context = api, path, context
        self._model = model
        self.vocabulary = api.llama_model_get_vocab(model)
        self.vocabulary_size: int = api.llama_vocab_n_tokens(self.vocabulary)
        # llama.cpp rounds n_ctx up, beyond the last learned position.
        size: int = api.llama_n_ctx(context)
        self.context_size = min(size, learned_positions or size)
        self._learned_positions = learned_positions
        self._window: int = api.llama_model_n_swa(model)
        self._batch_size: int = api.llama_n_batch(context)
        self._memory = api.llama_get_memory(context)
        self._held: list[int] = []
        self._pieces: dict[int, bytes | None] = {}
        self.visible: dict[int, bytes] = {}
        """Control tokens whose text is part of the answer."""
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._unread_since: float | None = None
        self._free = weakref.finalize(self, _free, api, model, context)
        self.strips_space = self._strips_space()

    # Turns

    @contextmanager
    def turn(self, cancelled: threading.Event | None = None) -> Iterator[None]:
        """Acquire exclusive access. Raises ChatModelError if it would wait forever or the model is closed."""
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
                "close it before the next question, or load the model twice."
            )
        while not self._lock.acquire(timeout=_POLL_SECONDS):
            if cancelled is not None and cancelled.is_set():
                raise CancelledError
            since = self._unread_since
            if since is not None and time.monotonic() - since > _UNREAD_TIMEOUT:
                raise ChatModelError(
                    f"Another answer of {self.name} has been open and unread for {_UNREAD_TIMEOUT:.0f} s; "
                    "read it to its end or close it, or load the model twice."
                )

    def close(self) -> None:
        """Free model and context; may be called repeatedly."""
        self._wait(None)
        try:
            self._free()
        finally:
            self._lock.release()

    def _check_open(self) -> None:
        if not self._free.alive:
            raise ChatModelError(f"{self.name} is closed; load it again.")

    @property
    def name(self) -> str:
        """File name without suffix, safe to print."""
        return printable(self.path.stem)

    # Text

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Tokenize `text`; does not add a BOS token. `special`: parse names of control tokens."""
        self._check_open()
        raw = text.encode("utf-8", errors="replace")
        capacity = len(raw) + 2  # a token is at least one byte, and a space may be added in front
        tokens = (ctypes.c_int32 * capacity)()
        count = self.api.llama_tokenize(self.vocabulary, raw, len(raw), tokens, capacity, False, special)
        if count < 0:
            raise ChatModelError(f"{self.name} cannot tokenize this text; change the text.")
        return tokens[:count]

    def prompt_tokens(self, text: str) -> list[int]:
        """Tokenize a whole prompt; adds the BOS token if the model wants one and the text lacks it."""
        return self.with_bos(self.tokenize(text))

    def with_bos(self, tokens: list[int]) -> list[int]:
        """The tokens of a prompt, with the BOS token in front if the model wants one and they lack it."""
        first = self.api.llama_vocab_bos(self.vocabulary)
        wanted = self.api.llama_vocab_get_add_bos(self.vocabulary) and first >= 0
        return [first, *tokens] if wanted and tokens[:1] != [first] else tokens

    def _learn(self, token: int) -> bytes | None:
        """The bytes of one token: empty for a control token, None for one that ends an answer."""
        ends = self.api.llama_vocab_is_eog(self.vocabulary, token)
        piece = self._pieces[token] = None if ends else self._read_piece(token, special=False)
        return piece

    def _read_piece(self, token: int, *, special: bool) -> bytes:
        capacity = 64
        while True:
            buffer = ctypes.create_string_buffer(capacity)
            count = self.api.llama_token_to_piece(self.vocabulary, token, buffer, capacity, 0, special)
            if count >= 0:
                return buffer.raw[:count]
            capacity = -count

    def control_tokens(self, texts: Iterable[str]) -> dict[int, bytes]:
        """The control tokens among these texts, each with its text."""
        found = ((self.tokenize(text), text.encode()) for text in texts)
        single = {tokens[0]: raw for tokens, raw in found if len(tokens) == 1}
        return {token: raw for token, raw in single.items() if not self._read_piece(token, special=False)}

    def special_text(self, which: str) -> str:
        """The text of the token `bos` or `eos`; empty if the model lacks it."""
        token = getattr(self.api, f"llama_vocab_{which}")(self.vocabulary)
        return self._read_piece(token, special=True).decode("utf-8", errors="replace") if token >= 0 else ""

    def chat_template(self, name: str | None = None) -> str | None:
        """The default chat template of the file, or the one called `name`; None if the file lacks it."""
        raw = self.api.llama_model_chat_template(self._model, name.encode() if name else None)
        return raw.decode("utf-8", errors="replace") if raw else None

    @property
    def can_end(self) -> bool:
        """True if the vocabulary has a token that ends an answer."""
        ends = (self.api.llama_vocab_eos(self.vocabulary), self.api.llama_vocab_eot(self.vocabulary))
        return any(token >= 0 for token in ends)

    def _strips_space(self) -> bool:
        """True if the tokenizer adds a space before the first word of an answer."""
        if self.api.llama_vocab_type(self.vocabulary) != _SPM:
            return False
        value = ctypes.create_string_buffer(8)
        key = b"tokenizer.ggml.add_space_prefix"
        found = self.api.llama_model_meta_val_str(self._model, key, value, len(value))
        return found < 0 or value.value != b"false"

    # Answers

    def reset(self) -> None:
        """Clear the KV cache."""
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
        """Yield the bytes of each token except the end token; `tally` is complete afterwards.

        The bytes may be part of a character, and are empty for a control token. There are at most `most`
        tokens, and no more than fit into the context. Raises ChatModelError if the prompt does not fit or
        llama.cpp fails, and CancelledError once `cancelled` is set.
        """
        if not 0 < len(prompt) <= self.context_size:
            raise self._wrong_length(len(prompt))
        self._evaluate(prompt, tally, cancelled)
        decode, held, context = self.api.llama_decode, self._held, self.context
        pieces, learn = self._pieces, self._learn
        one = (ctypes.c_int32 * 1)()
        batch = self.api.llama_batch_get_one(one, 1)
        available = self.context_size - len(prompt) + 1
        limit = available if most is None else min(most, available)
        while True:
            token = sampler.next()
            piece = pieces[token] if token in pieces else learn(token)
            if piece is None:
                if not sampler.ignores_end:
                    return
                sampler.ban(token)
                continue
            if not piece:
                piece = self.visible.get(token, piece)
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
        """Evaluate the part of the prompt that is not in the KV cache; at least its last token."""
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
        """Keep the common prefix of KV cache and prompt, drop the rest; return the tokens kept."""
        most = min(len(self._held), len(prompt) - 1)
        same = next((i for i in range(most) if self._held[i] != prompt[i]), most)
        # Some memories, such as those of recurrent models, cannot be cleared in part.
        if (
            same == 0
            or not self._has_window_before(same)
            or not self.api.llama_memory_seq_rm(self._memory, _SEQUENCE, same, -1)
        ):
            self.reset()
            return 0
        del self._held[same:]
        return same

    def _has_window_before(self, position: int) -> bool:
        """True if the cache has all tokens that a sliding window at `position` covers.

        Older ones are overwritten, and `llama_memory_seq_rm` does not report that they are missing.
        """
        oldest: int = self.api.llama_memory_seq_pos_min(self._memory, _SEQUENCE)
        return oldest <= max(0, position - self._window)

    def _failed(self) -> ChatModelError:
        self.reset()
        return ChatModelError(
            f"llama.cpp could not evaluate the tokens with {self.name}{log().why()}; try again, or load it "
            "with a smaller n_ctx or n_batch if memory is short."
        )

    def _wrong_length(self, tokens: int) -> ChatModelError:
        if not tokens:
            return ChatModelError(f"The prompt for {self.name} is empty; send some text.")
        most = f"The prompt takes {tokens} tokens and the context of {self.name} has {self.context_size}"
        if self.context_size == self._learned_positions:
            return PromptTooLongError(
                f"{most}, because the model has learned only that many positions; shorten the conversation, "
                "or use a model with a longer context."
            )
        return PromptTooLongError(f"{most}; shorten the conversation, or load the model with a larger n_ctx.")


def _free(api: Any, model: int, context: int) -> None:
    api.llama_free(context)
    api.llama_model_free(model)
