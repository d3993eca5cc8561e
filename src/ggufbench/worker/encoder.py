"""The `encoder` provider: batches of sequences, each encoded to one vector, or to one score by a reranker.

An encoder without a causal mask reads a batch in one piece, so that a batch is a single call of llama.cpp.
Reading the vectors is not timed; they are only checked.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter_ns
from typing import Any

from . import releases
from .channel import ProviderError
from .engine import SETTLING_SECONDS, Engine
from .provider import Timing, digest_of, digest_prompt

_NO_POOLING, _RANK = 0, 4
"""Values of `enum llama_pooling_type`."""
_DIGEST_SEQUENCES = 16


class Encoder(Engine):
    """One embedding model or reranker, driven through llama.cpp's C interface."""

    def first_decode(self) -> Timing:
        """The first vector after loading, of a sequence of one token."""
        return self.encode([[self._start]])

    def prompt(self, number: int) -> Timing:
        """Encode a batch; the same number is the same batch."""
        workload = self._job.workload
        batch = [self._sequence(f"{number} {index}") for index in range(workload.sequences)]
        self._settle()
        return self.encode(batch)

    def decode(self, number: int) -> Timing:
        """Not supported: this model generates nothing."""
        raise NotImplementedError

    def digest(self) -> str:
        """Hash of the strongest component of each of 16 vectors, or of the best of 16 scores.

        A component counts relative to its mean: in many models one component is the largest in every vector.
        """
        length = min(16, self._api.llama_n_ubatch(self._context))
        prompt = digest_prompt(self._vocabulary_size)[:length]
        vectors = []
        for sequence in range(_DIGEST_SEQUENCES):
            ids = [(token + 104_729 * sequence) % self._vocabulary_size for token in prompt]
            self.encode([ids])
            vectors += self.vectors([ids])
        means = [sum(component) / len(vectors) for component in zip(*vectors, strict=True)]
        if len(means) == 1:
            return digest_of([max(range(len(vectors)), key=lambda row: vectors[row])])
        return digest_of(
            max(range(len(means)), key=lambda column: vector[column] - means[column]) for vector in vectors
        )

    def _context_params(self) -> Any:
        sequences = self._job.workload.sequences
        return releases.encoder_context_params(self._api, self._job.setting, sequences, self._library.version)

    def _prepare(self) -> None:
        super()._prepare()
        api, model = self._api, self._model
        encodes = self._memory is None or api.llama_model_has_encoder(model)
        self._run = api.llama_encode if encodes else api.llama_decode
        self._pooling = api.llama_pooling_type(self._context)
        vocabulary = api.llama_model_get_vocab(model)
        self._end = _token(api.llama_vocab_sep(vocabulary), api.llama_vocab_eos(vocabulary))
        self._start = 0 if self._bos is None else self._bos

    def _sequence(self, name: str) -> list[int]:
        """Random tokens between the usual marks; for a reranker a pair, with a separator in its middle."""
        length = self._job.workload.prompt_tokens
        source = random.Random(f"{self._job.seed} encode {name}")  # noqa: S311 (a workload, no secret)
        ids = [source.randrange(self._vocabulary_size) for _ in range(length)]
        if length > 2 and self._end is not None:
            ids[-1] = self._end
            if self._pooling == _RANK:
                ids[length // 2] = self._end
        if self._bos is not None:
            ids[0] = self._bos
        return ids

    def encode(self, batch: Sequence[Sequence[int]]) -> Timing:
        """Encode these sequences of tokens at once."""
        count = sum(map(len, batch))
        run, synchronize, context = self._run, self._api.llama_synchronize, self._context
        with self._prepared(batch) as ready:
            self._api.llama_memory_clear(self._memory, False)
            self._watch.start()
            start = perf_counter_ns()
            code = run(context, ready)
            synchronize(context)
            stop = perf_counter_ns()
            evidence = self._watch.stop()
        if code:
            why = self._library.log.errors() or "the library failed"
            raise ProviderError(f"encoding {len(batch)} sequences returned {code}: {why}")
        self.vectors(batch)
        return Timing([(stop - start) / 1e9], count, evidence)

    @contextmanager
    def _prepared(self, batch: Sequence[Sequence[int]]) -> Iterator[Any]:
        """The batch for llama.cpp: the tokens of all sequences, each of which contributes to a vector."""
        ready = self._api.llama_batch_init(sum(map(len, batch)), 0, 1)
        try:
            for sequence, ids in enumerate(batch):
                for position, token in enumerate(ids):
                    index = ready.n_tokens
                    ready.token[index], ready.pos[index], ready.logits[index] = token, position, 1
                    ready.n_seq_id[index], ready.seq_id[index][0] = 1, sequence
                    ready.n_tokens += 1
            yield ready
        finally:
            self._api.llama_batch_free(ready)

    def vectors(self, batch: Sequence[Sequence[int]]) -> list[list[float]]:
        """The vector of each sequence of the last batch, or its scores.

        Raises ProviderError if one was not computed.
        """
        api, width, found, last = self._api, self._width(), [], -1
        for sequence, ids in enumerate(batch):
            last += len(ids)
            if self._pooling == _NO_POOLING:
                pointer = api.llama_get_embeddings_ith(self._context, last)
            else:
                pointer = api.llama_get_embeddings_seq(self._context, sequence)
            vector = [float(value) for value in pointer[:width]] if pointer else []
            if not vector or not all(map(math.isfinite, vector)) or not any(vector):
                problem = "finite" if any(vector) else "computed"
                raise ProviderError(
                    f"the vector of sequence {sequence + 1} of {len(batch)} was not {problem}: the model or "
                    "this llama.cpp is broken; try another release"
                )
            found.append(vector)
        return found

    def _width(self) -> int:
        if self._pooling == _RANK:
            return int(self._api.llama_model_n_cls_out(self._model))
        width = getattr(self._api, "llama_model_n_embd_out", self._api.llama_model_n_embd)
        return int(width(self._model))

    def _settle(self) -> None:
        """Encode a token for a moment, so that the caches are as warm as in a program without pauses."""
        with self._prepared([[self._start]]) as one:
            end = perf_counter_ns() + int(SETTLING_SECONDS * 1e9)
            while perf_counter_ns() < end:
                self._api.llama_memory_clear(self._memory, False)
                self._run(self._context, one)
                self._api.llama_synchronize(self._context)


def _token(*candidates: int) -> int | None:
    """The first of these tokens that the vocabulary has."""
    return next((token for token in candidates if token >= 0), None)
