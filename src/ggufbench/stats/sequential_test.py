"""The gate: whether a change made a model slower, with known error rates.

A cell is one metric of one case; its data are the log ratios of pairs of launches, worse above zero. Pairs
are judged at a few planned looks. Each look tests twice, by the exact signed-rank test: that nothing got
worse, which a regression must reject, and that it got worse by the tolerance or more, which a pass must
reject. A look may spend only its weight of the permitted error, so that stopping at any look is allowed: the
smallest p over its weight is a p-value by the union bound. Regressions are tested in all cells together
(Holm); a pass needs every cell, which needs no such correction. A regression must besides be as large as the
tolerance.
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
    """When the gate looks, and how the permitted errors are shared among the looks."""

    looks: tuple[int, ...] = (6, 10, 15)
    """Numbers of pairs."""
    regression_weights: tuple[float, ...] = (0.0, 0.4, 0.6)
    """Shares of `alpha`. The first look never fails a build."""
    pass_weights: tuple[float, ...] = (0.32, 0.28, 0.40)
    """Shares of `beta`. Six pairs can pass: 1/64 is below 0.05 x 0.32."""
    alpha: float = 0.03
    """Most probability of a regression found, in any cell, where nothing got worse.

    At 0.05 four cells in very heavy noise alarm in 2.3 % of all sessions, at 0.03 in 1.5 %, and a slow-down
    of 10 % in usual noise is found half a percent less often (tools/simulate.py).
    """
    beta: float = 0.05
    """Most probability of a pass of one cell that got worse by its tolerance or more."""

    def __post_init__(self) -> None:
        ascending = sorted(set(self.looks))
        if not ascending or ascending != list(self.looks) or ascending[0] < 1:
            raise ValueError(
                f"looks {self.looks} are not ascending numbers of pairs; give such as (6, 10, 15)"
            )
        for weights in (self.regression_weights, self.pass_weights):
            if len(weights) != len(self.looks):
                raise ValueError(
                    f"{len(weights)} weights do not fit {len(self.looks)} looks; give one for each"
                )
            if min(weights) < 0 or weights[-1] <= 0 or not sum(weights) <= 1 + 1e-9:
                raise ValueError(
                    f"weights {weights} share no error; give some of 0 or more, the last above 0, "
                    "that add up to at most 1"
                )
        for error in (self.alpha, self.beta):
            if not 0 < error < 0.5:
                raise ValueError(f"a permitted error of {error} tests nothing; give one between 0 and 0.5")

    def extended(self, factor: int) -> Design:
        """The same design with `factor` times the pairs.

        It permits its errors anew: who judges by it what another design left inconclusive, permits both.
        """
        return replace(self, looks=tuple(look * factor for look in self.looks))

    def reached(self, pairs: int) -> list[int]:
        """The looks that so many pairs allow."""
        return [look for look in self.looks if look <= pairs]


STANDARD = Design()


@dataclass(frozen=True, slots=True)
class Series:
    """The data of one gated cell."""

    differences: Sequence[float]
    """ln(candidate / baseline) of each pair, worse above zero, in the order measured."""
    tolerance: float
    """The relative change from which a regression matters: 0.05 is 5 %."""

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.differences)):
            raise ValueError("a log ratio is not a finite number; leave such a pair out")
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise ValueError(f"a tolerance of {self.tolerance} is no relative change; give 0 or more")

    @property
    def limit(self) -> float:
        """The tolerance as a log ratio."""
        return math.log1p(self.tolerance)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gate says of one cell. Changes are relative and worse above zero: 0.08 is 8 % slower."""

    verdict: Verdict
    decided: bool
    """Measuring this cell may end: there is a verdict, or the last look is behind."""
    pairs: int
    """Judged: those of the last look that was reached; all there are where none was."""
    change: float
    """The Hodges-Lehmann estimate; 0 where there are no pairs."""
    low: float
    high: float
    """The interval of the change; not adjusted for the looks."""
    level: float
    """The confidence that the interval has, at least 0.90 from 5 pairs on."""
    p_regression: float
    """Of no worsening; looks and family (Holm) included. Below or at `alpha` is significant."""
    p_no_regression: float
    """Of a worsening by the tolerance or more; looks included. Below or at `beta` passes."""
    tolerance: float
    smallest_detectable: float | None
    """The smallest worsening that all looks would find with 80 %; None below 5 pairs."""
    excluded_above: float | None
    """A larger worsening is excluded with 1 - `beta`, looks included; None before the first look.

    Without ties it lies within the tolerance exactly where the verdict is no regression, or improvement.
    """
    pairs_needed: int | None
    """Where inconclusive: about so many, these included, would decide if the estimate stayed."""
    real_but_small: bool
    """No regression, and yet certainly worse: the interval lies above zero."""


@dataclass(frozen=True, slots=True)
class _Looked:
    """One cell by itself, at the last look that it has reached."""

    differences: Sequence[float]
    estimate: float
    p_regression: float
    p_no_regression: float
    p_improvement: float
    bound: float | None
    """The largest worsening that is not excluded, a log ratio."""
    last: bool


def judge(family: Mapping[Key, Series], design: Design = STANDARD) -> dict[Key, Judgement]:
    """Judge all gated cells of a session; each by the looks that its own number of pairs has reached.

    Pairs beyond a cell's last look wait for the next one and are not used. Cells without enough pairs for the
    first look are inconclusive, but belong to the family.
    """
    looked = {key: _look(series, design) for key, series in family.items()}
    adjusted = holm({key: cell.p_regression for key, cell in looked.items()})
    strictest = design.alpha * design.regression_weights[-1] / max(1, len(family))
    return {
        key: _judgement(cell, family[key], adjusted[key], strictest, design) for key, cell in looked.items()
    }


def holm(p_values: Mapping[Key, float]) -> dict[Key, float]:
    """Adjusted for the number of tests, whatever their dependence (Holm 1979); at most 1 each."""
    adjusted: dict[Key, float] = {}
    largest = 0.0
    for place, key in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[key]))
        adjusted[key] = largest
    return adjusted


def order_effect(second_over_first: Sequence[float]) -> float:
    """Two-sided p of no difference between the launches of a pair by their order.

    An effect costs power and no validity: the coin gives it to both arms alike.
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
        # An early look may have excluded what the estimate says now: a pass wants both, so does the bound.
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
    # A pass needs an interval that ends before the limit, a regression one that begins above zero.
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
    """exp(x) - 1, at most about 1e304: what a file says may be larger than a float can hold."""
    return math.expm1(min(log_ratio, 700.0))
