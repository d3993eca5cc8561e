"""What pairs of launches could have shown, and how many more would show it. Estimates, for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from ggufbench.stats.signed_rank import Interval, strict_interval

LEVEL = 0.90
"""Of the interval that is shown: its lower and its upper bound hold with 95 % each."""
POWER = 0.80
"""With which the smallest detectable change would be found."""
MOST_PAIRS = 1000
"""To ask for more would be no advice."""


def smallest_detectable(
    differences: Sequence[float], shown: Interval, limit: float, strictest: float, all_pairs: int
) -> float | None:
    """The smallest shift found with 80 % after `all_pairs`, by the spread that these pairs have.

    To be found it must pass `limit`, the tolerance, and the half-width h of the interval that is as strict as
    the last look's test, of level `strictest`:

        max(limit, h) + z(0.8) max(s, h / z(1 - strictest))

    s is the standard error by the `shown` interval, h at least z(1 - strictest) s; both shrink with the root
    of the number of pairs. Where so few pairs cannot be so strict, their strictest interval gives h. None
    where they have no interval of 90 %. All are log ratios.
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
    """Estimate how many pairs, these included, would decide if the estimate stayed.

    The interval shrinks with the root of their number, and decides when it ends before the bound that lies
    `distance` from the estimate. Rounded up to the next of the `looks` where one is left. None where 1000
    would not do, or where these pairs have no interval of 90 %.
    """
    half = (shown.high - shown.low) / 2
    if shown.level < LEVEL or half * math.sqrt(pairs) >= distance * math.sqrt(MOST_PAIRS):
        return None
    least = max(pairs + 1, math.ceil(pairs * (half / distance) ** 2))
    return next((look for look in looks if look >= least), least)
