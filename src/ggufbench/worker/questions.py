"""Questions for a chat model: the same in every launch, and none twice, which a cache would answer."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable

from .job import Job
from .provider import WARMUP

FIRST = "Say hello."
FIXED = "Name the colours of the rainbow, then the planets."
"""Question for the digest."""

_TEMPLATE_TOKENS = 64
"""Tokens reserved for the text that a chat template adds around a message."""
_SHORT_TOKENS = 32
"""Upper estimate of the tokens of a short question."""
_WORDS = (
    "river", "stone", "garden", "window", "letter", "morning", "forest", "bridge", "table", "market",
    "winter", "summer", "doctor", "captain", "village", "yellow", "silver", "gentle", "narrow", "simple",
    "quiet", "heavy", "broken", "early", "distant", "carry", "follow", "remember", "gather", "listen",
)  # fmt: skip


def needed_tokens(prompt_tokens: int, generated_tokens: int) -> int:
    """Tokens of the longest question and its answer, with a chat template."""
    return max(prompt_tokens, _SHORT_TOKENS) + _TEMPLATE_TOKENS + generated_tokens


class Questions:
    """The messages of one launch. A repeated sample has another question of the same kind."""

    def __init__(self, job: Job, count: Callable[[str], int]) -> None:
        self._job, self._count = job, count
        self._times: Counter[str] = Counter()

    def long(self, number: int) -> str:
        """A question with the workload's number of prompt tokens, or slightly fewer because words are whole.

        The warm-up's question is as long as a ubatch if that fits.
        """
        setting, workload = self._job.setting, self._job.workload
        source, wanted = self._source("prompt", number), workload.prompt_tokens
        if number == WARMUP:
            available = setting.n_ctx - workload.generated_tokens - _TEMPLATE_TOKENS
            wanted = max(wanted, min(setting.n_ubatch, available))
        begin = source.randrange(1000, 10**6)
        words = [source.choice(_WORDS) for _ in range(wanted)]

        def question(length: int) -> str:
            return f"{begin} words to tell a story with: {' '.join(words[:length])}."

        fitting = bisect_right(range(wanted + 1), wanted, key=lambda length: self._count(question(length)))
        return question(max(0, fitting - 1))

    def endless(self, number: int) -> str:
        """A short question whose answer is as long as the limit allows."""
        start = self._source("decode", number).randrange(1000, 10**6)
        return f"Count upwards from {start} in words, one number after the other, and never stop."

    def _source(self, kind: str, number: int) -> random.Random:
        name = f"{self._job.seed} {kind} {number}"
        self._times[name] += 1
        return random.Random(f"{name} {self._times[name]}")  # noqa: S311 (a workload, no secret)
