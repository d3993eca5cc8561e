"""Whether the newest session of a series is worse than those before it.

A series is one number for each session, a natural logarithm in which worse is more: of the ratio to the
anchor, or of the metric itself. One session can be bad by chance, two running hardly: the first makes the
series suspect, the second a regression.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

WINDOW = 20
"""Sessions that the newest one is compared with."""

LEAST = 10
"""Sessions without which nothing is said: of fewer, the spread is not known."""

OTHER_HOST_SHARE = 0.10
"""How far the anchor itself must be off its own history, in every metric, to be on another host."""

_LEAST_CELLS = 2

# 3.5 standard deviations: the median absolute deviation of normal values is 1/1.4826 of one, and the variance
# of the median of 20 is 1.57/20 of theirs.
_MOST_DEVIATIONS = 3.5 * 1.4826 * math.sqrt(1 + 1.57 / WINDOW)


class State(StrEnum):
    """What history says of a session."""

    OK = "ok"
    SUSPECT = "suspect"
    """Worse than chance and tolerance explain; a second session decides."""
    REGRESSION = "regression"
    """Two sessions running."""
    TOO_FEW = "too few"
    """Fewer than ten sessions before it."""


@dataclass(frozen=True, slots=True)
class JudgedValue:
    """One session beside those before it."""

    state: State
    before: int
    """Sessions that it was compared with."""
    center: float | None
    """Their median, as a logarithm; None where there is none."""
    excess: float | None
    """How much worse it is than that, as a logarithm."""
    limit: float | None
    """What the excess must pass: the tolerance, or the spread where that is larger."""


def judge(values: Sequence[float], tolerance: float, *, hold_out: bool) -> list[JudgedValue]:
    """Judge every session of a series, oldest first, each by the (at most 20) sessions before it.

    Session t is out of line where x_t - median > ln(1 + `tolerance`) and
    x_t - median > 3.5 * 1.4826 * MAD * sqrt(1 + 1.57/20), with median and MAD (the median absolute deviation)
    of the last 20 sessions before it, and at least 10 of them. `tolerance` is relative: 0.05 for 5 %.

    With `hold_out`, sessions that are out of line are no part of later medians. Left in, a slow-down of 8 %
    becomes the new normal after six sessions, with nobody's consent; held out, it is reported until somebody
    mends or accepts it. Simulated (sd 1 %, 4 % outliers, 1500 series), one of 5 % is then confirmed within
    ten sessions in 62 % of series instead of 49 %, and no false one is, either way. Series whose level moves
    by itself need theirs left in.
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
    """How much worse the last 10 sessions are than the first 20, where that is more than the tolerance.

    As a logarithm, by medians; None where it is not, and of fewer than 40 sessions. `judge` does not see what
    creeps: its window follows, and a steady slope widens the spread by more than it moves the newest session.
    """
    if len(values) < 2 * WINDOW:
        return None
    excess = statistics.median(values[-LEAST:]) - statistics.median(values[:WINDOW])
    return excess if excess > math.log1p(tolerance) else None


def other_host(anchor: Mapping[str, Sequence[float]]) -> float | None:
    """How much slower the anchor itself is than in its history, if it is so everywhere; else None.

    `anchor` has a series for each time or rate that the session measured, as logarithms (worse is more), the
    session itself last. The anchor never changes: where all its figures are more than 10 % off the median of
    up to 20 sessions before, and all to the same side, another host answers to the same fingerprint, or
    something slows this one throughout. Returned is the median shift, as a logarithm.

    Two series with ten sessions before are the least that can tell: one alone may be off for its own reasons.
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
