"""Quality of the answers of a scored case, with intervals and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ggufbench.records.schema import ChunkScores, Record
from ggufbench.stats.clustered_mean import ClusteredMean, clustered_mean

GRADES = ((0.01, "nearly lossless"), (0.1, "good"), (0.3, "noticeable"))
"""Upper bounds of the mean divergence in nats, with the words in use for files of 7 to 8 billion parameters.

Published for Llama 3 8B: 0.0014 in Q8_0, 0.031 in Q4_K_M, 0.10 in Q3_K_M, 0.33 in Q2_K (README of
llama.cpp's perplexity tool). Small models lose more in the same quantization.
"""
_LOSSY = "severe"


@dataclass(frozen=True, slots=True)
class DomainQuality:
    """The scores of one kind of text."""

    domain: str
    tokens: int
    kl_divergence: ClusteredMean
    other_likeliest_share: ClusteredMean


@dataclass(frozen=True, slots=True)
class AnswerQuality:
    """All scores of a case against its reference. Means are over tokens, intervals over chunks of text."""

    kl_divergence: ClusteredMean
    """In nats."""
    log_probability_change: ClusteredMean
    """Change for the tokens of the text, in nats; below zero, they are less likely than for the reference."""
    other_likeliest_share: ClusteredMean
    """Share of tokens after which another next token is the likeliest."""
    perplexity: float
    reference_perplexity: float
    widest_gap: float
    """Widest gap of log-probability across which the likeliest token changed, in nats."""
    domains: Sequence[DomainQuality]

    @property
    def grade(self) -> str:
        """The divergence in one word."""
        return next((word for most, word in GRADES if self.kl_divergence.value < most), _LOSSY)

    @property
    def sentence(self) -> str:
        """Meaning of the divergence for an answer."""
        share = self.other_likeliest_share.value
        if self.kl_divergence.value == 0:
            return "the answers are those of the reference"
        if share == 0:
            return f"{self.grade}: the likeliest token is the same everywhere"
        often = f"{100 * share:.0f} of 100 tokens" if share >= 0.01 else f"{1000 * share:.1f} of 1,000 tokens"
        return f"{self.grade}: another token would be the likeliest after {often}"


def quality_of(record: Record) -> AnswerQuality | None:
    """The quality of a case's answers; None if it was not scored."""
    chunks = [chunk for launch in record.launches for chunk in launch.chunks]
    if not chunks:
        return None
    domains = {chunk.domain: [one for one in chunks if one.domain == chunk.domain] for chunk in chunks}
    total = sum(chunk.tokens for chunk in chunks)
    own, before = (
        math.fsum(getattr(chunk, name) * chunk.tokens for chunk in chunks) / total
        for name in ("log_probability", "reference_log_probability")
    )
    return AnswerQuality(
        kl_divergence=_divergence(chunks),
        log_probability_change=clustered_mean(
            [(chunk.log_probability - chunk.reference_log_probability) * chunk.tokens for chunk in chunks],
            [chunk.tokens for chunk in chunks],
        ),
        other_likeliest_share=_others(chunks),
        perplexity=_perplexity(own),
        reference_perplexity=_perplexity(before),
        widest_gap=max(chunk.widest_gap for chunk in chunks),
        domains=[
            DomainQuality(name, sum(one.tokens for one in some), _divergence(some), _others(some))
            for name, some in domains.items()
        ],
    )


def compared_with(record: Record) -> str:
    """The reference of a scored case in a few words: `F16`, or `16-bit cache`; empty without one."""
    reference = record.reference
    if reference is None:
        return ""
    if reference.identity != record.model.identity:
        return reference.quantization
    return "plain setting"


def _divergence(chunks: Sequence[ChunkScores]) -> ClusteredMean:
    return clustered_mean([one.kl_divergence * one.tokens for one in chunks], [one.tokens for one in chunks])


def _others(chunks: Sequence[ChunkScores]) -> ClusteredMean:
    return clustered_mean([one.other_likeliest_tokens for one in chunks], [one.tokens for one in chunks])


def _perplexity(log_probability: float) -> float:
    return math.exp(min(-log_probability, 700.0))  # exp() of more overflows a float
