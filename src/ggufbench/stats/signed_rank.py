"""Wilcoxon's signed-rank test and what belongs to it, exact: its p-values, its estimate, its interval.

All functions take differences of pairs, here log ratios, and assume of them only what the coin guarantees:
where nothing changed, each is as likely to have one sign as the other, whatever its size (Hollander, Wolfe
and Chicken, Nonparametric Statistical Methods, sections 3.1 to 3.3).

They raise ValueError for a difference that is not a finite number. The cost grows with the third power of the
number of pairs; the gate has at most some dozens.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Interval:
    """Bounds of a location, with the confidence that they really have."""

    low: float
    high: float
    level: float


def p_above(differences: Sequence[float], shift: float = 0.0) -> float:
    """One-sided p of the hypothesis that the differences lie around `shift` or below; small: they lie above.

    Equal sizes have their mean rank, and the distribution is that of all 2^n signs of those very ranks, so
    that p is exact with ties too. A difference of exactly `shift` counts as one below it, against rejection.
    1 where there are no differences.
    """
    moved = [value - shift for value in _finite(differences)]
    ranks = _double_ranks([abs(value) for value in moved])
    above = sum(rank for rank, value in zip(ranks, moved, strict=True) if value > 0)
    counts = _sums_at_most(tuple(sorted(ranks)))
    # The distribution is symmetric: as many sums are at least `above` as are at most the rest.
    return counts[sum(ranks) - above] / counts[-1]


def p_below(differences: Sequence[float], shift: float = 0.0) -> float:
    """One-sided p of the hypothesis that they lie around `shift` or above: `p_above` seen in a mirror."""
    return p_above([-value for value in differences], -shift)


def hodges_lehmann(differences: Sequence[float]) -> float:
    """The middle of the differences: the median of the means of any two of them, each with itself included.

    Hodges and Lehmann 1963, the estimate that belongs to the signed-rank test. Raises ValueError for no
    differences.
    """
    return statistics.median(_walsh(differences))


def interval(differences: Sequence[float], level: float = 0.90) -> Interval:
    """The shortest interval of the middle that has at least `level`, from the ordered means of any two.

    The k-th smallest and the k-th largest enclose it with 1 - 2 P(T < k), T being the signed-rank statistic
    (Tukey). Where even the extremes stay below `level`, as fewer than 5 differences do at 0.90, they are
    returned with the confidence they have. Raises ValueError for no differences, or a level outside [0, 1).
    """
    if not 0 <= level < 1:
        raise ValueError(f"a level of {level} is no confidence; give one from 0 up to, but not, 1")
    means = _walsh(differences)
    tails = _tails(len(differences))
    return _between(means, tails, max(1, bisect_right(tails, (1 - level) / 2)))


def strict_interval(differences: Sequence[float], tail: float) -> Interval:
    """The strictest interval whose tails are not below `tail`, a probability up to 1/2.

    It is what a test at the level `tail` needs, or, where so few differences cannot reach it, the extremes.
    Raises ValueError for no differences.
    """
    means = _walsh(differences)
    tails = _tails(len(differences))
    return _between(means, tails, min(bisect_left(tails, tail) + 1, (len(means) + 1) // 2))


def upper_bound(differences: Sequence[float], tail: float) -> float | None:
    """What the middle exceeds with a probability of at most `tail`; None where there are too few differences.

    Without ties, `p_below(differences, x) <= tail` for every x above the bound, and for none below.
    """
    tails = _tails(len(differences))
    rank = bisect_right(tails, tail)
    return _walsh(differences)[-rank] if rank else None


def _between(means: Sequence[float], tails: Sequence[float], rank: int) -> Interval:
    return Interval(means[rank - 1], means[-rank], max(0.0, 1 - 2 * tails[rank - 1]))


def _walsh(differences: Sequence[float]) -> list[float]:
    """The means of any two differences, each with itself included, in ascending order."""
    values = _finite(differences)
    if not values:
        raise ValueError("no differences have no middle; give at least one pair")
    # Halved first: the sum of two finite numbers need not be finite.
    return sorted(a / 2 + b / 2 for place, a in enumerate(values) for b in values[place:])


def _finite(differences: Sequence[float]) -> Sequence[float]:
    for value in differences:
        if not math.isfinite(value):
            raise ValueError(f"a difference of {value} is not a finite number; leave such a pair out")
    return differences


def _double_ranks(sizes: Sequence[float]) -> list[int]:
    """Twice the mean rank of each size, so that it is whole."""
    ordered = sorted(sizes)
    return [bisect_left(ordered, size) + bisect_right(ordered, size) + 1 for size in sizes]


@lru_cache(maxsize=64)
def _tails(pairs: int) -> tuple[float, ...]:
    """P(T <= t) for t from 0, of `pairs` differences without ties."""
    counts = _sums_at_most(tuple(range(2, 2 * pairs + 1, 2)))
    return tuple(count / counts[-1] for count in counts[::2])


@lru_cache(maxsize=64)
def _sums_at_most(ranks: tuple[int, ...]) -> tuple[int, ...]:
    """How many of the 2^n subsets of `ranks` have a sum of at most 0, 1, and so on up to the sum of all."""
    counts = [1] + [0] * sum(ranks)
    reached = 0
    for rank in ranks:
        reached += rank
        for total in range(reached, rank - 1, -1):
            counts[total] += counts[total - rank]
    for total in range(1, len(counts)):
        counts[total] += counts[total - 1]
    return tuple(counts)
