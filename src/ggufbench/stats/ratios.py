"""How many times one measured quantity is another, from the launches of two records."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

_LEAST_LEVEL = 0.5
"""An interval with less confidence than a coin says nothing."""
_MOST_LAUNCHES = 50
"""Of each side. Of more, evenly spaced ones count: the exact distribution grows with the fourth power."""
_MOST_LOG = 700.0
"""exp() of more is beyond what a float holds, and no ratio of two real measurements."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """The candidate over the reference."""

    value: float
    """The Hodges-Lehmann estimate."""
    low: float | None
    high: float | None
    """Its interval; None where there are too few launches for one."""
    level: float | None
    """The confidence that the interval really has, both sides together."""

    def inverse(self) -> Ratio:
        """The reference over the candidate."""
        low = None if self.high is None else 1 / self.high
        high = None if self.low is None else 1 / self.low
        return Ratio(1 / self.value, low, high, self.level)


def ratio_of(candidate: Sequence[float], reference: Sequence[float], level: float = 0.95) -> Ratio:
    """The ratio of two independent samples, here the best sample of each launch, with its exact interval.

    On logarithms: the median of all differences between a candidate's and a reference's value, which is the
    two-sample estimate of Hodges and Lehmann (1963); and the shortest interval between the k-th smallest and
    the k-th largest of them that has at least `level`. It has 1 - 2 P(U < k), U being Mann and Whitney's
    statistic without ties (Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, sections 4.2 and
    4.3); with ties the closed interval is conservative, it has that or more. Where even the extremes stay
    below `level`, as with 3 launches against 3 (0.90), they are returned with the confidence they have; where
    that is less than 0.5, as with 1 against 2, there is no interval.

    What it covers: how launches differ from each other. What it does not: launches of one record share its
    hour, and all that an hour changes (other work, heat, the host of a virtual machine) is the same in all of
    them. For records that were not measured side by side it therefore says less than `ggufbench ab`, whose
    pairs share their minute.

    Raises ValueError where a side is empty, a value is not a finite number above zero, or the level is
    outside [0, 1).
    """
    if not 0 <= level < 1:
        raise ValueError(f"a level of {level} is no confidence; give one from 0 up to, but not, 1")
    above, below = _logs(candidate), _logs(reference)
    differences = sorted([a - b for a in above for b in below])
    number = len(differences)
    value = _exp((differences[(number - 1) // 2] + differences[number // 2]) / 2)
    rank, confidence = _rank(len(above), len(below), level)
    if confidence < _LEAST_LEVEL:
        return Ratio(value, None, None, None)
    return Ratio(value, _exp(differences[rank - 1]), _exp(differences[-rank]), confidence)


def usable(values: Iterable[float]) -> list[float]:
    """Those that a ratio can be made of: finite and above zero, which a stored file need not respect."""
    return [value for value in values if 0 < value < math.inf]


def _logs(values: Sequence[float]) -> list[float]:
    if not values:
        raise ValueError("a ratio needs at least one launch on each side")
    count = len(values)
    if count > _MOST_LAUNCHES:
        values = [values[n * count // _MOST_LAUNCHES] for n in range(_MOST_LAUNCHES)]
    found = []
    for value in values:
        if not 0 < value < math.inf:
            raise ValueError(f"a ratio of {value} is not defined; leave values out that are not above zero")
        found.append(math.log(value))
    return found


@lru_cache(maxsize=256)
def _rank(first: int, second: int, level: float) -> tuple[int, float]:
    """Which of the ordered differences ends the interval, and the confidence that it has."""
    tails = _tails(first, second)
    rank = max(1, min(bisect_right(tails, (1 - level) / 2), (first * second + 1) // 2))
    return rank, max(0.0, 1 - 2 * tails[rank - 1])


def _exp(logarithm: float) -> float:
    return math.exp(max(-_MOST_LOG, min(_MOST_LOG, logarithm)))


@lru_cache(maxsize=64)
def _tails(first: int, second: int) -> tuple[float, ...]:
    """P(U <= u) for u from 0 to the middle, of samples of these sizes without ties.

    The number of arrangements with each U are the coefficients of the Gaussian binomial, the product over i
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
