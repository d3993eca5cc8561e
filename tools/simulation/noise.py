"""Noise models: run times on a machine with drift and interference, in six models from none to very heavy.

The unit of time u is one repetition without noise. A launch is 1.5 u of loading, 1 u of warm-up, its
repetitions and 0.5 u until the next. Launches follow one another on one clock, so that drift and interference
affect adjacent launches alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

BEFORE, AFTER = 2.5, 0.5
"""Time of a launch before its first and after its last repetition, in u."""
DRIFT_STEPS = 256


@dataclass(frozen=True, slots=True)
class Bursts:
    """Bursts of interference with exponentially distributed lengths and gaps."""

    on: float
    off: float
    """Mean lengths in u."""
    least: float
    shape: float
    """Shape of a Pareto variable, drawn for each burst: times `least`, it is the added share of time."""
    cap: float
    """Maximum slow-down: 3 is three times as long."""

    def excess(self, times: np.ndarray, end: float, rng: Generator) -> np.ndarray:
        """Additional time accumulated until each of `times`, in u."""
        clock, total, is_on = 0.0, 0.0, bool(rng.random() < self.on / (self.on + self.off))
        knots, totals = [0.0], [0.0]
        while clock < end:
            length = rng.exponential(self.on if is_on else self.off)
            more = min(self.least * (1 - rng.random()) ** (-1 / self.shape), self.cap - 1) if is_on else 0.0
            clock, total, is_on = clock + length, total + more * length, not is_on
            knots.append(clock)
            totals.append(total)
        accumulated: np.ndarray = np.interp(times, knots, totals)
        return accumulated


@dataclass(frozen=True, slots=True)
class Noise:
    """A noise model. Values are shares, not percent, of normal distributions in the logarithm."""

    name: str
    words: str
    launch: float
    """Standard deviation between launches: memory layout, caches, and other differences between processes."""
    repetition: float
    drift: float = 0.0
    """Maximum drift of a session, up or down."""
    bursts: Bursts | None = None

    def session(self, launches: int, repetitions: int, length: float, rng: Generator) -> np.ndarray:
        """Log time of each repetition of the first `launches` launches of a session.

        `length` is the length of the whole session in u, over which the drift extends.
        """
        starts = np.arange(launches)[:, None] * launch_length(repetitions) + BEFORE + np.arange(repetitions)
        times = rng.normal(0, self.repetition, starts.shape) + rng.normal(0, self.launch, (launches, 1))
        if self.drift:
            clock = np.linspace(0, length, DRIFT_STEPS)
            times += np.interp(starts + 0.5, clock, drift_path(self.drift, rng))
        if self.bursts:
            end = float(starts[-1, -1]) + 1
            excess = self.bursts.excess(np.stack([starts, starts + 1]), end, rng)
            times += np.log1p(excess[1] - excess[0])
        return times


def launch_length(repetitions: int) -> float:
    """Length of one launch in u."""
    return BEFORE + repetitions + AFTER


def drift_path(most: float, rng: Generator) -> np.ndarray:
    """Mixture of a line, a sine and a random walk in random proportions, around zero, at most `most` high."""
    place = np.linspace(0, 1, DRIFT_STEPS)
    line = place * rng.choice([-1, 1])
    sine = np.sin(2 * np.pi * (place * rng.uniform(0.5, 3) + rng.random()))
    walk = np.cumsum(rng.normal(0, 1 / np.sqrt(DRIFT_STEPS), DRIFT_STEPS))
    parts = [
        weight * part / np.ptp(part) for weight, part in zip(rng.random(3), (line, sine, walk), strict=True)
    ]
    path: np.ndarray = np.sum(parts, axis=0)
    path -= path.mean()
    path *= most * rng.random() / np.abs(path).max()
    return path


USUAL = Bursts(on=8, off=40, least=0.05, shape=1.5, cap=3)
HEAVY = Bursts(on=8, off=24, least=0.10, shape=1.0, cap=10)

MODELS: Sequence[Noise] = (
    Noise("N1", "independent repetitions, 2 %", 0, 0.02),
    Noise("N2", "launches differ by 2 %, repetitions by 1 %", 0.02, 0.01),
    Noise("N3", "1 % and 1 %; drift of up to 8 % up or down", 0.01, 0.01, drift=0.08),
    Noise("N4", "1 % and 1 %; interference a sixth of the time", 0.01, 0.01, bursts=USUAL),
    Noise(
        "N5",
        "1.5 % and 1 %; drift of up to 4 %; the same interference",
        0.015,
        0.01,
        drift=0.04,
        bursts=USUAL,
    ),
    Noise("N6", "3 % and 3 %; drift of up to 5 %; heavy interference", 0.03, 0.03, drift=0.05, bursts=HEAVY),
)
