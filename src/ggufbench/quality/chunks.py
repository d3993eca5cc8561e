"""Chunks of text as tokens: the first half of each is context, the distributions of the second are scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ggufbench.quality.conversation import Asking, ScoringError, tokens_of
from ggufbench.quality.corpus import Corpus, Message
from ggufbench.records.schema import ChunkScores
from ggufbench.worker.protocol import Scored, Text, Vocabulary

LONG = "long"
"""The domain that is read in one piece, because errors of positions do not show in short chunks."""
_LONG_SCORED_TOKENS = 256
_LONG_PARTS = 4
"""The scored end of the long text counts as that many chunks."""
_LEAST_CHUNK_TOKENS = 16
"""A shorter end of a text is left out: its few scored tokens have hardly any context."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens that are evaluated together."""

    domain: str
    ids: list[int]
    first: int
    """First position whose distribution of the next token is scored."""

    @property
    def scored(self) -> int:
        """Number of scored positions: the last token has no next one."""
        return len(self.ids) - 1 - self.first

    def scores(self, scored: Scored) -> list[ChunkScores]:
        """The scores of this chunk, or of each part of the long one."""
        parts = _LONG_PARTS if self.domain == LONG else 1
        size = math.ceil(self.scored / parts)
        return [self._part(scored, start, start + size) for start in range(0, self.scored, size)]

    def _part(self, scored: Scored, start: int, stop: int) -> ChunkScores:
        divergences, gaps = scored.divergences[start:stop], scored.gaps[start:stop]
        return ChunkScores(
            domain=self.domain,
            tokens=len(divergences),
            kl_divergence=max(0.0, _mean(divergences)),  # rounding may give -1e-17
            log_probability=_mean(scored.log_probabilities[start:stop]),
            reference_log_probability=_mean(scored.reference_log_probabilities[start:stop]),
            other_likeliest_tokens=sum(gap > 0 for gap in gaps),
            widest_gap=max(gaps),
        )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def chunks_of(corpus: Corpus, size: int, n_ctx: int, vocabulary: Vocabulary) -> Asking[list[Chunk]]:
    """The corpus in chunks of `size` tokens, the long text in one of at most `n_ctx`.

    Raises ScoringError for a model without a tokenizer, or a text without a whole chunk.
    """
    if not vocabulary.tokenizes:
        raise ScoringError("the file has no tokenizer, so no text can be scored")
    chunks: list[Chunk] = []
    for domain, text in texts_of(corpus, vocabulary):
        ids = tokens_of((yield Text(text)))
        chunks += _divided(domain, ids, n_ctx if domain == LONG else size, vocabulary.first_token)
    if not chunks:
        raise ScoringError(f"{corpus.name} has fewer than {_LEAST_CHUNK_TOKENS} tokens; give a longer text")
    return chunks


def texts_of(corpus: Corpus, vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Domain and text of each piece; dialogues are written by the model's own chat template."""
    dialogues = "".join(_dialogue(dialogue, vocabulary) for dialogue in corpus.dialogues)
    return [*corpus.texts.items(), *([("dialogue", dialogues)] if dialogues else [])]


def _dialogue(messages: Sequence[Message], vocabulary: Vocabulary) -> str:
    """The dialogue as the model reads it in a chat; a model without a usable template gets it as a script."""
    script = "".join(f"{message.role.title()}: {message.content}\n\n" for message in messages)
    if not vocabulary.chat_template:
        return script
    from ggufbench.chat.errors import ChatModelError
    from ggufbench.chat.template import Template

    try:
        # The first token of a text is added to its tokens, so the template must not write one.
        template = Template(vocabulary.chat_template, "", "", "the model")
        return template.render([{"role": one.role, "content": one.content} for one in messages])
    except ChatModelError:
        return script


def _divided(domain: str, ids: Sequence[int], size: int, first_token: int | None) -> list[Chunk]:
    begin = [] if first_token is None else [first_token]
    room = size - len(begin)
    pieces = [ids[:room]] if domain == LONG else [ids[n : n + room] for n in range(0, len(ids), room)]
    chunks = []
    for piece in pieces:
        whole = begin + list(piece)
        if len(whole) >= _LEAST_CHUNK_TOKENS:
            half = len(whole) // 2
            first = max(half, len(whole) - 1 - _LONG_SCORED_TOKENS) if domain == LONG else half
            chunks.append(Chunk(domain, whole, first))
    return chunks
