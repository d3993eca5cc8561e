"""The gate and common methods, applied to the same simulated sessions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.random import Generator, SeedSequence, default_rng
from scipy.stats import mannwhitneyu
from simulation.noise import MODELS, Noise, launch_length

from ggufbench.stats.sequential_test import STANDARD, Judgement, Series, judge

SEED = 4
TOLERANCE = 0.05
CHANGES = (0.0, 0.03, 0.05, 0.10)
REPETITIONS = 3
"""Repetitions in each launch, the harness's default."""
SESSION = 2 * STANDARD.looks[-1]
"""Launches of both arms together."""
LENGTH = SESSION * launch_length(REPETITIONS)
ARM = 10
"""Launches of each arm for the common methods; a session of the gate has 12 to 30 of both arms."""
ONE_RUN = 5
"""Repetitions in the method with one launch of each arm."""
MWU_LEVEL = 0.025

Method = Literal[
    "gate, 1 cell",
    "gate, 4 cells",
    "gate, at its smallest detectable change",
    "median > 5 %",
    "Mann-Whitney",
    "Mann-Whitney, in pairs",
    "one run each",
]
CELLS: dict[Method, int] = {"gate, 1 cell": 1, "gate, 4 cells": 4}


@dataclass(slots=True)
class Tally:
    """Results of a method over the sessions of one model with one change."""

    runs: int = 0
    found: int = 0
    """Sessions with a regression in the changed cell, or, without a change, in any cell."""
    passed: int = 0
    launches: int = 0
    reported: list[float] = field(default_factory=list)
    """Minimum detectable effects reported by the gate."""

    def add(self, found: bool, passed: bool, launches: int) -> None:
        """Add one session."""
        self.runs += 1
        self.found += found
        self.passed += passed
        self.launches += launches

    def merge(self, other: Tally) -> None:
        """Add the sessions of another tally."""
        self.runs += other.runs
        self.found += other.found
        self.passed += other.passed
        self.launches += other.launches
        self.reported += other.reported


Tallies = dict[tuple[Method, float], Tally]
"""Tally by method and change; the change of `gate, at its smallest detectable change` is written as 0."""


def simulate(model: int, runs: range) -> Tallies:
    """Judge the sessions of a model with these numbers. A session depends only on its number."""
    noise = MODELS[model]
    tallies: Tallies = {}
    pooled: list[np.ndarray] = []
    signs: list[np.ndarray] = []
    single: list[np.ndarray] = []
    for run in runs:
        rng = default_rng(SeedSequence(SEED, spawn_key=(model, run)))
        cells = [noise.session(SESSION, REPETITIONS, LENGTH, rng) for _ in range(max(CELLS.values()))]
        order = rng.choice([-1, 1], SESSION // 2)
        pooled.append(cells[0][: 2 * ARM])
        signs.append(order[:ARM])
        single.append(noise.session(2, ONE_RUN, LENGTH, rng))
        judge_by_gate([log_ratios(times, order) for times in cells], noise, rng, tallies)
    judge_by_common_methods(np.array(pooled), np.array(signs), np.array(single), tallies)
    return tallies


def log_ratios(times: np.ndarray, order: np.ndarray) -> list[float]:
    """ln(candidate / baseline) of each pair of launches, from the best repetition of each launch.

    `order` is 1 for a pair whose second launch is the candidate, else -1.
    """
    best = times.min(axis=1)
    ratios: list[float] = ((best[1::2] - best[0::2]) * order).tolist()
    return ratios


def judge_by_gate(cells: Sequence[Sequence[float]], noise: Noise, rng: Generator, tallies: Tallies) -> None:
    """Judge all changes with one cell and with several, the first one changed; and test the gate's claim."""
    for method, count in CELLS.items():
        for change in CHANGES:
            judged = gate_session(cells[:count], change)
            verdicts = [cell.verdict for cell in judged]
            found = "regression" in (verdicts[:1] if change else verdicts)
            passed = all(verdict in ("no regression", "improvement") for verdict in verdicts)
            tally = tallies.setdefault((method, change), Tally())
            tally.add(found, passed, 2 * judged[0].pairs)
            if count == 1 and not change:
                claim(judged[0], noise, rng, tallies)


def claim(judged: Judgement, noise: Noise, rng: Generator, tallies: Tallies) -> None:
    """Test in another session whether the minimum detectable effect reported by this one is found."""
    reported = judged.smallest_detectable
    if reported is None:
        raise ValueError(f"{judged.pairs} pairs have no minimum detectable effect; a look has at least 5")
    fresh = log_ratios(noise.session(SESSION, REPETITIONS, LENGTH, rng), rng.choice([-1, 1], SESSION // 2))
    (again,) = gate_session([fresh], reported)
    tally = tallies.setdefault(("gate, at its smallest detectable change", 0.0), Tally())
    tally.add(again.verdict == "regression", again.verdict == "no regression", 2 * again.pairs)
    tally.reported.append(reported)


def gate_session(cells: Sequence[Sequence[float]], change: float) -> list[Judgement]:
    """Judge as the harness does until all cells are decided or one is a regression; the first is changed."""
    shifts = [math.log1p(change), *[0.0] * (len(cells) - 1)]
    for judged in looks(cells, shifts):
        verdicts = [cell.verdict for cell in judged]
        if "regression" in verdicts or all(cell.decided for cell in judged):
            break
    return judged


def looks(cells: Sequence[Sequence[float]], shifts: Sequence[float]) -> Iterator[list[Judgement]]:
    """The gate's judgements at each of its looks."""
    for look in STANDARD.looks:
        family = {
            place: Series([value + shift for value in cell[:look]], TOLERANCE)
            for place, (cell, shift) in enumerate(zip(cells, shifts, strict=True))
        }
        yield list(judge(family).values())


def judge_by_common_methods(
    pooled: np.ndarray, signs: np.ndarray, single: np.ndarray, tallies: Tallies
) -> None:
    """Judge by the common methods. The axes are sessions, launches and repetitions; values are logarithms."""
    runs = len(pooled)
    first, second = pooled[:, :ARM].reshape(runs, -1), pooled[:, ARM:].reshape(runs, -1)
    is_second = np.repeat((signs > 0)[:, :, None], REPETITIONS, axis=2)
    odd, even = pooled[:, 0::2], pooled[:, 1::2]
    baseline = np.where(is_second, odd, even).reshape(runs, -1)
    candidate = np.where(is_second, even, odd).reshape(runs, -1)
    for change in CHANGES:
        shift = math.log1p(change)
        verdicts: dict[Method, np.ndarray] = {
            "median > 5 %": larger_median(first, second + shift),
            "Mann-Whitney": mann_whitney(first, second + shift),
            "Mann-Whitney, in pairs": mann_whitney(baseline, candidate + shift),
            "one run each": larger_median(single[:, 0], single[:, 1] + shift),
        }
        for method, found in verdicts.items():
            launches = 2 if method == "one run each" else 2 * ARM
            count = int(found.sum())
            tally = Tally(runs, count, runs - count, launches * runs)
            tallies.setdefault((method, change), Tally()).merge(tally)


def larger_median(baseline: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """`--benchmark-compare-fail=median:5%`: compares only the medians of all repetitions."""
    ratio: np.ndarray = np.median(candidate, axis=1) - np.median(baseline, axis=1)
    return ratio > math.log1p(TOLERANCE)


def mann_whitney(baseline: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Mann-Whitney test that treats every repetition as an independent measurement."""
    p_values: np.ndarray = mannwhitneyu(candidate, baseline, alternative="greater", axis=1).pvalue
    return p_values <= MWU_LEVEL
