"""The verdict of the history on a run, as text and as JSON."""

from __future__ import annotations

import math
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from ggufbench.exit_codes import ExitCode
from ggufbench.history.gate import HistoryGateResult
from ggufbench.history.judgement import LEAST, State
from ggufbench.history.queries import moment
from ggufbench.history.series import SeriesRow
from ggufbench.metrics import METRICS
from ggufbench.report.text.history import (
    ADVISORY,
    creep_sentence,
    other_document,
    other_sentence,
    percent,
    problems_note,
    row_document,
    series_table,
)
from ggufbench.report.text.names import Name
from ggufbench.report.text.terminal import stack, table, text
from ggufbench.text import count

_WORDS = {
    ExitCode.PASS: "no regression",
    ExitCode.REGRESSION: "regression",
    ExitCode.BROKEN: "broken",
    ExitCode.NO_BASELINE: "no comparable baseline",
    ExitCode.INCONCLUSIVE: "inconclusive",
    ExitCode.NOTHING_MEASURED: "nothing measured",
}
_STYLES = {
    ExitCode.PASS: "green",
    ExitCode.REGRESSION: "bold red",
    ExitCode.BROKEN: "bold red",
    ExitCode.NOTHING_MEASURED: "bold red",
}


def gate_report(answer: HistoryGateResult, *, strict: bool) -> RenderableType:
    """The deciding series, the advisory ones, the lost cases, and the verdict with its reasons."""
    code = answer.exit_code(strict=strict)
    return stack(
        series_table(answer.rows),
        stack(series_table(answer.advisory), Text(ADVISORY, style="dim")) if answer.advisory else None,
        _lost(answer),
        problems_note(answer.unreadable, answer.problems),
        Text("\n").join(
            [
                text(headline(answer, code), style=_STYLES.get(code, "yellow")),
                *map(text, reasons(answer)),
            ]
        ),
    )


def gate_document(answer: HistoryGateResult, *, strict: bool) -> dict[str, Any]:
    """The verdict for JSON."""
    code = answer.exit_code(strict=strict)
    return {
        "run": answer.run,
        "created": None if answer.created is None else moment(answer.created),
        "machine": answer.fingerprint,
        "verdict": _WORDS[code],
        "exit_code": code,
        "reasons": reasons(answer),
        "series": [row_document(row, sessions=False) for row in answer.rows],
        "advisory": [row_document(row, sessions=False) for row in answer.advisory],
        "lost": answer.lost,
        "undecided": answer.undecided,
        "other_machines": [other_document(other) for other in answer.others],
        "earlier_anchors": answer.anchors,
        "anchor_slower_by": None if answer.other_host is None else math.expm1(answer.other_host),
        "unreadable": answer.unreadable,
        "problems": answer.problems,
    }


def headline(answer: HistoryGateResult, code: ExitCode) -> str:
    """The verdict in one line."""
    when = f" of {moment(answer.created)[:16]}" if answer.created is not None else ""
    which = f"Run {answer.run}{when}" if answer.run else "No run"
    return f"{which}: {_WORDS[code]}"


def reasons(answer: HistoryGateResult) -> list[str]:
    """The reasons of the verdict and what to do next, one sentence each."""
    return [
        *_nothing(answer),
        *(_worse(row) for row in answer.rows if row.state is State.REGRESSION),
        *(_suspect(row) for row in answer.rows if row.state is State.SUSPECT),
        *(creep_sentence(row) for row in answer.rows if row.crept is not None and row.state is State.OK),
        *_other_host(answer),
        *_no_baseline(answer),
        *_undecided(answer),
    ]


def _nothing(answer: HistoryGateResult) -> list[str]:
    if answer.measured:
        return []
    if answer.created is None and answer.run:
        return [f"The newest run, {answer.run}, has no readable document; measure again."]
    if answer.created is None:
        return [
            "No stored session can be used: measure with `ggufbench run` or with `ggufbench ab --anchor`; "
            "a comparison without an anchor is not part of the history."
        ]
    return ["No case of the run was measured."]


def _worse(row: SeriesRow) -> str:
    return (
        f"{_compared(row)}, and so was the session before; fix it, or accept it as the new level with "
        f"--since {row.newest.run}."
    )


def _suspect(row: SeriesRow) -> str:
    return f"{_compared(row)}: one bad session may be chance; measure again, a second one decides."


def _compared(row: SeriesRow) -> str:
    newest = row.judged[-1]
    worse = percent(row.change or 0.0).lstrip("+")
    limit = percent(math.expm1(newest.limit or 0.0)).lstrip("+")
    return (
        f"{row.series.case_id}, {METRICS[row.series.metric].short_label}: {worse} worse than the median of "
        f"the {newest.before} sessions before, limit {limit}"
    )


def _other_host(answer: HistoryGateResult) -> list[str]:
    if answer.other_host is None:
        return []
    change = math.expm1(answer.other_host)
    way = "slower" if change > 0 else "faster"
    return [
        f"The anchor itself is {100 * abs(change):.0f} % {way} than in its history, in every metric: another "
        "host has the same fingerprint, or this one is slowed down; nothing counts as a regression until the "
        "anchor is at its level again."
    ]


def _no_baseline(answer: HistoryGateResult) -> list[str]:
    if answer.compared or not answer.measured:
        return []
    if answer.others:
        return [
            f"There is no earlier session of this machine ({answer.fingerprint}); others are not comparable:",
            *(other_sentence(other) for other in answer.others[:5]),
        ]
    if answer.anchors:
        now = ", ".join(sorted({row.series.anchor for row in answer.rows}))
        return [
            f"The anchor is {now}, but earlier sessions had {', '.join(answer.anchors)}: a new series begins."
        ]
    return [
        "No earlier session on this machine measured the same models with the same settings; "
        f"the history can decide after {LEAST} more."
    ]


def _undecided(answer: HistoryGateResult) -> list[str]:
    if not answer.compared:
        return []
    found = []
    few = [row for row in answer.rows if row.state is State.TOO_FEW]
    if few:
        least = min(row.judged[-1].before for row in few)
        found.append(
            f"{count(len(few), 'series has', 'series have')} fewer than {LEAST} earlier sessions (the "
            f"shortest {least}) and cannot be judged yet; with --strict this is inconclusive."
        )
    if answer.undecided:
        cases = ", ".join(answer.undecided[:5])
        found.append(
            f"No result of {cases} counts (interference, too few pairs, or unreadable); measure again."
        )
    if not answer.rows:
        found.append(
            "No session of this run has an anchor, so nothing can fail; with --strict this is inconclusive."
        )
    return found


def _lost(answer: HistoryGateResult) -> RenderableType | None:
    if not answer.lost:
        return None
    shown = table("Measured before", "Now", "Reason")
    for case in answer.lost:
        now = Text("broken" if case.broken else "missing", style="red")
        shown.add_row(Name(case.case_id), now, text(case.reason))
    return shown
