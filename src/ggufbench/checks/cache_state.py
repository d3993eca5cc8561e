"""State of the page cache at a load: cold, warm or partial."""

from __future__ import annotations

from ggufbench.records.parts import CacheState

COLD_AT_MOST = 0.02
WARM_AT_LEAST = 0.99


def cache_state(asked: CacheState, resident_fraction: float | None) -> CacheState:
    """State of a load; if the system does not report residency, a file that was just read counts as warm."""
    if resident_fraction is None:
        return "warm" if asked == "warm" else "unknown"
    if resident_fraction <= COLD_AT_MOST:
        return "cold"
    return "warm" if resident_fraction >= WARM_AT_LEAST else "partial"
