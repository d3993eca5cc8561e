"""Grade the answers of a comparison: the same, changed by rounding, or other answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ggufbench.records.comparison import AnswerCheck, AnswerPassage
from ggufbench.text import listed

MOST_ROUNDINGS = 3.0
"""Divergence that still counts as rounding, as a multiple of that of the baseline's own other roundings.

Measured on two models (docs/quality.md): roundings that are not in the reference reached 1.4 times, a KV
cache in q8_0 1.1 to 2.0 times and one in q5_1 3.7 to 7.6 times.
"""
LEAST_DIVERGENCE = 1e-3
"""Mean divergence in nats below which answers never count as others.

It is the order of 16-bit weights: 0.00055 for Llama 3 8B in F16 (README of llama.cpp's perplexity tool).
"""
WIDE_GAP = 1.0
"""Difference of log-probability, in nats, across which rounding does not change the likeliest token.

The widest gap of any rounding was 0.56, that of a KV cache in q4_0 4.1 (docs/quality.md).
"""


@dataclass(frozen=True, slots=True)
class PassageScores:
    """The answer of one passage, evaluated in one way, against that of the baseline."""

    name: str
    prompt_tokens: int
    one_by_one: bool
    divergences: list[float]
    """KL divergence of each token's distribution, in nats."""
    gaps: list[float]
    """Width of the gap that another likeliest token crosses, in nats; 0 for the same one."""

    @property
    def divergence(self) -> float:
        """Mean over the tokens."""
        return math.fsum(self.divergences) / len(self.divergences)


def graded(found: Sequence[PassageScores], roundings: Mapping[str, Sequence[PassageScores]]) -> AnswerCheck:
    """The verdict on the candidate's scores; `roundings` are those of the baseline under other settings.

    Passages are in the same order everywhere. Without differences no roundings are needed.
    """
    passages = [
        _passage(scores, [other[index] for other in roundings.values()]) for index, scores in enumerate(found)
    ]
    if all(value == 0 for scores in found for value in scores.divergences):
        return AnswerCheck(verdict="same answers", passages=passages)
    reasons = [reason for passage in passages if (reason := _difference(passage))]
    return AnswerCheck(
        verdict="other answers" if reasons else "other rounding",
        reason=reasons[0] if reasons else None,
        roundings=list(roundings),
        passages=passages,
    )


def describe(check: AnswerCheck) -> str:
    """One sentence about the check."""
    if check.verdict == "same answers":
        return "the distributions of all compared tokens are equal"
    if check.reason is not None:
        return check.reason
    worst = max(check.passages, key=lambda passage: passage.divergence)
    return (
        f"the distributions differ by {worst.divergence:.2g} nats a token at most, as they do between the "
        f"baseline's own roundings ({worst.rounding_divergence:.2g}; {listed(check.roundings)})"
    )


def _passage(scores: PassageScores, others: Sequence[PassageScores]) -> AnswerPassage:
    return AnswerPassage(
        name=scores.name,
        prompt_tokens=scores.prompt_tokens,
        answer_tokens=len(scores.divergences),
        one_by_one=scores.one_by_one,
        divergence=scores.divergence,
        rounding_divergence=max((other.divergence for other in others), default=0.0),
        other_likeliest_tokens=sum(gap > 0 for gap in scores.gaps),
        widest_gap=max(scores.gaps),
    )


def _difference(passage: AnswerPassage) -> str | None:
    """Reason why the answer to a passage is another one; None if rounding explains it."""
    where = f"{passage.name} ({passage.prompt_tokens} tokens, {_way(passage)})"
    limit = max(LEAST_DIVERGENCE, MOST_ROUNDINGS * passage.rounding_divergence)
    if passage.divergence > limit:
        return (
            f"the candidate's distributions differ by {passage.divergence:.2g} nats a token in {where}, and "
            f"rounding explains {limit:.2g}"
        )
    if passage.widest_gap > WIDE_GAP:
        return (
            f"another token is the likeliest at {passage.other_likeliest_tokens} of {passage.answer_tokens} "
            f"positions of {where}, once across a gap of {passage.widest_gap:.2g} nats, which rounding does "
            "not cross"
        )
    return None


def _way(passage: AnswerPassage) -> str:
    return "one by one" if passage.one_by_one else "in batches"
