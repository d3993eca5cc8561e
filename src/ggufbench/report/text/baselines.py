"""Findings, the comparison of llama.cpp with transformers, and migration, for `ggufbench show`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ggufbench.analysis.baselines import COMPARED, Versus, advantage, compare_with_baselines
from ggufbench.analysis.findings import Finding, findings
from ggufbench.analysis.migration import Migration, Reply, migrations
from ggufbench.analysis.verdicts import Kind
from ggufbench.records.comparison import Comparison
from ggufbench.records.schema import Record
from ggufbench.report.text.names import Name
from ggufbench.report.text.terminal import KIND_STYLE, table, text
from ggufbench.stats.ratios import Ratio
from ggufbench.text import times

_KIND_WORD: dict[Kind, str] = {"bad": "Bad", "warn": "Note", "good": "Good"}
_REPLY_STYLE: dict[Reply, str] = {"yes": "green", "no": "red", "not measured": "yellow"}

_FACTORS = ("ready_seconds", "cold_ready_seconds", "prompt_tokens_per_second", "decode_tokens_per_second")
"""Metrics whose factor is above 1 if llama.cpp is better."""

_MOST_ROWS = 200
"""Rows of a table in the terminal; `--match` selects others."""


def findings_list(found: Sequence[Finding]) -> RenderableType | None:
    """The findings of a run, one on each line, with their kind as a word and a colour."""
    if not found:
        return None
    shown = table("", "Findings")
    for finding in found:
        style = KIND_STYLE[finding.kind]
        shown.add_row(Text(_KIND_WORD[finding.kind], style=style), text(finding.sentence))
    return shown


def baselines_table(pairs: Sequence[Versus]) -> RenderableType | None:
    """Speed and memory of llama.cpp relative to each baseline."""
    if not pairs:
        return None
    shown = table("llama.cpp", "Baseline", ">Load", ">Cold", ">Prompt", ">Decode", ">Memory")
    levels = set()
    for one in pairs[:_MOST_ROWS]:
        cells = [*(_factor(one, metric) for metric in _FACTORS), _share(one.ratios.get("peak_rss_bytes"))]
        shown.add_row(Name(one.record.case_id), Name(one.baseline.case_id), *cells)
        levels |= {ratio.level for ratio in one.ratios.values() if ratio.level is not None}
    return Group(shown, *_notes(pairs), *_more(len(pairs)), Text(_legend(levels), style="dim"))


def migration_table(rows: Sequence[Migration]) -> RenderableType | None:
    """Whether transformers can be replaced: the answers for each model, then the sentences."""
    if not rows:
        return None
    questions = [answer.question for answer in rows[0].answers]
    shown = table("Replace transformers?", "Verdict", *(question.capitalize() for question in questions))
    for row in rows[:_MOST_ROWS]:
        replies = [row.verdict, *(answer.answer for answer in row.answers)]
        cells = [Text(reply, style=_REPLY_STYLE[reply]) for reply in replies]
        shown.add_row(Name(row.case_id), *cells)
    sentences = [text(row.sentence) for row in rows if row.verdict != "not measured"][:_MOST_ROWS]
    return Group(shown, *_more(len(rows)), *sentences, *_open_questions(rows))


@dataclass(frozen=True, slots=True)
class Answers:
    """Conclusions from a run's records about llama.cpp and transformers."""

    findings: Sequence[Finding]
    versus: Sequence[Versus]
    migrations: Sequence[Migration]

    def document(self) -> dict[str, Any]:
        """The answers for JSON. A record is referred to by its case and run."""
        return {
            "findings": self.findings,
            "baselines": [_document(one) for one in self.versus],
            "migrations": self.migrations,
        }


def answers(
    records: Sequence[Record], comparisons: Sequence[Comparison], everything: Sequence[Record]
) -> Answers:
    """The answers about `records`. Their baselines are searched in `everything`, the whole run."""
    shown = {record.case_id for record in records}
    versus = compare_with_baselines(everything)
    chosen = [one for one in versus if one.record.case_id in shown]
    rows = [row for row in migrations(everything, versus) if row.case_id in shown]
    return Answers(findings(records, comparisons, chosen), chosen, rows)


def _document(one: Versus) -> dict[str, Any]:
    return {
        "case_id": one.record.case_id,
        "run_id": one.record.run_id,
        "baseline_case_id": one.baseline.case_id,
        "baseline_run_id": one.baseline.run_id,
        "baseline_outcome": one.baseline.outcome,
        "ratios": {metric: one.ratios[metric] for metric in COMPARED if metric in one.ratios},
        "notes": list(one.notes),
    }


def _factor(one: Versus, metric: str) -> Text:
    """`12x (11-13)`. Times are inverted, so that a larger factor is always faster."""
    ratio = one.ratios.get(metric)
    if ratio is None:
        return Text("-")
    factor = advantage(ratio, metric)
    interval = ""
    if factor.low is not None and factor.high is not None:
        interval = f" ({times(factor.low)}-{times(factor.high)})"
    return Text(f"{times(factor.value)}x{interval}", style="" if factor.value > 1 else "red")


def _share(ratio: Ratio | None) -> Text:
    if ratio is None:
        return Text("-")
    interval = ""
    if ratio.low is not None and ratio.high is not None and f"{ratio.low:.2f}" != f"{ratio.high:.2f}":
        interval = f" ({ratio.low:.2f}-{ratio.high:.2f})"
    return Text(f"{ratio.value:.2f}x{interval}", style="" if ratio.value < 1 else "red")


def _notes(pairs: Sequence[Versus]) -> list[Text]:
    """Each note once, with its cases."""
    about: dict[str, list[str]] = {}
    for one in pairs:
        for note in one.notes:
            about.setdefault(note, []).append(one.record.case_id)
    lines = [
        f"{cases[0] if len(cases) == 1 else f'{len(cases)} pairs'}: {note}." for note, cases in about.items()
    ]
    left = len(lines) - _MOST_NOTES
    shown = lines[:_MOST_NOTES] + ([f"{left} more notes; --json shows all"] if left > 0 else [])
    return [text(line) for line in shown]


_MOST_NOTES = 20


def _more(count: int) -> list[Text]:
    left = count - _MOST_ROWS
    return [Text(f"{left} more; select some with --match, or use --json")] if left > 0 else []


def _legend(levels: set[float]) -> str:
    legend = "Speed as a multiple and memory as a fraction of transformers: Hodges-Lehmann over the launches"
    if levels:
        low, high = f"{100 * min(levels):.0f}", f"{100 * max(levels):.0f}"
        legend += f", with exact confidence intervals of {low if low == high else f'{low} to {high}'} %"
    return f"{legend}. All launches of a run share the conditions of its time."


def _open_questions(rows: Sequence[Migration]) -> list[Text]:
    """The questions without a measurement, each reason once."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for answer in row.answers:
            if answer.answer == "not measured":
                reasons.setdefault(f"{answer.question}: {answer.sentence}", []).append(row.case_id)
    lines = [
        f"Not measured for {cases[0] if len(cases) == 1 else f'{len(cases)} cases'}, {reason}."
        for reason, cases in reasons.items()
    ]
    return [text(line) for line in lines[:_MOST_NOTES]]
