"""The `encoder-decoder` provider: a text is encoded once, then the decoder generates token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter_ns

from . import steps
from .channel import ProviderError
from .engine import Engine
from .provider import WARMUP, Timing, digest_prompt


class EncoderDecoder(Engine):
    """One model of the T5 family. The decoder's own context begins empty, after the text was encoded."""

    def first_decode(self) -> Timing:
        """The first token after loading: a text of one token is encoded, and one token is decoded."""
        ids = list(self._tokens("first", 0, 1))
        with steps.prepared(self._api, self._context, ids, position=0) as ready:
            self._watch.start()
            seconds = self._encode(ids)
            timing = self._decode_tokens(ready, 1, position=0)
        return replace(timing, seconds=[seconds + timing.seconds[0]])

    def prompt(self, number: int) -> Timing:
        """Encode a text; the same number is the same text."""
        ids = list(self._tokens("prompt", number))
        self._settle()
        self._watch.start()
        seconds = self._encode(ids)
        return Timing([seconds], len(ids), self._watch.stop())

    def decode(self, number: int) -> Timing:
        """Generate tokens one by one after a text of the workload's length."""
        self._encode(list(self._tokens("prompt", WARMUP)))
        return super().decode(number)

    def digest(self) -> str:
        """Hash of the 32 greedy tokens after a fixed text and a fixed beginning of the answer."""
        self._encode(digest_prompt(self._vocabulary_size)[: self._api.llama_n_ubatch(self._context)])
        return super().digest()

    def _encode(self, ids: Sequence[int]) -> float:
        """Seconds that it takes to encode these tokens."""
        api, context = self._api, self._context
        tokens = (api.llama_token * len(ids))(*ids)
        batch = api.llama_batch_get_one(tokens, len(ids))
        start = perf_counter_ns()
        code = api.llama_encode(context, batch)
        api.llama_synchronize(context)
        stop = perf_counter_ns()
        if code:
            why = self._library.log.errors() or "the library failed"
            raise ProviderError(f"llama_encode returned {code}: {why}")
        return (stop - start) / 1e9
