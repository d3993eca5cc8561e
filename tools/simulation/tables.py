"""Tables of the simulation's results in Markdown, and the check of the rates that the gate must reach."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import beta
from simulation.methods import ARM, CELLS, CHANGES, ONE_RUN, REPETITIONS, Method, Tallies, Tally
from simulation.noise import Noise

Results = Sequence[tuple[Noise, Tallies]]

METHODS: Sequence[tuple[Method, str]] = (
    ("gate, 1 cell", "**the gate, 1 cell**"),
    ("gate, 4 cells", "**the gate, 4 cells**"),
    ("median > 5 %", f"median > 5 %, {ARM} launches, then {ARM}"),
    ("Mann-Whitney", f"Mann-Whitney, {ARM} launches, then {ARM}"),
    ("Mann-Whitney, in pairs", f"Mann-Whitney, {ARM} pairs"),
    ("one run each", f"one run each, {ONE_RUN} repetitions, > 5 %"),
)


@dataclass(frozen=True, slots=True)
class Promise:
    """One rate that the gate must reach in the simulation."""

    words: str
    tally: Tally
    limit: float
    is_most: bool
    """True if the limit is a maximum, False if it is a minimum."""

    @property
    def rate(self) -> float:
        """Rate in the simulation."""
        return self.tally.found / self.tally.runs

    @property
    def bound(self) -> float:
        """95 % confidence bound of the rate on the side of the limit."""
        return (most if self.is_most else least)(self.tally.found, self.tally.runs)

    @property
    def broken(self) -> bool:
        """True if the rate in the simulation is on the wrong side of the limit."""
        return not self._keeps(self.rate)

    @property
    def row(self) -> list[str]:
        """Table row: the rate, its limit, the rate in the simulation, its bound, and the result."""
        side = "at most" if self.is_most else "at least"
        verdict = "yes" if self._keeps(self.bound) else "too few runs"
        return [
            self.words,
            f"{side} {100 * self.limit:g}",
            percent(self.rate, 2),
            f"{side} {percent(self.bound, 2)}",
            "**no**" if self.broken else verdict,
        ]

    def _keeps(self, rate: float) -> bool:
        return rate <= self.limit if self.is_most else rate >= self.limit


def promises(results: Results) -> list[Promise]:
    """Required rates: few false alarms without a change, for each number of cells; in N5, +10 % found."""
    kept = [
        Promise(
            words=f"False alarms, {method.removeprefix('gate, ')}, {noise.name}",
            tally=tallies[method, 0.0],
            limit=0.02 if noise.name == "N6" else 0.005,
            is_most=True,
        )
        for method in CELLS
        for noise, tallies in results
    ]
    return kept + [
        Promise("+10 % found, 1 cell, N5", tallies["gate, 1 cell", 0.10], limit=0.97, is_most=False)
        for noise, tallies in results
        if noise.name == "N5"
    ]


def markdown(results: Results) -> str:
    """All tables."""
    runs = results[0][1]["gate, 1 cell", 0.0].runs
    parts = [
        f"{runs} sessions of each noise model, the same sessions for all methods. Rates are percent of the "
        "sessions; the upper 95 % confidence bound is in parentheses.",
        "## Required rates",
        table(
            ["", "required", "simulated", "with 95 % confidence", "reached"],
            [promise.row for promise in promises(results)],
        ),
    ]
    for method in CELLS:
        parts += [f"## The {method}", gate_table(method, results)]
    parts += [
        "## Comparison with common methods",
        f"A session of the gate takes 12 to 30 launches of {REPETITIONS} repetitions, on average as many as "
        f"above. `one run each` takes 2 launches of {ONE_RUN} repetitions, the others take {2 * ARM} of "
        f"{REPETITIONS}.",
    ]
    for change in CHANGES:
        title = f"{100 * change:+.0f} %: found" if change else "No change: false alarms"
        parts += [f"### {title}", method_table(change, results)]
    parts += [
        "## Minimum detectable effect",
        "At the end of each session without a change, the gate reports the minimum detectable effect at 80 % "
        "power. The table shows how often another session with the same noise and that change finds it.",
        claim_table(results),
    ]
    return "\n\n".join(parts)


def gate_table(method: Method, results: Results) -> str:
    """Table of the gate with one row for each noise model."""
    changes = [change for change in CHANGES if change]
    head = ["noise", "no change: false alarms", "pass", "launches"]
    for change in changes:
        head += [f"{100 * change:+.0f} %: found", "pass", "launches"]
    rows = []
    for noise, tallies in results:
        row = [f"{noise.name}: {noise.words}", with_bound(tallies[method, 0.0]), *rest(tallies[method, 0.0])]
        for change in changes:
            row += [found(tallies[method, change]), *rest(tallies[method, change])]
        rows.append(row)
    return table(head, rows)


def method_table(change: float, results: Results) -> str:
    """Table with one row for each method."""
    cell = found if change else with_bound
    rows = [[words, *(cell(tallies[method, change]) for _, tallies in results)] for method, words in METHODS]
    return table(["method", *(noise.name for noise, _ in results)], rows)


def claim_table(results: Results) -> str:
    """Table of the reported minimum detectable effects and how often they are found."""
    claims = [tallies["gate, at its smallest detectable change", 0.0] for _, tallies in results]
    reported = [percent(statistics.median(claim.reported)) for claim in claims]
    rows = [["reported, median", *reported], ["found", *map(found, claims)]]
    return table(["", *(noise.name for noise, _ in results)], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown table with right-aligned numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def found(tally: Tally) -> str:
    """Rate in percent."""
    return percent(tally.found / tally.runs)


def with_bound(tally: Tally) -> str:
    """Rate in percent with its upper bound."""
    return f"{percent(tally.found / tally.runs, 2)} ({percent(most(tally.found, tally.runs), 2)})"


def rest(tally: Tally) -> list[str]:
    """Passed sessions in percent, and mean number of launches."""
    return [percent(tally.passed / tally.runs), f"{tally.launches / tally.runs:.1f}"]


def percent(share: float, digits: int = 1) -> str:
    """Percentage without the percent sign."""
    return f"{100 * share:.{digits}f}"


def most(count: int, runs: int) -> float:
    """Exact one-sided upper 95 % bound of a rate (Clopper and Pearson 1934)."""
    return 1.0 if count == runs else float(beta.ppf(0.95, count + 1, runs - count))


def least(count: int, runs: int) -> float:
    """Exact one-sided lower 95 % bound of a rate."""
    return 1 - most(runs - count, runs)
