"""Exact confidence bounds of a rate, from a number of events in a number of trials."""

from __future__ import annotations

from math import comb

_STEPS = 60


def upper_bound(events: int, trials: int, level: float = 0.95) -> float:
    """Exact upper confidence bound of the true rate (Clopper and Pearson, Biometrika 26, 1934).

    With 0 events it is 1 - (1 - level)^(1/trials); with 0 trials it is 1. Raises ValueError unless
    0 <= events <= trials.
    """
    if not 0 <= events <= trials:
        raise ValueError(f"{events} events in {trials} trials are impossible; give 0 <= events <= trials")
    if events == trials:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(events, trials, middle) > 1 - level else (low, middle)
    return high


def lower_bound(events: int, trials: int, level: float = 0.95) -> float:
    """Exact lower confidence bound of the true rate."""
    return 1.0 - upper_bound(trials - events, trials, level)


def _at_most(events: int, trials: int, rate: float) -> float:
    """Probability of at most `events` events."""
    return sum(comb(trials, n) * rate**n * (1 - rate) ** (trials - n) for n in range(events + 1))
