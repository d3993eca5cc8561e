"""The table of `ggufbench verify`: both sides' rates, their ratio, and what may explain a difference."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ggufbench.comparing.fidelity import OURS, THEIRS, Comparison
from ggufbench.comparing.verify import Verification
from ggufbench.report.text.terminal import table, text
from ggufbench.stats.agreement import LEVEL, Agreement

_STYLE = {"agrees": "green", "differs": "red"}


def agreement_report(found: Verification) -> RenderableType:
    """Every comparison with its notes; then what was skipped and why, and how to read the figures."""
    parts: list[RenderableType] = []
    for comparison in found.comparisons:
        parts += [_comparison(comparison), Text()]
    parts += [text(f"{case_id} was skipped: {reason}") for case_id, reason in found.skipped]
    tests = [test for comparison in found.comparisons for test in comparison.tests]
    if tests:
        parts.append(Text(_legend(tests, found.seed, found.tolerance), style="dim"))
    elif not parts:
        parts.append(Text("No model was found; give a file or a folder with --models."))
    return Group(*parts)


def _comparison(comparison: Comparison) -> RenderableType:
    parts: list[RenderableType] = [text(comparison.case.id, style="bold")]
    if comparison.tests:
        parts.append(_table(comparison.tests))
    parts += [text(line) for line in _notes(comparison)]
    return Group(*parts)


def _table(tests: Sequence[Agreement]) -> Table:
    shown = table(
        "Test", f">{OURS}", f">{THEIRS}", ">Ratio", ">Interval", ">Level", ">Pairs", "Verdict", first_column=5
    )
    for test in tests:
        interval = test.interval
        shown.add_row(
            Text(test.test),
            Text(_rate(test.ours_median)),
            Text(_rate(test.theirs_median)),
            Text(f"{test.ratio_median:.4f}"),
            Text(f"{interval.low:.3f}-{interval.high:.3f}"),
            Text(f"{100 * interval.level:.1f} %"),
            Text(str(len(test.ratios))),
            Text(test.verdict, style=_STYLE[test.verdict]),
        )
    return shown


def _notes(comparison: Comparison) -> list[str]:
    notes = []
    seconds, share = comparison.loop_overhead_seconds, comparison.loop_overhead_share
    if seconds is not None and share is not None:
        notes.append(f"The worker's own loop takes {1e6 * seconds:.2f} µs of a token, {100 * share:.2g} %.")
    if comparison.warm_pair is not None:
        run = comparison.warm_pair.llama_bench
        notes.append(
            f"llama-bench {run.build_commit} (build {run.build_number}), "
            f"library {comparison.versions.get('llama.cpp', 'unknown')}."
        )
    notes += [f"Warning: {warning}." for warning in comparison.warnings]
    if comparison.reason is not None:
        notes.append(f"Ended after {len(comparison.pairs)} pairs: {comparison.reason}.")
    return notes


def _legend(tests: Sequence[Agreement], seed: int, tolerance: float) -> str:
    sentence = (
        "Tokens per second, medians of the best sample of each run; the ratio is the median over the pairs, "
        f"and agrees from {1 - tolerance:g} to {1 + tolerance:g}. Order by coin, seed {seed}. The interval "
        "is exact, from order statistics, and encloses the median with the confidence given as level."
    )
    if any(test.interval.level < LEVEL for test in tests):
        sentence += f" For {100 * LEVEL:.0f} % it takes 6 pairs or more."
    return sentence


def _rate(value: float) -> str:
    return f"{value:.0f} t/s" if value >= 100 else f"{value:.2f} t/s"
