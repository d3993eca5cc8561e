"""Interface of every provider, whichever code path it drives: the steps of a launch and their results."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from .protocol import EffectiveSetting, Placement

WARMUP = -1
"""Sample number of a run that is not counted."""


DIGEST_TOKENS = 32
_DIGEST_PROMPT_TOKENS = 16
DIGESTED_TOKENS = _DIGEST_PROMPT_TOKENS + DIGEST_TOKENS
"""Tokens in the context at the end of a digest."""


def digest_prompt(vocabulary_size: int) -> list[int]:
    """The fixed prompt before the digest's tokens, as ids, without a tokenizer or randomness."""
    return [(index * 7919 + 13) % vocabulary_size for index in range(_DIGEST_PROMPT_TOKENS)]


def digest_of(tokens: Iterable[int]) -> str:
    """A short hash of token ids."""
    return hashlib.sha256(",".join(map(str, tokens)).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Loading:
    """A load, and the kernel counters meanwhile."""

    model_seconds: float
    context_seconds: float | None
    """None if model and context are made in one call."""
    evidence: dict[str, float]
    placement: Placement | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """Timed work, and the kernel counters meanwhile."""

    seconds: list[float]
    """Time of each token or chunk in order, or of the whole prompt."""
    tokens: int
    evidence: dict[str, float]
    native_seconds: list[float] = field(default_factory=list)
    """The part of each of `seconds` that llama.cpp's decoding took; empty if the provider is llama.cpp alone,
    or does not decode in this process."""


class WorkerProvider(Protocol):
    """A code path that drives a model. Seconds are of a monotonic clock; failures are ProviderErrors."""

    def device_free_bytes(self) -> dict[str, int]:
        """Free bytes of each device that the setting may use."""

    def drain_log(self) -> list[str]:
        """Lines of the native log since the last call."""

    def load(self) -> Loading:
        """Load the model and make it ready for tokens."""

    def effective(self) -> EffectiveSetting:
        """The settings that are in use."""

    def first_decode(self) -> Timing:
        """The first token after loading."""

    def prompt(self, number: int) -> Timing:
        """Evaluate the prompt with that number."""

    def decode(self, number: int) -> Timing:
        """Generate the tokens with that number."""

    def loop_overhead(self) -> float | None:
        """Seconds per token of the timed loop itself; None if it cannot be separated."""

    def digest(self) -> str:
        """Hash of the greedy tokens after fixed input."""

    def close(self) -> None:
        """Unload the model."""
