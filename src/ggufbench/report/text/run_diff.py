"""The table of `ggufbench compare`: two stored runs, case by case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ggufbench.analysis.baselines import advantage
from ggufbench.analysis.run_diff import Between, CaseChange, Change
from ggufbench.exit_codes import ExitCode
from ggufbench.metrics import METRICS
from ggufbench.report.text.names import Name
from ggufbench.report.text.terminal import stack, table, text
from ggufbench.text import listed

_WIDE, _TABLE = 110, 72
"""Columns of a terminal that shows the case in a column, and of one that shows a table."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Two runs by name, the earlier one first, and their differences."""

    earlier: str
    later: str
    earlier_created: str
    later_created: str
    machines: tuple[str, str]
    """The description of the machine of each run, from its newest record."""
    found: Between

    @property
    def exit_code(self) -> ExitCode:
        """12 if nothing is comparable, otherwise 0; a table is not a gate."""
        return ExitCode.PASS if self.found.is_comparable else ExitCode.NO_BASELINE

    @property
    def sentence(self) -> str:
        """How to read the table, or why it is empty."""
        if self.found.on_other_machine:
            return (
                f"{self.earlier} was measured on {self.machines[0]} and {self.later} on {self.machines[1]}: "
                "results of two machines are not comparable; measure both runs on one machine"
            )
        if not self.found.cases:
            return f"{self.earlier} and {self.later} have no case in common, so nothing can be compared"
        if not self.found.is_comparable:
            return f"no case of {self.earlier} and {self.later} can be compared; the table gives the reasons"
        return (
            "Ratio of later to earlier: Hodges-Lehmann over the launches of each run, with its exact "
            "confidence interval, which does not cover the different times of runs; `ggufbench ab` decides"
        )


def compare_report(compared: Compared, width: int) -> RenderableType:
    """The runs, the ratios, other differences, the cases in one run only, and how to read the table."""
    found = compared.found
    heads = [
        f"earlier: {compared.earlier} ({compared.earlier_created})",
        f"later: {compared.later} ({compared.later_created})",
    ]
    return stack(
        Group(*(text(line) for line in heads)),
        _tables([case for case in found.cases if case.changes], width),
        _problems(found.cases),
        _lines(found),
        text(f"{compared.sentence}.", style="dim" if found.is_comparable else "yellow"),
    )


def compare_document(compared: Compared) -> dict[str, Any]:
    """The comparison for JSON."""
    return {
        "earlier": {"run": compared.earlier, "created": compared.earlier_created},
        "later": {"run": compared.later, "created": compared.later_created},
        "cases": compared.found.cases,
        "only_earlier": compared.found.only_earlier,
        "only_later": compared.found.only_later,
        "sentence": compared.sentence,
        "exit_code": compared.exit_code,
    }


def _tables(cases: Sequence[CaseChange], width: int) -> RenderableType | None:
    if not cases:
        return None
    headings = ("Metric", ">Earlier", ">Later", ">Ratio", ">Interval", ">Level", "Same work?")
    if width >= _WIDE:
        shown = table("Case", *headings)
        for case in cases:
            for number, change in enumerate(case.changes):
                shown.add_row(Name(case.case_id if number == 0 else ""), *_cells(case, change))
        return shown
    parts: list[RenderableType] = []
    for case in cases:
        parts.append(text(f"{case.case_id} (same work? {case.same_work})", style="bold"))
        parts += [_narrow(case)] if width >= _TABLE else [_line(case, change) for change in case.changes]
    return Group(*parts)


def _narrow(case: CaseChange) -> Table:
    shown = table("Metric", ">Earlier", ">Later", ">Ratio", ">Interval")
    for change in case.changes:
        shown.add_row(*_cells(case, change)[:5])
    return shown


def _line(case: CaseChange, change: Change) -> Text:
    """`decode: 13.0 tokens/s -> 11.5 tokens/s, 0.887 (0.879-0.894)`."""
    name, earlier, later, ratio, interval = (cell.plain for cell in _cells(case, change)[:5])
    return Text(f"{name}: {earlier} -> {later}, {ratio}" + ("" if interval == "-" else f" ({interval})"))


def _cells(case: CaseChange, change: Change) -> list[Text]:
    ratio, metric = change.ratio, METRICS[change.metric]
    interval = "-" if ratio.low is None or ratio.high is None else f"{ratio.low:.3f}-{ratio.high:.3f}"
    return [
        Text(metric.short_label),
        Text(metric.amount(change.earlier)),
        Text(metric.amount(change.later)),
        Text(f"{ratio.value:.3f}", style=_style(change)),
        Text(interval),
        Text("-" if ratio.level is None else f"{100 * ratio.level:.1f} %"),
        Text(case.same_work, style="red" if case.same_work == "no" else ""),
    ]


def _style(change: Change) -> str:
    """Red or green only if the whole interval is on one side of 1."""
    factor = advantage(change.ratio, change.metric)
    if factor.low is None or factor.high is None:
        return ""
    return "green" if factor.low > 1 else "red" if factor.high < 1 else ""


def _problems(cases: Sequence[CaseChange]) -> RenderableType | None:
    broken = [case for case in cases if case.problem and not case.other_machine]
    if not broken:
        return None
    shown = table("Not compared", "Reason")
    for case in broken:
        shown.add_row(Name(case.case_id), text(case.problem or ""))
    return shown


def _lines(found: Between) -> RenderableType | None:
    lines = differences(found)
    return Group(*(text(line) for line in lines)) if lines else None


def differences(found: Between) -> list[str]:
    """Other differences, each sentence once, and the cases that only one run has."""
    about: dict[str, list[str]] = {}
    for case in found.cases:
        if case.other_machine:
            continue
        for name, (old, new) in case.versions.items():
            about.setdefault(f"{name} {old or '(absent)'} -> {new or '(absent)'}", []).append(case.case_id)
        for note in case.notes:
            about.setdefault(note, []).append(case.case_id)
    comparable = sum(1 for case in found.cases if not case.other_machine)
    lines = [
        f"{change} ({'all cases' if len(cases) == comparable else listed(cases)})"
        for change, cases in about.items()
    ]
    for where, cases in (("earlier", found.only_earlier), ("later", found.only_later)):
        if cases:
            lines.append(f"only in the {where} run: {listed(cases, 12)}")
    return lines
