"""Where a series changed its level: circular binary segmentation on ranks.

The search of Olshen, Venkatraman, Lucito and Wigler (2004), "Circular binary segmentation for the analysis of
array-based DNA copy number data", Biostatistics 5(4), with the rank sum in the place of the mean. It looks
for the stretch that differs most from the rest, so that a slow-down that was mended again is found as well as
one that stayed, which is a stretch that reaches to the end. Ranks, because single bad sessions are common.

The search itself makes some stretch differ most, so its statistic is compared with that of the same search
over the same values in random order. In values that come in no order at all, a change point is found with the
probability `alpha` and no more, however many places were looked at.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_BLOCK = 111
"""Orders that are drawn at once."""

_RATIO = 1.15
"""Between the lengths of stretches that are tried."""


@dataclass(frozen=True, slots=True)
class Search:
    """How hard is looked, and how sure one wants to be."""

    alpha: float = 0.01
    """The probability to find anything where there is nothing."""
    shortest: int = 5
    """Values on each side of a change point: of fewer, the suspect rule tells."""
    permutations: int = 999
    seed: int = 0
    """Of the random orders."""


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """A place where the level changed."""

    index: int
    """Of the first value at the new level."""
    shift: float
    """How much higher the values after it are, up to the next change point: the Hodges-Lehmann estimate."""
    p: float
    """That its neighbours differ so much by chance, had the place been known before. It was searched for, so
    this is too small, and only tells stronger from weaker."""


def change_points(
    values: Sequence[float], least_shift: float = 0.0, search: Search | None = None
) -> list[ChangePoint]:
    """Where the level of a series changed by at least `least_shift`, oldest first.

    A stretch is accepted where so few random orders reach its statistic (see `_strongest`) that
    p = (1 + reached) / (1 + permutations) <= alpha; then its parts are searched. At the end each place is
    looked at again with its two neighbouring stretches only: it moves to where they differ most, and the
    weakest is dropped until all have a rank-sum p <= alpha and the least shift. That only ever takes places
    away, so alpha stays true.

    The places depend on the order of the values and on nothing else: where `least_shift` is 0, any growing
    function of them gives the same, and the same series always does. Each stretch costs about
    permutations * n * 2 * log(n / shortest) / log(1.15) additions.
    """
    import numpy as np

    search = search or Search()
    series = np.asarray(values, dtype=np.float64)
    found: list[int] = []
    parts = [(0, len(series))]
    while parts:
        start, end = parts.pop()
        stretch = _differing_stretch(series[start:end], search)
        if stretch is not None:
            edges = [start, start + stretch[0], start + stretch[1], end]
            found += [edge for edge in edges[1:3] if start < edge < end]
            parts += [(left, right) for left, right in pairwise(edges) if left < right]
    return _prune(series, sorted(found), least_shift, search)


def _differing_stretch(series: Floats, search: Search) -> tuple[int, int] | None:
    """First and past-the-last index of the stretch that differs from the rest; None where none does."""
    import numpy as np

    ranks = centered_ranks(series)
    if len(series) < 2 * search.shortest or not ranks.any():
        return None
    found = _strongest(ranks[None, :], search.shortest)
    # Equal sums, added in another order, may differ in their last digits; they count as reached.
    bar = found.statistic[0] * (1 - 1e-9)
    random = np.random.default_rng(search.seed)
    allowed = math.floor(search.alpha * (search.permutations + 1) + 1e-9) - 1
    reached, left = 0, search.permutations
    while left and reached <= allowed:
        count = min(_BLOCK, left)
        orders = random.permuted(np.broadcast_to(ranks, (count, len(ranks))), axis=1)
        reached += int((_strongest(orders, search.shortest).statistic >= bar).sum())
        left -= count
    if reached > allowed:
        return None
    return _refine(ranks, int(found.start[0]), int(found.end[0]), search.shortest)


def centered_ranks(values: Floats) -> Floats:
    """Ranks from 1, equal values sharing the mean of theirs, less the mean of all ranks."""
    import numpy as np

    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    centered: Floats = ranks - (len(values) + 1) / 2
    return centered


@dataclass(frozen=True, slots=True)
class _Found:
    statistic: Floats
    start: NDArray[np.int64]
    end: NDArray[np.int64]


def _strongest(ranks: Floats, shortest: int) -> _Found:
    """Of each row: the largest |Z| of a stretch against the rest, over stretches of some lengths.

    Z = W / sqrt(s2 * L * (n - L) / n), with W the sum of the stretch's centred ranks, L its length, n that of
    the row and s2 the variance of the ranks (divisor n - 1, so that ties are accounted for): the normalized
    rank sum of Wilcoxon. No part, inside or beside the stretch, is shorter than `shortest`.
    """
    import numpy as np

    rows, n = ranks.shape
    sums = np.concatenate([np.zeros((rows, 1)), np.cumsum(ranks, axis=1)], axis=1)
    variance = float(ranks[0] @ ranks[0]) / (n - 1)
    best, begin, stop = np.full(rows, -1.0), np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
    for length in _lengths(n, shortest):
        starts = _starts(n, length, shortest)
        z = np.abs(sums[:, starts + length] - sums[:, starts])
        z /= np.sqrt(variance * length * (n - length) / n)
        place = z.argmax(axis=1)
        highest = z[np.arange(rows), place]
        better = highest > best
        best[better], begin[better] = highest[better], starts[place[better]]
        stop[better] = begin[better] + length
    return _Found(best, begin, stop)


def _lengths(n: int, shortest: int) -> list[int]:
    """From the shortest to the longest, each some larger than the one before; and what they leave of n."""
    lengths, length = set(), float(shortest)
    while length <= n / 2:
        lengths |= {int(length), n - int(length)}
        length = max(length * _RATIO, length + 1)
    return sorted(lengths | {n // 2})


def _starts(n: int, length: int, shortest: int) -> NDArray[np.int64]:
    """Where a stretch may begin: at an end, or as far from it as the shortest part is long."""
    import numpy as np

    inside = np.arange(shortest, n - length - shortest + 1)
    return np.unique(np.concatenate([[0, n - length], inside]).astype(np.int64))


def _refine(ranks: Floats, start: int, end: int, shortest: int) -> tuple[int, int]:
    """The best stretch with its edges anywhere: each is moved to where Z is largest until neither moves."""
    import numpy as np

    n = len(ranks)
    sums = np.concatenate([[0.0], np.cumsum(ranks)])

    def strength(first: int, past: int) -> float:
        length = past - first
        return float(abs(sums[past] - sums[first]) / np.sqrt(length * (n - length)))

    for _ in range(n):
        firsts = [f for f in (0, *range(shortest, end - shortest + 1)) if end - f < n or f > 0]
        first = max(firsts, key=lambda f: (strength(f, end), f == start))
        pasts = [p for p in (*range(first + shortest, n - shortest + 1), n) if p - first < n]
        past = max(pasts, key=lambda p: (strength(first, p), p == end))
        if (first, past) == (start, end):
            break
        start, end = first, past
    return start, end


def _prune(series: Floats, places: Sequence[int], least_shift: float, search: Search) -> list[ChangePoint]:
    """Drop the weakest place until each stands between two stretches that differ."""
    left = list(places)
    while True:
        left = _settle(series, left, search.shortest)
        edges = [0, *left, len(series)]
        points = [_between(series, *three) for three in zip(edges, edges[1:], edges[2:], strict=False)]
        weak = [point for point in points if abs(point.shift) < least_shift or point.p > search.alpha]
        if not weak:
            return points
        left.remove(max(weak, key=lambda point: (point.p, -abs(point.shift))).index)


def _settle(series: Floats, places: Sequence[int], shortest: int) -> list[int]:
    """Move each place to where the stretches on both its sides differ most.

    It was found against all the rest, in which other levels may lie.
    """
    import numpy as np

    edges = [0, *places, len(series)]
    for number in range(1, len(edges) - 1):
        start, end = edges[number - 1], edges[number + 1]
        sums = np.cumsum(centered_ranks(series[start:end]))
        lengths = np.arange(shortest, end - start - shortest + 1)
        strength = np.abs(sums[lengths - 1]) / np.sqrt(lengths * (end - start - lengths))
        best = int(lengths[strength.argmax()]) + start
        here = strength[edges[number] - start - shortest]
        edges[number] = best if strength.max() > here * (1 + 1e-9) else edges[number]
    return edges[1:-1]


def _between(series: Floats, start: int, place: int, end: int) -> ChangePoint:
    """The change at a place, between the stretches on both sides."""
    import numpy as np

    before, after = series[start:place], series[place:end]
    shift = float(np.median(np.subtract.outer(after, before)))
    return ChangePoint(place, shift, rank_sum_p(before, after))


def rank_sum_p(before: Floats, after: Floats) -> float:
    """Two-sided p of Wilcoxon's rank sum, by the normal distribution, ties accounted for."""
    import numpy as np

    ranks = centered_ranks(np.concatenate([before, after]))
    n, m = len(ranks), len(after)
    variance = float(ranks @ ranks) / (n - 1) * m * (n - m) / n
    if variance == 0:
        return 1.0
    z = abs(float(ranks[-m:].sum())) / variance**0.5
    return 2 * (1 - statistics.NormalDist().cdf(z)) if z < 8 else 0.0
