"""Wilcoxon's exact signed-rank test: p-values, estimate and confidence interval.

All functions take differences of pairs, here log ratios. They assume only what the random order within a pair
guarantees: if nothing changed, both signs of a difference are equally likely, regardless of its size
(Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, sections 3.1 to 3.3).

They raise ValueError for a difference that is not a finite number. The cost grows with the third power of the
number of pairs; the gate has at most a few dozen.
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
    """Confidence interval of a location, with its exact level."""

    low: float
    high: float
    level: float


def p_above(differences: Sequence[float], shift: float = 0.0) -> float:
    """One-sided p-value of "the differences lie around `shift` or below"; a small value means above.

    Ties share their mean rank, and the distribution is that of all 2^n signs of these ranks, so that p is
    exact with ties too. A difference of exactly `shift` counts as below it, which is conservative. 1 without
    any difference.
    """
    moved = [value - shift for value in _finite(differences)]
    ranks = _double_ranks([abs(value) for value in moved])
    above = sum(rank for rank, value in zip(ranks, moved, strict=True) if value > 0)
    counts = _sums_at_most(tuple(sorted(ranks)))
    # The distribution is symmetric: as many sums are >= `above` as are <= the total minus `above`.
    return counts[sum(ranks) - above] / counts[-1]


def p_below(differences: Sequence[float], shift: float = 0.0) -> float:
    """One-sided p-value of "the differences lie around `shift` or above": the mirror image of `p_above`."""
    return p_above([-value for value in differences], -shift)


def hodges_lehmann(differences: Sequence[float]) -> float:
    """Hodges-Lehmann estimate (1963): the median of the means of all pairs, each value with itself included.

    It is the estimate that belongs to the signed-rank test. Raises ValueError for no differences.
    """
    return statistics.median(_walsh(differences))


def interval(differences: Sequence[float], level: float = 0.90) -> Interval:
    """Shortest confidence interval of the location with at least `level`, from the ordered pairwise means.

    The k-th smallest and the k-th largest enclose it with 1 - 2 P(T < k), T being the signed-rank statistic
    (Tukey). If even the extremes stay below `level`, as with fewer than 5 differences at 0.90, they are
    returned with their own level. Raises ValueError for no differences, or a level outside [0, 1).
    """
    if not 0 <= level < 1:
        raise ValueError(f"confidence level {level} is invalid; give 0 or more and less than 1")
    means = _walsh(differences)
    tails = _tails(len(differences))
    return _between(means, tails, max(1, bisect_right(tails, (1 - level) / 2)))


def strict_interval(differences: Sequence[float], tail: float) -> Interval:
    """Widest interval whose tail probabilities are not below `tail`, a probability up to 1/2.

    A test at level `tail` needs this interval. If there are too few differences for that level, it consists
    of the extremes. Raises ValueError for no differences.
    """
    means = _walsh(differences)
    tails = _tails(len(differences))
    return _between(means, tails, min(bisect_left(tails, tail) + 1, (len(means) + 1) // 2))


def upper_bound(differences: Sequence[float], tail: float) -> float | None:
    """Upper confidence bound of the location with confidence 1 - `tail`; None for too few differences.

    Without ties, `p_below(differences, x) <= tail` for every x above the bound, and for no x below it.
    """
    tails = _tails(len(differences))
    rank = bisect_right(tails, tail)
    return _walsh(differences)[-rank] if rank else None


def _between(means: Sequence[float], tails: Sequence[float], rank: int) -> Interval:
    return Interval(means[rank - 1], means[-rank], max(0.0, 1 - 2 * tails[rank - 1]))


def _walsh(differences: Sequence[float]) -> list[float]:
    """Pairwise means of the differences (Walsh averages), each with itself included, in ascending order."""
    values = _finite(differences)
    if not values:
        raise ValueError("an estimate needs at least one difference")
    # Halved before adding, because the sum of two finite numbers may overflow.
    return sorted(a / 2 + b / 2 for place, a in enumerate(values) for b in values[place:])


def _finite(differences: Sequence[float]) -> Sequence[float]:
    for value in differences:
        if not math.isfinite(value):
            raise ValueError(f"difference {value} is not a finite number; leave that pair out")
    return differences


def _double_ranks(sizes: Sequence[float]) -> list[int]:
    """Twice the mean rank of each size, which is an integer."""
    ordered = sorted(sizes)
    return [bisect_left(ordered, size) + bisect_right(ordered, size) + 1 for size in sizes]


@lru_cache(maxsize=64)
def _tails(pairs: int) -> tuple[float, ...]:
    """P(T <= t) for t from 0, for `pairs` differences without ties."""
    counts = _sums_at_most(tuple(range(2, 2 * pairs + 1, 2)))
    return tuple(count / counts[-1] for count in counts[::2])


@lru_cache(maxsize=64)
def _sums_at_most(ranks: tuple[int, ...]) -> tuple[int, ...]:
    """Number of the 2^n subsets of `ranks` with a sum of at most 0, 1, and so on up to the sum of all."""
    counts = [1] + [0] * sum(ranks)
    reached = 0
    for rank in ranks:
        reached += rank
        for total in range(reached, rank - 1, -1):
            counts[total] += counts[total - rank]
    for total in range(1, len(counts)):
        counts[total] += counts[total - 1]
    return tuple(counts)
