"""Minimum detectable effect and required number of pairs: estimates for display, used in no verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from ggufbench.stats.signed_rank import Interval, strict_interval

LEVEL = 0.90
"""Confidence level of displayed intervals: the lower and the upper bound hold with 95 % each."""
POWER = 0.80
"""Power at the minimum detectable effect."""
MOST_PAIRS = 1000
"""Upper limit of the recommended number of pairs."""


def smallest_detectable(
    differences: Sequence[float], shown: Interval, limit: float, strictest: float, all_pairs: int
) -> float | None:
    """Minimum detectable effect with 80 % power after `all_pairs`, from the spread of these pairs.

    The effect must exceed `limit`, the tolerance, and the half-width h of the interval that is as strict as
    the test of the last look, at level `strictest`:

        max(limit, h) + z(0.8) max(s, h / z(1 - strictest))

    s is the standard error from the `shown` interval, h at least z(1 - strictest) s; both shrink with the
    square root of the number of pairs. If there are too few pairs for that level, h comes from their
    strictest interval. None if they have no 90 % interval. All values are log ratios.
    """
    if shown.level < LEVEL:
        return None
    normal = NormalDist()
    scale = math.sqrt(len(differences) / all_pairs)
    error = (shown.high - shown.low) / (2 * normal.inv_cdf((1 + shown.level) / 2)) * scale
    strict = strict_interval(differences, strictest)
    quantile = normal.inv_cdf(1 - strictest)
    half = max(quantile * error, (strict.high - strict.low) / 2 * scale)
    return max(limit, half) + normal.inv_cdf(POWER) * max(error, half / quantile)


def pairs_needed(pairs: int, shown: Interval, distance: float, looks: Sequence[int] = ()) -> int | None:
    """Estimated number of pairs, these included, for a verdict if the estimate stays the same.

    The interval shrinks with the square root of their number, and decides when it ends before the bound that
    is `distance` from the estimate. Rounded up to the next of the `looks` if one is left. None if 1000 are
    not enough, or if these pairs have no 90 % interval.
    """
    half = (shown.high - shown.low) / 2
    if shown.level < LEVEL or half * math.sqrt(pairs) >= distance * math.sqrt(MOST_PAIRS):
        return None
    least = max(pairs + 1, math.ceil(pairs * (half / distance) ** 2))
    return next((look for look in looks if look >= least), least)
