"""Sampling of the next token: llama.cpp's own samplers in its usual order."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from ggufbench.chat.errors import ChatModelError

_RANDOM_SEED = 0xFFFFFFFF
"""With this value llama.cpp draws a random seed each time."""
_PENALIZED = 64
"""Number of last tokens that `repeat_penalty` considers, as in llama.cpp."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters, with llama.cpp's meanings."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    seed: int | None
    ignore_end: bool = False
    """Never sample a token that ends an answer; has no effect with a grammar."""


class Sampler:
    """Samples the tokens of one answer; with a grammar, only tokens that it allows.

    A grammar checks every token of the vocabulary, which takes longer than decoding with a small model. So a
    token is first sampled without the grammar, and sampled again with it only if the grammar rejects it.
    """

    def __init__(
        self, api: Any, context: Any, vocabulary: Any, sampling: Sampling, grammar: str | None = None
    ) -> None:
        self._api, self._context, self._vocabulary = api, context, vocabulary
        self._sampling = sampling
        self.ignores_end = sampling.ignore_end and grammar is None
        self._banned: list[int] = []
        self._free = self._chain(sampling, None)
        self._bound = None
        self._sample: Callable[[Any, Any, int], int] = self._api.llama_sampler_sample
        self.next: Callable[[], int] = partial(self._sample, self._free, self._context, -1)
        """Sample the token after the last decoded one."""
        if grammar is not None:
            rules = self._api.llama_sampler_init_grammar(vocabulary, grammar.encode(), b"root")
            if not rules:
                self.close()
                raise ChatModelError("llama.cpp rejects the grammar of this schema; use a simpler schema.")
            self._rules, self._bound = rules, self._chain(sampling, rules)
            self.next = self._next_allowed
            # A penalty also counts sampled tokens that the grammar rejects afterwards.
            self._guesses = sampling.repeat_penalty == 1
            self._candidate = (self._api.llama_token_data * 1)()
            self._candidates = self._api.llama_token_data_array(self._candidate, 1, -1, False)

    def _next_allowed(self) -> int:
        if self._guesses:
            token = self._sample(self._free, self._context, -1)
            if self._allows(token):
                self._api.llama_sampler_accept(self._bound, token)
                return token
        return self._sample(self._bound, self._context, -1)

    def ban(self, token: int) -> None:
        """Never sample this token again. The samplers start anew, without a grammar."""
        self.close()
        self._banned.append(token)
        self._free = self._chain(self._sampling, None)
        self.next = partial(self._sample, self._free, self._context, -1)

    def close(self) -> None:
        """Free the native sampler chains."""
        for chain in filter(None, (self._free, self._bound)):
            self._api.llama_sampler_free(chain)
        self._free = self._bound = None

    def _allows(self, token: int) -> bool:
        one, several = self._candidate[0], self._candidates
        one.id, one.logit, one.p = token, 1.0, 0.0
        several.size, several.selected, several.sorted = 1, -1, False
        self._api.llama_sampler_apply(self._rules, ctypes.byref(several))
        return not math.isinf(one.logit)

    def _chain(self, sampling: Sampling, rules: Any) -> Any:
        api = self._api
        chain = api.llama_sampler_chain_init(api.llama_sampler_chain_default_params())

        def add(sampler: Any) -> None:
            api.llama_sampler_chain_add(chain, sampler)

        if rules is not None:
            add(rules)
        size = api.llama_vocab_n_tokens(self._vocabulary)
        if self._banned:
            biases = [api.llama_logit_bias(token, -math.inf) for token in self._banned]
            several = (api.llama_logit_bias * len(biases))(*biases)
            add(api.llama_sampler_init_logit_bias(size, len(biases), several))
        if sampling.repeat_penalty != 1:
            add(api.llama_sampler_init_penalties(size, _PENALIZED, sampling.repeat_penalty, 0.0, 0.0))
        if sampling.temperature == 0:
            add(api.llama_sampler_init_greedy())
            return chain
        add(api.llama_sampler_init_top_k(sampling.top_k))
        add(api.llama_sampler_init_top_p(sampling.top_p, 1))
        add(api.llama_sampler_init_min_p(sampling.min_p, 1))
        add(api.llama_sampler_init_temp(sampling.temperature))
        add(api.llama_sampler_init_dist(_RANDOM_SEED if sampling.seed is None else sampling.seed))
        return chain
