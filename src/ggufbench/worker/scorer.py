"""The `scorer` provider: the distribution of the next token at each position of given tokens.

The harness requests texts as tokens, likeliest continuations, and scores: the distributions are written to a
file, or compared with those of the file. A file has one row of logits in float32 for each scored
position: exact, so that equal computations have a divergence of exactly 0. The arithmetic on them is in
float64.

numpy is imported only here: llama-cpp-python requires it, and nothing is timed in this job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import releases
from .channel import Channel, ProviderError, StoppedError
from .engine import Engine
from .protocol import GO, Continue, Score, Scored, Text, Tokens, Vocabulary, decode_request
from .vocabulary import tokenize

_ROWS_AT_ONCE = 16
"""Rows in float64 at the same time: 34 MB each for 262,144 tokens."""


class Scorer(Engine):
    """One model and one context whose batches return the logits of several tokens."""

    def serve(self, channel: Channel) -> None:
        """Send the vocabulary, then the reply to each request, until the harness has no more."""
        reply: Vocabulary | Tokens | Scored = self.vocabulary()
        while (line := channel.exchange(reply)) != GO:
            if not line:
                raise StoppedError
            match decode_request(line):
                case Text(text):
                    reply = Tokens(self.tokens(text))
                case Continue(ids, count):
                    reply = Tokens(self.greedy(ids, count))
                case Score() as request:
                    reply = self.score(request)
            self.drain_log()

    def _context_params(self) -> Any:
        return releases.context_params(self._api, self._job.setting, self._library.version)

    def _prepare(self) -> None:
        super()._prepare()
        self._vocabulary = self._api.llama_model_get_vocab(self._model)
        self._n_batch = int(self._api.llama_n_batch(self._context))

    def vocabulary(self) -> Vocabulary:
        """Size of the vocabulary, and the first token of each text."""
        tokenizes = bool(self._api.llama_vocab_type(self._vocabulary))
        template = self._api.llama_model_chat_template(self._model, None)
        text = None if template is None else template.decode("utf-8", errors="replace")
        return Vocabulary(self._vocabulary_size, self._bos, tokenizes, text)

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text with its control tokens, without an added first token."""
        return tokenize(self._api, self._vocabulary, text, special=True)

    def greedy(self, ids: Sequence[int], count: int) -> list[int]:
        """The likeliest `count` tokens after these."""
        import numpy as np

        found: list[int] = []
        for rows in self._rows(ids, len(ids) - 1):
            found.append(int(np.argmax(rows[-1])))
        while len(found) < count:
            position = len(ids) + len(found) - 1
            found.append(int(np.argmax(self._decode([found[-1]], position, 1))))
        return found

    def score(self, request: Score) -> Scored:
        """Evaluate the tokens; write the rows to the request's file, or compare them with it."""
        import numpy as np

        count = len(request.ids) - 1 - request.first
        rows = self._rows(request.ids[:-1], request.first, one_by_one=request.one_by_one)
        if not request.compare:
            return _written(rows, request)
        expected = count * self._vocabulary_size * 4
        size = Path(request.rows).stat().st_size
        if size != expected:
            raise ProviderError(f"{request.rows} has {size} bytes of logits instead of {expected}")
        reference = np.memmap(request.rows, dtype=np.float32, mode="r", shape=(count, self._vocabulary_size))
        return _compared(rows, reference, request)

    def _rows(self, ids: Sequence[int], first: int, *, one_by_one: bool = False) -> Iterator[Any]:
        """Logits of the positions from `first` on, an array (positions, vocabulary) for each batch."""
        self._api.llama_memory_clear(self._memory, True)
        size = self._n_batch
        starts = [*range(0, first, size), *range(first, len(ids))] if one_by_one else range(0, len(ids), size)
        for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
            outputs = stop - max(start, first)
            rows = self._decode(ids[start:stop], start, max(0, outputs))
            if rows is not None:
                yield rows

    def _decode(self, ids: Sequence[int], start: int, outputs: int) -> Any:
        """Evaluate one batch at its position; return the logits of its last `outputs` tokens, if any."""
        import numpy as np

        batch = self._api.llama_batch_init(len(ids), 0, 1)
        try:
            batch.n_tokens = len(ids)
            for index, token in enumerate(ids):
                batch.token[index], batch.pos[index] = token, start + index
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
                batch.logits[index] = index >= len(ids) - outputs
            code = self._api.llama_decode(self._context, batch)
        finally:
            self._api.llama_batch_free(batch)
        if code:
            why = self._library.log.errors() or "the library failed"
            raise ProviderError(f"llama_decode returned {code} at token {start}: {why}")
        if not outputs:
            return None
        pointer = self._api.llama_get_logits(self._context)
        rows = np.ctypeslib.as_array(pointer, (outputs, self._vocabulary_size))
        if not np.isfinite(rows).all():
            raise ProviderError(f"a logit at or after token {start} is not a finite number")
        return rows


def _written(rows: Iterator[Any], request: Score) -> Scored:
    import numpy as np

    scored, position = Scored([], [], [], []), request.first + 1
    with Path(request.rows).open("wb") as file:
        for logits in rows:
            logits.astype(np.float32).tofile(file)
            for part in _parts(logits):
                following = request.ids[position:][: len(part)]
                scored.log_probabilities.extend(_chosen(_log_softmax(part), following).tolist())
                position += len(part)
    return scored


def _compared(rows: Iterator[Any], reference: Any, request: Score) -> Scored:
    import numpy as np

    scored, done = Scored([], [], [], []), 0
    for logits in rows:
        for part in _parts(logits):
            before, after = _log_softmax(reference[done : done + len(part)]), _log_softmax(part)
            following = request.ids[request.first + 1 + done :][: len(part)]
            scored.log_probabilities.extend(_chosen(after, following).tolist())
            scored.reference_log_probabilities.extend(_chosen(before, following).tolist())
            scored.divergences.extend((np.exp(before) * (before - after)).sum(1).tolist())
            scored.gaps.extend((before.max(1) - _chosen(before, after.argmax(1))).tolist())
            done += len(part)
    return scored


def _parts(rows: Any) -> Iterator[Any]:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        yield rows[start : start + _ROWS_AT_ONCE]


def _chosen(rows: Any, columns: Any) -> Any:
    """The value in one column of each row."""
    return rows[range(len(rows)), columns]


def _log_softmax(logits: Any) -> Any:
    """Logarithms of the probabilities in float64, shape (rows, vocabulary), in nats."""
    import numpy as np

    shifted = logits.astype(np.float64)
    shifted -= shifted.max(1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(1, keepdims=True))
    return shifted
