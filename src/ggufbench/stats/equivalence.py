"""Equivalence test for two quantities measured in pairs: whether their ratio is within a tolerance of 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ggufbench.stats.sensitivity import LEVEL, pairs_needed
from ggufbench.stats.signed_rank import Interval, hodges_lehmann, interval

LEAST_PAIRS = 5
"""Fewer pairs have no 90 % interval: even the two extremes enclose the median with only 1 - 2 / 2^n."""

Verdict = Literal["agrees", "differs", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Result of the test."""

    verdict: Verdict
    ratio: float
    """Hodges-Lehmann estimate."""
    low: float
    high: float
    level: float
    """Exact confidence level of the interval, at least 0.90 from 5 pairs on."""
    pairs_needed: int | None
    """If inconclusive: estimated number of pairs, these included, for a verdict at the spread seen.

    None if more than 1000 would be needed.
    """


def equivalence(log_ratios: Sequence[float], tolerance: float) -> Equivalence:
    """Test whether a ratio lies from 1 - tolerance to 1 + tolerance, both included.

    The ratio agrees if its 90 % interval lies inside these bounds, which is two one-sided tests at 5 %
    (Schuirmann 1987, J. Pharmacokinetics and Biopharmaceutics 15, 657-680). It differs if the interval lies
    outside, and everything else is inconclusive.

    The interval is that of the signed-rank test. The interval of the median from order statistics, which
    belongs to the sign test, needs 1.5 times as many pairs with normally distributed log ratios (Hollander,
    Wolfe and Chicken, Nonparametric Statistical Methods, section 3.11). Raises ValueError for no pairs, a log
    ratio that is not finite, or a tolerance outside [0, 1].
    """
    if not 0 <= tolerance <= 1:
        raise ValueError(f"tolerance {tolerance} is outside [0, 1], so the ratio has no lower bound")
    lowest, highest = math.log(1 - tolerance) if tolerance < 1 else -math.inf, math.log(1 + tolerance)
    shown, estimate = interval(log_ratios, LEVEL), hodges_lehmann(log_ratios)
    verdict = _verdict(shown, lowest, highest)
    needed = None
    if verdict == "inconclusive":
        distance = min(abs(estimate - lowest), abs(estimate - highest))
        enough = len(log_ratios) >= LEAST_PAIRS
        needed = pairs_needed(len(log_ratios), shown, distance) if enough else LEAST_PAIRS
    return Equivalence(
        verdict, math.exp(estimate), math.exp(shown.low), math.exp(shown.high), shown.level, needed
    )


def _verdict(shown: Interval, lowest: float, highest: float) -> Verdict:
    if shown.level < LEVEL:
        return "inconclusive"
    if lowest <= shown.low and shown.high <= highest:
        return "agrees"
    return "differs" if shown.high < lowest or shown.low > highest else "inconclusive"
