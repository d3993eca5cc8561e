"""What so many trials and so many events prove about the true rate."""

from __future__ import annotations

from math import comb

_STEPS = 60


def upper_bound(events: int, trials: int, level: float = 0.95) -> float:
    """The true rate is below this, with the confidence of `level`: the exact bound of Clopper and Pearson.

    For no event it is 1 - (1 - level)^(1/trials) (Biometrika 26, 1934). 1 where there is no trial. Raises
    ValueError for events that are no part of the trials.
    """
    if not 0 <= events <= trials:
        raise ValueError(f"{events} events are not a part of {trials} trials")
    if events == trials:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(events, trials, middle) > 1 - level else (low, middle)
    return high


def lower_bound(events: int, trials: int, level: float = 0.95) -> float:
    """The true rate is above this with the confidence of `level`."""
    return 1.0 - upper_bound(trials - events, trials, level)


def _at_most(events: int, trials: int, rate: float) -> float:
    """The probability of at most so many events."""
    return sum(comb(trials, n) * rate**n * (1 - rate) ** (trials - n) for n in range(events + 1))
