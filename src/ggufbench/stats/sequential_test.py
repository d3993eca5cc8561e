"""Sequential test of the gate: whether a change made a model slower, with known error rates.

A cell is one metric of one case; its data are the log ratios of pairs of launches, worse above zero. Pairs
are judged at a few planned interim looks. Each look tests two hypotheses with the exact signed-rank test:
"nothing got worse", which a regression must reject, and "worse by the tolerance or more", which a pass must
reject. A look may spend only its weight of the permitted error, so that stopping at any look is allowed: the
smallest p divided by its weight is a p-value by the union bound. Regressions are tested in all cells together
(Holm); a pass needs every cell, which needs no such correction. A regression must also be at least as large
as the tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from ggufbench.stats.sensitivity import LEVEL, pairs_needed, smallest_detectable
from ggufbench.stats.signed_rank import Interval, hodges_lehmann, interval, p_above, p_below, upper_bound

Verdict = Literal["regression", "improvement", "no regression", "inconclusive"]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Design:
    """Interim looks of the gate, and how the permitted errors are divided among them."""

    looks: tuple[int, ...] = (6, 10, 15)
    """Number of pairs at each look."""
    regression_weights: tuple[float, ...] = (0.0, 0.4, 0.6)
    """Share of `alpha` for each look. The first look never fails a build."""
    pass_weights: tuple[float, ...] = (0.32, 0.28, 0.40)
    """Share of `beta` for each look. Six pairs can pass: 1/64 is below 0.05 x 0.32."""
    alpha: float = 0.03
    """Family-wise type I error rate: probability of a regression in any cell if nothing got worse.

    At 0.05, four cells in very heavy noise give a false alarm in 2.3 % of all sessions, at 0.03 in 1.5 %, and
    a slow-down of 10 % in usual noise is found half a percent less often (tools/simulate.py).
    """
    beta: float = 0.05
    """Maximum probability that a cell passes although it got worse by its tolerance or more."""

    def __post_init__(self) -> None:
        ascending = sorted(set(self.looks))
        if not ascending or ascending != list(self.looks) or ascending[0] < 1:
            raise ValueError(
                f"looks {self.looks} are not ascending numbers of pairs; give for example (6, 10, 15)"
            )
        for weights in (self.regression_weights, self.pass_weights):
            if len(weights) != len(self.looks):
                raise ValueError(
                    f"{len(weights)} weights for {len(self.looks)} looks; give one weight for each look"
                )
            if min(weights) < 0 or weights[-1] <= 0 or not sum(weights) <= 1 + 1e-9:
                raise ValueError(
                    f"weights {weights} are invalid; each must be 0 or more, the last above 0, "
                    "and their sum at most 1"
                )
        for error in (self.alpha, self.beta):
            if not 0 < error < 0.5:
                raise ValueError(f"permitted error {error} is outside (0, 0.5)")

    def extended(self, factor: int) -> Design:
        """The same design with `factor` times the pairs.

        Its permitted errors are its own: if it judges what another design left inconclusive, the errors of
        both add up.
        """
        return replace(self, looks=tuple(look * factor for look in self.looks))

    def reached(self, pairs: int) -> list[int]:
        """Looks that need at most `pairs` pairs."""
        return [look for look in self.looks if look <= pairs]


STANDARD = Design()


@dataclass(frozen=True, slots=True)
class Series:
    """Data of one gated cell."""

    differences: Sequence[float]
    """ln(candidate / baseline) of each pair, worse above zero, in the order measured."""
    tolerance: float
    """Smallest relative change that counts as a regression: 0.05 is 5 %."""

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.differences)):
            raise ValueError("a log ratio is not a finite number; leave that pair out")
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise ValueError(f"tolerance {self.tolerance} is not a finite number of 0 or more")

    @property
    def limit(self) -> float:
        """The tolerance as a log ratio."""
        return math.log1p(self.tolerance)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Result for one cell. Changes are relative and worse above zero: 0.08 is 8 % slower."""

    verdict: Verdict
    decided: bool
    """Stopping rule: True if there is a verdict or the last look was reached."""
    pairs: int
    """Number of pairs judged: those of the last look that was reached, or all pairs before the first look."""
    change: float
    """The Hodges-Lehmann estimate; 0 if there are no pairs."""
    low: float
    high: float
    """Confidence interval of the change, not adjusted for interim looks."""
    level: float
    """Confidence level of the interval, at least 0.90 from 5 pairs on."""
    p_regression: float
    """p-value of "not worse", adjusted for interim looks and the family (Holm); significant if <= `alpha`."""
    p_no_regression: float
    """p-value of "worse by the tolerance or more", adjusted for interim looks; a pass if <= `beta`."""
    tolerance: float
    smallest_detectable: float | None
    """Minimum detectable effect after all looks with 80 % power; None below 5 pairs."""
    excluded_above: float | None
    """Upper bound of the worsening with confidence 1 - `beta`, adjusted for interim looks.

    None before the first look. Without ties it lies within the tolerance exactly if the verdict is
    "no regression" or "improvement".
    """
    pairs_needed: int | None
    """If inconclusive: estimated number of pairs, these included, for a verdict."""
    real_but_small: bool
    """True if the change is significant but within the tolerance: the interval lies above zero."""


