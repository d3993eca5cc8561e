"""Comparisons as a table for the terminal, as Markdown, and as one sentence for each cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ggufbench.analysis.verdicts import VERDICT_KINDS
from ggufbench.metrics import metric_of
from ggufbench.quality.grading import describe
from ggufbench.records.comparison import Cell, Comparison, Verdict
from ggufbench.report.text.terminal import KIND_STYLE, stack, table, text
from ggufbench.text import duration, escaped

if TYPE_CHECKING:
    from ggufbench.comparing.side_by_side import SessionStep

_MANY_CELLS = 8

_HEADINGS = (
    "Metric",
    ">Baseline",
    ">Candidate",
    ">Change",
    ">Interval",
    ">Min. detectable",
    ">Pairs",
    "Verdict",
)

_NARROW_HEADINGS = (*_HEADINGS[:5], _HEADINGS[-1])
_WIDE, _TABLE = 100, 80
"""Columns of a terminal that shows all columns, and of one that shows a table."""


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One cell as text."""

    metric: str
    baseline: str
    candidate: str
    change: str
    interval: str
    detectable: str
    pairs: str
    verdict: Verdict


def comparison_report(
    comparisons: Sequence[Comparison], skipped: Sequence[tuple[str, str]], width: int = 100
) -> RenderableType:
    """Each case with its cells and notes, then how to read the figures.

    On a narrow terminal two columns become a line below the table; on a very narrow one every row is a line.
    """
    parts: list[RenderableType] = [Group(*_case(comparison, width)) for comparison in comparisons]
    parts += [text(line) for line in skipped_lines(skipped)]
    if comparisons:
        parts.append(text(headline(comparisons), style="bold"))
    if any(comparison.launches for comparison in comparisons):
        parts.append(Text(legend(comparisons), style="dim"))
    if not comparisons and not skipped:
        parts.append(Text("No model was found; name a file or a folder with --models."))
    return stack(*parts)


def markdown(comparisons: Sequence[Comparison], skipped: Sequence[tuple[str, str]]) -> str:
    """The comparisons as Markdown, for the summary of a pull request."""
    lines = [
        f"### ggufbench: {_plain(headline(comparisons))}"
        if comparisons
        else "### ggufbench: nothing compared"
    ]
    for comparison in comparisons:
        lines += [
            "",
            f"**{_plain(comparison.case_id)}**: {comparison.verdict} ({_plain(arms_line(comparison))})",
            "",
        ]
        lines.append("| " + " | ".join(name.removeprefix(">") for name in _HEADINGS) + " |")
        lines.append("|" + "|".join("---:" if name.startswith(">") else "---" for name in _HEADINGS) + "|")
        for row in rows(comparison):
            figures = (row.baseline, row.candidate, row.change, row.interval, row.detectable, row.pairs)
            shown = f"**{row.verdict}**" if row.verdict is not Verdict.NO_REGRESSION else str(row.verdict)
            lines.append("| " + " | ".join(map(_plain, (row.metric, *figures))) + f" | {shown} |")
        lines += ["", *(f"- {_plain(note)}" for note in notes(comparison))]
    lines += [f"- {_plain(line)}" for line in skipped_lines(skipped)]
    if comparisons:
        lines += ["", f"<sub>{_plain(legend(comparisons))}</sub>"]
    return "\n".join(lines) + "\n"


def skipped_lines(skipped: Sequence[tuple[str, str]]) -> list[str]:
    """The skipped cases, a line for each reason."""
    cases: dict[str, list[str]] = {}
    for case_id, reason in skipped:
        cases.setdefault(reason, []).append(case_id)
    return [f"Skipped ({reason}): {', '.join(ids)}" for reason, ids in cases.items()]


def headline(comparisons: Sequence[Comparison]) -> str:
    """The verdicts of the session in a few words."""
    counts = [
        (verdict, sum(1 for comparison in comparisons if comparison.verdict is verdict))
        for verdict in VERDICT_KINDS
    ]
    return ", ".join(
        f"{verdict} in {count} of {len(comparisons)} cases" for verdict, count in counts if count
    )


def rows(comparison: Comparison) -> list[ComparisonRow]:
    """The cells against the baseline."""
    return [_row(cell) for cell in comparison.cells if cell.against == "baseline"]


def sentence(comparison: Comparison, cell: Cell) -> str:
    """The verdict on one metric, with its evidence."""
    if cell.change is None or cell.verdict in (Verdict.BROKEN, Verdict.MISSING):
        return f"{cell.metric}: {cell.verdict}: {cell.reason or comparison.reason or 'nothing was measured'}"
    parts = [
        f"{cell.metric}: {cell.verdict}: {metric_of(cell.metric).change(cell.change)} than the baseline "
        f"({_interval_words(cell)}), tolerance {_percent(cell.tolerance)}, "
        f"p = {_probability(cell.p_regression)}, {cell.pairs} pairs"
    ]
    if cell.reason:
        parts.append(cell.reason)
    return "; ".join(parts)


