"""Do two ways of measuring one thing agree: the ratio of their rates, pair by pair."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Literal

LEVEL = 0.95
"""The least confidence of an interval, where there are pairs enough for it."""

Verdict = Literal["agrees", "differs"]


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a median lies, with the confidence it really has."""

    low: float
    high: float
    level: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """One test measured by both sides; rates in tokens per second."""

    test: str
    """Named as llama-bench does: `pp512`, `tg64`, `tg64 @ d1024`."""
    ours: list[float]
    """The best sample of each launch, pair by pair."""
    theirs: list[float]
    ratios: list[float]
    """Ours over theirs, pair by pair."""
    ours_median: float
    theirs_median: float
    ratio_median: float
    interval: Interval
    """Of the median of the ratios."""
    verdict: Verdict


def agreement(test: str, ours: Sequence[float], theirs: Sequence[float], tolerance: float) -> Agreement:
    """Compare the rates of both sides, which are in pairs.

    They agree when the median ratio lies within 1 - tolerance and 1 + tolerance, both included. Raises
    ValueError where there is no pair, where a rate has no partner, or where one is not above zero.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} rates are no pairs; give both sides equally many")
    if min(*ours, *theirs) <= 0:
        raise ValueError("a rate is not above zero; give tokens per second")
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    middle = statistics.median(ratios)
    return Agreement(
        test=test,
        ours=list(ours),
        theirs=list(theirs),
        ratios=ratios,
        ours_median=statistics.median(ours),
        theirs_median=statistics.median(theirs),
        ratio_median=middle,
        interval=median_interval(ratios),
        verdict="agrees" if 1 - tolerance <= middle <= 1 + tolerance else "differs",
    )


def median_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The exact interval of the median from order statistics, as short as the level allows.

    Each value lies below the median with a chance of one half, whatever the distribution, so the k-th
    smallest and the k-th largest of n enclose it with probability 1 - 2 P(Binomial(n, 1/2) < k) (David and
    Nagaraja, Order Statistics, section 7.1). Where even the extremes stay below `level`, as fewer than 6
    values do at 0.95, they are returned with the confidence they have. Raises ValueError for no values.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("an interval needs at least one value")
    rank = 1
    while 2 * (rank + 1) <= len(ordered) and _coverage(len(ordered), rank + 1) >= level:
        rank += 1
    return Interval(ordered[rank - 1], ordered[-rank], _coverage(len(ordered), rank))


def build_problem(library: str, llama_bench: str) -> str | None:
    """Why the two builds may not be the same llama.cpp, by their commits; None where they are.

    A build from a source distribution calls itself `-dirty` in one of the places and not in the other.
    """
    ours, theirs = library.removesuffix("-dirty"), llama_bench.removesuffix("-dirty")
    if "" in (ours, theirs) or "unknown" in (ours, theirs):
        return (
            "whether both are one build of llama.cpp is not known: "
            f"the library says {library or 'nothing'!r}, llama-bench says {llama_bench or 'nothing'!r}"
        )
    if ours.startswith(theirs) or theirs.startswith(ours):
        return None
    return (
        f"llama-bench is another llama.cpp ({llama_bench}) than the library ({library}), "
        "so a difference may be the builds'; build one with tools/build_llama_bench.sh"
    )


def _coverage(count: int, rank: int) -> float:
    """Probability that the `rank`-th smallest and the `rank`-th largest of `count` enclose the median."""
    outside = 2 * sum(comb(count, below) for below in range(rank))
    inside: float = (2**count - outside) / 2**count
    return max(0.0, inside)