@dataclass(frozen=True, slots=True)
class _Looked:
    """Result of one cell at its last look, before the correction for the family."""

    differences: Sequence[float]
    estimate: float
    p_regression: float
    p_no_regression: float
    p_improvement: float
    bound: float | None
    """Upper bound of the worsening, as a log ratio."""
    last: bool


def judge(family: Mapping[Key, Series], design: Design = STANDARD) -> dict[Key, Judgement]:
    """Judge all gated cells of a session, each at the looks that its own number of pairs has reached.

    Pairs after a cell's last look are not used until the next one. Cells without enough pairs for the first
    look are inconclusive, but belong to the family.
    """
    looked = {key: _look(series, design) for key, series in family.items()}
    adjusted = holm({key: cell.p_regression for key, cell in looked.items()})
    strictest = design.alpha * design.regression_weights[-1] / max(1, len(family))
    return {
        key: _judgement(cell, family[key], adjusted[key], strictest, design) for key, cell in looked.items()
    }


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """p-values adjusted for the number of tests under any dependence (Holm 1979); at most 1 each."""
    adjusted: dict[Key, float] = {}
    largest = 0.0
    for place, key in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[key]))
        adjusted[key] = largest
    return adjusted


def order_effect(second_over_first: Sequence[float]) -> float:
    """Two-sided p-value of "no difference between the first and the second launch of a pair".

    An order effect costs power but not validity, because the random order affects both arms equally.
    """
    return min(1.0, 2 * min(p_above(second_over_first), p_below(second_over_first)))


def _look(series: Series, design: Design) -> _Looked:
    looks = design.reached(len(series.differences))
    seen = series.differences[: looks[-1]] if looks else series.differences
    estimate = hodges_lehmann(seen) if seen else 0.0
    regression, no_regression, improvement = [1.0], [1.0], [1.0]
    bounds = []
    for look, fail_weight, pass_weight in zip(
        looks, design.regression_weights, design.pass_weights, strict=False
    ):
        pairs = series.differences[:look]
        if fail_weight:
            regression.append(p_above(pairs) / fail_weight)
        if pass_weight:
            no_regression.append(p_below(pairs, series.limit) / pass_weight)
            improvement.append(p_below(pairs) / pass_weight)
            bounds.append(upper_bound(pairs, design.beta * pass_weight))
    found = [bound for bound in bounds if bound is not None]
    return _Looked(
        differences=seen,
        estimate=estimate,
        p_regression=min(regression),
        p_no_regression=min(no_regression),
        p_improvement=min(improvement),
        # An early look may have excluded the present estimate. A pass needs both, and so does the bound.
        bound=max(min(found), estimate) if found else None,
        last=len(looks) == len(design.looks),
    )


def _judgement(
    cell: _Looked, series: Series, p_regression: float, strictest: float, design: Design
) -> Judgement:
    verdict = _verdict(cell, series, p_regression, design)
    pairs, limit = len(cell.differences), series.limit
    shown = interval(cell.differences, LEVEL) if pairs else Interval(0.0, 0.0, 0.0)
    detectable = smallest_detectable(cell.differences, shown, limit, strictest, design.looks[-1])
    # A pass needs an interval that ends below the limit, a regression an interval that begins above zero.
    distance = cell.estimate if cell.estimate >= limit else limit - cell.estimate
    needed = pairs_needed(pairs, shown, distance, design.looks)
    return Judgement(
        verdict=verdict,
        decided=verdict != "inconclusive" or cell.last,
        pairs=pairs,
        change=_relative(cell.estimate),
        low=_relative(shown.low),
        high=_relative(shown.high),
        level=shown.level,
        p_regression=p_regression,
        p_no_regression=cell.p_no_regression,
        tolerance=series.tolerance,
        smallest_detectable=None if detectable is None else _relative(detectable),
        excluded_above=None if cell.bound is None else _relative(cell.bound),
        pairs_needed=needed if verdict == "inconclusive" else None,
        real_but_small=verdict == "no regression" and shown.low > 0,
    )


def _verdict(cell: _Looked, series: Series, p_regression: float, design: Design) -> Verdict:
    if p_regression <= design.alpha and cell.estimate >= series.limit:
        return "regression"
    if cell.p_no_regression > design.beta or cell.estimate >= series.limit:
        return "inconclusive"
    is_better = cell.p_improvement <= design.beta and cell.estimate <= -series.limit
    return "improvement" if is_better else "no regression"


def _relative(log_ratio: float) -> float:
    """exp(x) - 1, at most about 1e304, because a value from a file may overflow a float."""
    return math.expm1(min(log_ratio, 700.0))
