"""Test whether the newest session of a series is worse than those before it.

A series has one number for each session, a natural logarithm in which larger is worse: of the ratio to the
anchor, or of the metric itself. One session can be an outlier by chance, two in a row hardly: the first makes
the series suspect, the second is a regression.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

WINDOW = 20
"""Number of sessions that the newest one is compared with."""

LEAST = 10
"""Minimum number of sessions for a judgement; the spread of fewer is unknown."""

OTHER_HOST_SHARE = 0.10
"""Smallest shift of the anchor, in every metric, that indicates another host."""

_LEAST_CELLS = 2

# 3.5 standard deviations: the median absolute deviation of normal values is 1/1.4826 of one, and the variance
# of the median of 20 is 1.57/20 of theirs.
_MOST_DEVIATIONS = 3.5 * 1.4826 * math.sqrt(1 + 1.57 / WINDOW)


class State(StrEnum):
    """State of a session."""

    OK = "ok"
    SUSPECT = "suspect"
    """Worse than chance and tolerance explain; a second session decides."""
    REGRESSION = "regression"
    """Worse in two sessions in a row."""
    TOO_FEW = "too few"
    """Fewer than ten sessions before it."""


@dataclass(frozen=True, slots=True)
class JudgedValue:
    """One session compared with those before it."""

    state: State
    before: int
    """Number of sessions that it was compared with."""
    center: float | None
    """Their median, as a logarithm; None without sessions."""
    excess: float | None
    """Excess over that median, as a logarithm."""
    limit: float | None
    """Threshold of the excess: the tolerance, or the spread if that is larger."""


def judge(values: Sequence[float], tolerance: float, *, hold_out: bool) -> list[JudgedValue]:
    """Judge every session of a series, oldest first, each by the (at most 20) sessions before it.

    Session t is out of line if x_t - median > ln(1 + `tolerance`) and x_t - median > 3.5 * 1.4826 * MAD *
    sqrt(1 + 1.57/20), with median and MAD (the median absolute deviation) of the last 20 sessions before
    it, and at least 10 of them. `tolerance` is relative: 0.05 for 5 %.

    With `hold_out`, sessions out of line do not enter later medians. Without it, a slowdown of 8 %
    becomes the new normal after six sessions, unnoticed; with it, the slowdown is reported until it is
    fixed or accepted. In a simulation (sd 1 %, 4 % outliers, 1500 series), a slowdown of 5 % is then
    confirmed within ten sessions in 62 % of series instead of 49 %, without false confirmations in either
    case. Series whose level drifts need `hold_out` off.
    """
    kept: list[float] = []
    judged: list[JudgedValue] = []
    for value in values:
        found = _judge_one(value, kept[-WINDOW:], tolerance, suspected=bool(judged) and _is_out(judged[-1]))
        judged.append(found)
        if not (hold_out and _is_out(found)):
            kept.append(value)
    return judged


def _judge_one(value: float, before: Sequence[float], tolerance: float, *, suspected: bool) -> JudgedValue:
    if not before:
        return JudgedValue(State.TOO_FEW, 0, None, None, None)
    center = statistics.median(before)
    excess = value - center
    if len(before) < LEAST:
        return JudgedValue(State.TOO_FEW, len(before), center, excess, None)
    deviation = statistics.median([abs(other - center) for other in before])
    limit = max(math.log1p(tolerance), _MOST_DEVIATIONS * deviation)
    state = State.OK
    if excess > limit:
        state = State.REGRESSION if suspected else State.SUSPECT
    return JudgedValue(state, len(before), center, excess, limit)


def _is_out(found: JudgedValue) -> bool:
    return found.state in (State.SUSPECT, State.REGRESSION)


def creep(values: Sequence[float], tolerance: float) -> float | None:
    """Slowdown of the last 10 sessions against the first 20, if it exceeds the tolerance.

    A logarithm, by medians; None otherwise, and with fewer than 40 sessions. `judge` does not detect
    drift: its window follows, and a steady slope widens the spread by more than it moves the newest
    session.
    """
    if len(values) < 2 * WINDOW:
        return None
    excess = statistics.median(values[-LEAST:]) - statistics.median(values[:WINDOW])
    return excess if excess > math.log1p(tolerance) else None


def other_host(anchor: Mapping[str, Sequence[float]]) -> float | None:
    """Slowdown of the anchor itself against its history, if it occurs in every figure; else None.

    `anchor` has a series for each time or rate that the session measured, as logarithms (larger is
    worse), the session itself last. The anchor never changes: if all its figures are more than 10 % off
    the median of up to 20 sessions before, all in the same direction, then another host has the same
    fingerprint, or the whole host is slower. The result is the median shift, as a logarithm.

    At least two series with ten sessions each are needed: a single one may be off for its own reasons.
    """
    shifts = [
        values[-1] - statistics.median(values[-1 - WINDOW : -1])
        for values in anchor.values()
        if len(values) > LEAST
    ]
    if len(shifts) < _LEAST_CELLS:
        return None
    far = math.log1p(OTHER_HOST_SHARE)
    if min(shifts) > far or max(shifts) < -far:
        return statistics.median(shifts)
    return None