def notes(comparison: Comparison) -> list[str]:
    """Reasons and warnings that the figures do not show."""
    check = comparison.answer_check
    found = [comparison.reason] if comparison.reason else []
    if check is not None and not (check.reason and found and found[0].startswith(check.reason)):
        found.append(f"answers: {check.verdict}: {describe(check)}")
    for cell in comparison.cells:
        name = metric_of(cell.metric).short_label
        if cell.against == "baseline" and cell.reason and cell.reason not in found:
            found.append(f"{name}: {cell.reason}")
        if cell.against == "baseline" and cell.pairs_needed and cell.verdict is Verdict.INCONCLUSIVE:
            found.append(f"{name}: about {cell.pairs_needed} pairs would decide")
    if comparison.order_effect_p is not None and comparison.order_effect_p < 0.01:
        found.append("the second launch of a pair differs from the first; the random order balances this")
    found += [_anchor_note(cell, comparison) for cell in comparison.cells if cell.against == "anchor"]
    return found


def step_sentence(step: SessionStep) -> str:
    """The current step of a session, for the line of progress."""
    left = f", at most {duration(step.seconds_left)} left" if step.seconds_left is not None else ""
    disturbed = f", {step.disturbed} with interference" if step.disturbed else ""
    pair = f"pair {step.pairs + 1} of at most {step.most_pairs}"
    return f"{step.case_id}: {pair}, {step.role}{disturbed}{left}"


def arms_line(comparison: Comparison) -> str:
    """The compared arms: `baseline 0.3.35, candidate .`."""
    return ", ".join(f"{arm.role} {arm.name}{_version(arm.provider.versions)}" for arm in comparison.arms)


def legend(comparisons: Sequence[Comparison]) -> str:
    """How to read the table."""
    launches = sum(comparison.launches for comparison in comparisons)
    seeds = ", ".join(sorted({str(comparison.seed) for comparison in comparisons}))
    gated = sum(len(rows(comparison)) for comparison in comparisons)
    shown = (
        "Medians of the best sample of each launch. Change: Hodges-Lehmann estimate over the pairs (above "
        "zero is worse) with its exact confidence interval of about 90 %. Min. detectable: the smallest "
        "change that this run would have found with a probability of 80 %. "
        f"{launches} launches in random order, seed {seeds}."
    )
    if gated > _MANY_CELLS:
        shown += (
            f" {gated} cells were tested together, which lowers the power of each test; gate fewer metrics."
        )
    return shown


def _case(comparison: Comparison, width: int) -> list[RenderableType]:
    title = text(f"{comparison.case_id}: {comparison.verdict}", style="bold")
    found = rows(comparison)
    lines: list[RenderableType] = [text(arms_line(comparison))]
    if found and width >= _TABLE:
        lines.append(_table(found, wide=width >= _WIDE))
    elif found:
        lines += [text(f"{row.metric}: {row.verdict}, {row.change} ({row.interval})") for row in found]
    if width < _WIDE and any(row.pairs != "0" for row in found):
        pairs = ", ".join(dict.fromkeys(row.pairs for row in found))
        powers = ", ".join(f"{row.metric} {row.detectable}" for row in found)
        lines.append(text(f"{pairs} pairs; min. detectable: {powers}."))
    return [title, *lines, *(text(f"{note}.") for note in notes(comparison))]


def _table(found: Sequence[ComparisonRow], *, wide: bool) -> Table:
    shown = table(*(_HEADINGS if wide else _NARROW_HEADINGS))
    for row in found:
        power = (row.detectable, row.pairs) if wide else ()
        figures = (row.metric, row.baseline, row.candidate, row.change, row.interval, *power)
        shown.add_row(
            *map(Text, figures), Text(str(row.verdict), style=KIND_STYLE[VERDICT_KINDS[row.verdict]])
        )
    return shown


def _row(cell: Cell) -> ComparisonRow:
    metric = metric_of(cell.metric)
    return ComparisonRow(
        metric=metric.short_label,
        baseline="-" if cell.reference_median is None else metric.amount(cell.reference_median),
        candidate="-" if cell.candidate_median is None else metric.amount(cell.candidate_median),
        change=_signed(cell.change),
        interval=_interval(cell),
        detectable=_percent(cell.smallest_detectable),
        pairs=str(cell.pairs),
        verdict=cell.verdict,
    )


def _anchor_note(cell: Cell, comparison: Comparison) -> str:
    anchor = next((arm.name for arm in comparison.arms if arm.role == "anchor"), "the anchor")
    metric = metric_of(cell.metric)
    if cell.change is None or cell.low is None:
        return f"{metric.short_label}: no comparison with {anchor}"
    return f"{metric.short_label}: {metric.change(cell.change)} than {anchor} ({_interval_words(cell)})"


def _interval(cell: Cell) -> str:
    """`-0.6 to +1.8 %`."""
    if cell.low is None or cell.high is None:
        return "-"
    return f"{100 * cell.low:+.1f} to {100 * cell.high:+.1f} %"


def _interval_words(cell: Cell) -> str:
    level = f"{100 * cell.level:.0f} %" if cell.level is not None else "its"
    return f"{level} interval {_interval(cell)}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f} %"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3g} %"


def _probability(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _version(versions: dict[str, str]) -> str:
    found = versions.get("llama-cpp-python")
    return f" (llama-cpp-python {found})" if found else ""


def _plain(words: str) -> str:
    """Text for Markdown, with all markup escaped."""
    shown = escaped(words)
    for letter, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        shown = shown.replace(letter, entity)
    return "".join(f"\\{letter}" if letter in "\\`*_[]|~#!@" else letter for letter in shown)
