"""Ratio of a quantity in two records, with its confidence interval, from the launches of both."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

_LEAST_LEVEL = 0.5
"""Minimum confidence level of a reported interval."""
_MOST_LAUNCHES = 50
"""Maximum launches of each side. If there are more, evenly spaced ones are used.

The cost of the exact distribution grows with the fourth power of the number.
"""
_MOST_LOG = 700.0
"""Maximum absolute log ratio: exp() of more overflows a float, and no two measurements differ so much."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The candidate over the reference."""

    value: float
    """The Hodges-Lehmann estimate."""
    low: float | None
    high: float | None
    """Its confidence interval; None if there are too few launches."""
    level: float | None
    """Exact two-sided confidence level of the interval."""

    def inverse(self) -> Ratio:
        """The reference over the candidate."""
        low = None if self.high is None else 1 / self.high
        high = None if self.low is None else 1 / self.low
        return Ratio(1 / self.value, low, high, self.level)


def ratio_of(candidate: Sequence[float], reference: Sequence[float], level: float = 0.95) -> Ratio:
    """Ratio of two independent samples (the best sample of each launch) with its exact confidence interval.

    On logarithms: the median of all differences between a candidate's and a reference's value, which is the
    two-sample estimate of Hodges and Lehmann (1963); and the shortest interval between the k-th smallest and
    the k-th largest of them that has at least `level`. Its level is 1 - 2 P(U < k), U being Mann and
    Whitney's statistic without ties (Hollander, Wolfe and Chicken, Nonparametric Statistical Methods,
    sections 4.2 and 4.3); with ties the closed interval is conservative. If even the extremes stay below
    `level`, as with 3 launches against 3 (0.90), they are returned with their own level; if that is less than
    0.5, as with 1 against 2, there is no interval.

    The interval covers the variation between launches. It does not cover variation over time: other work,
    heat and the host of a virtual machine are the same for all launches of one record, which were measured in
    the same hour. For records measured at different times it is therefore weaker evidence than
    `ggufbench ab`, which measures the two launches of a pair within the same minute.

    Raises ValueError if a side is empty, a value is not a finite number above zero, or the level is outside
    [0, 1).
    """
    if not 0 <= level < 1:
        raise ValueError(f"confidence level {level} is invalid; give 0 or more and less than 1")
    above, below = _logs(candidate), _logs(reference)
    differences = sorted([a - b for a in above for b in below])
    number = len(differences)
    value = _exp((differences[(number - 1) // 2] + differences[number // 2]) / 2)
    rank, confidence = _rank(len(above), len(below), level)
    if confidence < _LEAST_LEVEL:
        return Ratio(value, None, None, None)
    return Ratio(value, _exp(differences[rank - 1]), _exp(differences[-rank]), confidence)


def usable(values: Iterable[float]) -> list[float]:
    """Values that are finite and above zero, as a ratio needs; a stored file may contain others."""
    return [value for value in values if 0 < value < math.inf]


def _logs(values: Sequence[float]) -> list[float]:
    if not values:
        raise ValueError("a ratio needs at least one launch of each side")
    count = len(values)
    if count > _MOST_LAUNCHES:
        values = [values[n * count // _MOST_LAUNCHES] for n in range(_MOST_LAUNCHES)]
    found = []
    for value in values:
        if not 0 < value < math.inf:
            raise ValueError(f"a ratio needs finite values above zero, not {value}; leave it out")
        found.append(math.log(value))
    return found


@lru_cache(maxsize=256)
def _rank(first: int, second: int, level: float) -> tuple[int, float]:
    """Rank of the ordered difference that ends the interval, and the confidence level of the interval."""
    tails = _tails(first, second)
    rank = max(1, min(bisect_right(tails, (1 - level) / 2), (first * second + 1) // 2))
    return rank, max(0.0, 1 - 2 * tails[rank - 1])


def _exp(logarithm: float) -> float:
    return math.exp(max(-_MOST_LOG, min(_MOST_LOG, logarithm)))


@lru_cache(maxsize=64)
def _tails(first: int, second: int) -> tuple[float, ...]:
    """P(U <= u) for u from 0 to half of its maximum, for samples of these sizes without ties.

    The numbers of arrangements with each U are the coefficients of the Gaussian binomial, the product over i
    from 1 to `first` of (1 - q^(second + i)) / (1 - q^i).
    """
    size = first * second + 1
    counts = [1] + [0] * (size - 1)
    for i in range(1, first + 1):
        for power in range(size - 1, second + i - 1, -1):
            counts[power] -= counts[power - second - i]
        for power in range(i, size):
            counts[power] += counts[power - i]
    total, reached, found = sum(counts), 0, []
    for count in counts[: size // 2 + 1]:
        reached += count
        found.append(reached / total)
    return tuple(found)
