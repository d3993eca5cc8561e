"""The simulation's results in Markdown, and whether they are what the gate promises."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import beta
from simulation.methods import ARM, CELLS, CHANGES, ONE_RUN, REPETITIONS, Method, Tallies, Tally
from simulation.noise import Noise

Results = Sequence[tuple[Noise, Tallies]]

BESIDE: Sequence[tuple[Method, str]] = (
    ("gate, 1 cell", "**the gate, 1 cell**"),
    ("gate, 4 cells", "**the gate, 4 cells**"),
    ("median > 5 %", f"median > 5 %, {ARM} launches, then {ARM}"),
    ("Mann-Whitney", f"Mann-Whitney, {ARM} launches, then {ARM}"),
    ("Mann-Whitney, in pairs", f"Mann-Whitney, {ARM} pairs"),
    ("one run each", f"one run each, {ONE_RUN} repetitions, > 5 %"),
)


@dataclass(frozen=True, slots=True)
class Promise:
    """One thing that the simulation must show."""

    words: str
    tally: Tally
    limit: float
    is_most: bool
    """The rate is to be at most the limit, else at least."""

    @property
    def rate(self) -> float:
        """As seen."""
        return self.tally.found / self.tally.runs

    @property
    def bound(self) -> float:
        """The 95 % bound on the side that matters."""
        return (most if self.is_most else least)(self.tally.found, self.tally.runs)

    @property
    def broken(self) -> bool:
        """The rate that was seen is on the wrong side."""
        return not self._keeps(self.rate)

    @property
    def row(self) -> list[str]:
        """What is asked, what was seen, its bound, and whether that does."""
        side = "at most" if self.is_most else "at least"
        verdict = "yes" if self._keeps(self.bound) else "too few runs to say"
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
    """Few false alarms at no change, whatever the number of cells; in N5, +10 % found."""
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
        f"{runs} sessions of each noise model, the same ones for all methods. Rates "
        "are percent of the sessions; in brackets what a rate is at most, with 95 % confidence.",
        "## What the gate must show",
        table(
            ["", "asked", "seen", "with 95 % confidence", "holds"],
            [promise.row for promise in promises(results)],
        ),
    ]
    for method in CELLS:
        parts += [f"## The {method}", gate_table(method, results)]
    parts += [
        "## Beside the usual methods",
        f"A session of the gate takes 12 to 30 launches of {REPETITIONS} repetitions, on average as many as "
        f"above; `one run each` takes 2 of {ONE_RUN}, the others take {2 * ARM} of {REPETITIONS}.",
    ]
    for change in CHANGES:
        title = f"{100 * change:+.0f} %: found" if change else "No change: false alarms"
        parts += [f"### {title}", beside_table(change, results)]
    parts += [
        "## The smallest detectable change",
        "At the end of each session without a change, the gate says which change it would have found with "
        "80 % probability. Another session, with the same noise and that change, finds it in:",
        claim_table(results),
    ]
    return "\n\n".join(parts)


def gate_table(method: Method, results: Results) -> str:
    """One row for each model."""
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


def beside_table(change: float, results: Results) -> str:
    """One row for each method."""
    cell = found if change else with_bound
    rows = [[words, *(cell(tallies[method, change]) for _, tallies in results)] for method, words in BESIDE]
    return table(["method", *(noise.name for noise, _ in results)], rows)


def claim_table(results: Results) -> str:
    """What the gate says it would find, and how often it does."""
    claims = [tallies["gate, at its smallest detectable change", 0.0] for _, tallies in results]
    said = [percent(statistics.median(claim.reported)) for claim in claims]
    rows = [["said, the middle of all", *said], ["found", *map(found, claims)]]
    return table(["", *(noise.name for noise, _ in results)], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown, numbers to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def found(tally: Tally) -> str:
    """The rate in percent."""
    return percent(tally.found / tally.runs)


def with_bound(tally: Tally) -> str:
    """The rate in percent, and its bound."""
    return f"{percent(tally.found / tally.runs, 2)} ({percent(most(tally.found, tally.runs), 2)})"


def rest(tally: Tally) -> list[str]:
    """Passes in percent, and mean launches."""
    return [percent(tally.passed / tally.runs), f"{tally.launches / tally.runs:.1f}"]


def percent(share: float, digits: int = 1) -> str:
    """Without the sign."""
    return f"{100 * share:.{digits}f}"


def most(count: int, runs: int) -> float:
    """The exact one-sided 95 % bound above a rate (Clopper and Pearson 1934)."""
    return 1.0 if count == runs else float(beta.ppf(0.95, count + 1, runs - count))


def least(count: int, runs: int) -> float:
    """The exact one-sided 95 % bound below a rate."""
    return 1 - most(runs - count, runs)
