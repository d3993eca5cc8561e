"""Change points of a series: circular binary segmentation on ranks.

The search of Olshen, Venkatraman, Lucito and Wigler (2004), "Circular binary segmentation for the analysis of
array-based DNA copy number data", Biostatistics 5(4), with the rank sum instead of the mean. It finds the
segment that differs most from the rest, so that a slow-down that was fixed later is found as well as one that
stayed, which is a segment that reaches to the end. It uses ranks because single bad sessions are common.

The search itself selects the segment that differs most, so its statistic is compared with that of the same
search over random permutations of the values. If the values are exchangeable, a change point is found with
probability `alpha` at most, regardless of the number of places searched.
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
"""Number of permutations computed at once."""

_RATIO = 1.15
"""Ratio of successive segment lengths in the search."""


@dataclass(frozen=True, slots=True)
class Search:
    """Parameters of the change-point search."""

    alpha: float = 0.01
    """Type I error: probability of finding any change point in a series without one."""
    shortest: int = 5
    """Minimum segment length; shorter changes are reported by the suspect rule."""
    permutations: int = 999
    seed: int = 0
    """Seed of the random permutations."""


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """A place where the level changed."""

    index: int
    """Index of the first value at the new level."""
    shift: float
    """Hodges-Lehmann estimate of how much higher the values after it are, up to the next change point."""
    p: float
    """Rank-sum p-value of the difference between the two adjacent segments, for a place fixed in advance.

    The place was searched for, so this value is too small; use it only to order change points by strength.
    """


def change_points(
    values: Sequence[float], least_shift: float = 0.0, search: Search | None = None
) -> list[ChangePoint]:
    """Places at which the level of a series changed by at least `least_shift`, oldest first.

    A segment is accepted if so few permutations reach its statistic (see `_strongest`) that
    p = (1 + reached) / (1 + permutations) <= alpha; then its parts are searched. At the end each place is
    tested again with its two adjacent segments only: it moves to where they differ most, and the weakest is
    dropped until all have a rank-sum p <= alpha and the least shift. This step only removes places, so alpha
    still holds.

    The result depends only on the ranks of the values if `least_shift` is 0: any increasing function of them
    gives the same places, and the same series always gives the same result. Each segment costs about
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
    """First and past-the-last index of the segment that differs from the rest, or None."""
    import numpy as np

    ranks = centered_ranks(series)
    if len(series) < 2 * search.shortest or not ranks.any():
        return None
    found = _strongest(ranks[None, :], search.shortest)
    # Equal sums added in another order may differ in their last digits; they count as reached.
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
    """Ranks from 1, with the mean rank for ties, minus the mean of all ranks."""
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
    """Largest |Z| of a segment against the rest, for each row, over a grid of segment lengths.

    Z = W / sqrt(s2 * L * (n - L) / n), with W the sum of the segment's centred ranks, L its length, n that of
    the row and s2 the variance of the ranks (divisor n - 1, which corrects for ties): the normalized rank sum
    of Wilcoxon. Neither the segment nor what is left on either side is shorter than `shortest`.
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
    """Segment lengths to try: a geometric grid from `shortest` to n / 2, and n minus each of them."""
    lengths, length = set(), float(shortest)
    while length <= n / 2:
        lengths |= {int(length), n - int(length)}
        length = max(length * _RATIO, length + 1)
    return sorted(lengths | {n // 2})


def _starts(n: int, length: int, shortest: int) -> NDArray[np.int64]:
    """Allowed starts of a segment: at an end of the row, or at least `shortest` away from both ends."""
    import numpy as np

    inside = np.arange(shortest, n - length - shortest + 1)
    return np.unique(np.concatenate([[0, n - length], inside]).astype(np.int64))


def _refine(ranks: Floats, start: int, end: int, shortest: int) -> tuple[int, int]:
    """Move each edge of a segment to where |Z| is largest, until neither edge moves."""
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
    """Drop the weakest place until each lies between two segments that differ."""
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
    """Move each place to where its two adjacent segments differ most.

    It was found against the whole rest of the series, which may contain other levels.
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
    """The change at a place, between its two adjacent segments."""
    import numpy as np

    before, after = series[start:place], series[place:end]
    shift = float(np.median(np.subtract.outer(after, before)))
    return ChangePoint(place, shift, rank_sum_p(before, after))


def rank_sum_p(before: Floats, after: Floats) -> float:
    """Two-sided p-value of Wilcoxon's rank-sum test by the normal approximation, corrected for ties."""
    import numpy as np

    ranks = centered_ranks(np.concatenate([before, after]))
    n, m = len(ranks), len(after)
    variance = float(ranks @ ranks) / (n - 1) * m * (n - m) / n
    if variance == 0:
        return 1.0
    z = abs(float(ranks[-m:].sum())) / variance**0.5
    return 2 * (1 - statistics.NormalDist().cdf(z)) if z < 8 else 0.0
