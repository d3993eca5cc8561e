"""The history as text and as JSON: its series with their states, and charts if they are few."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ggufbench.history.judgement import LEAST, State
from ggufbench.history.queries import SeenMachine, moment
from ggufbench.history.series import ANCHORED, History, Level, OtherMachine, SeriesRow
from ggufbench.metrics import METRICS
from ggufbench.report.text.chart import LEGEND, Drawing, chart
from ggufbench.report.text.names import Name
from ggufbench.report.text.terminal import stack, table, text

ADVISORY = (
    "Absolute series are advisory and cannot fail: they change with the machine as well as with the code. "
    "`ggufbench ab --anchor` also measures a pinned release, and the history becomes a ratio to it."
)

_MOST_ROWS = 60
_ORDER = (State.REGRESSION, State.SUSPECT, State.OK, State.TOO_FEW)
_STYLES = {State.OK: "green", State.SUSPECT: "yellow", State.REGRESSION: "bold red", State.TOO_FEW: "dim"}

_LEAST_DRAWN = 3


def history_report(found: History, width: int) -> RenderableType:
    """Every series, the worst first, then the excluded documents with the reasons."""
    drawn = [row for row in found.rows if found.drawn and len(row.series.sessions) >= _LEAST_DRAWN]
    return stack(
        _machine_line(found.machine),
        series_table(found.rows),
        *[_drawn(row, width) for row in drawn],
        Text(LEGEND, style="dim") if drawn else None,
        _crept(found.rows),
        _advisory(found.rows),
        _others(found.others),
        problems_note(found.unreadable, found.problems),
    )


def series_table(rows: Sequence[SeriesRow]) -> RenderableType | None:
    """One line for each series, the worst first, grouped by anchor."""
    if not rows:
        return None
    ordered = sorted(rows, key=lambda row: (_ORDER.index(row.state), -row.newest.created))
    shown: dict[str, list[SeriesRow]] = {}
    for row in ordered[:_MOST_ROWS]:
        shown.setdefault(row.series.anchor, []).append(row)
    tables = [_one_table(anchor, found) for anchor, found in sorted(shown.items(), reverse=True)]
    return stack(*tables, _left_out(ordered[_MOST_ROWS:]))


def _one_table(anchor: str, rows: Sequence[SeriesRow]) -> RenderableType:
    shown = table("Case", "Metric", ">Sessions", ">Last", ">Before", ">Worse by", ">State")
    for row in rows:
        shown.add_row(
            Name(row.series.case_id),
            Name(METRICS[row.series.metric].short_label),
            Text(str(row.series.count)),
            Text(amount(row, row.newest.value)),
            Text("-" if row.before is None else amount(row, row.before)),
            Text("-" if row.change is None else percent(row.change)),
            Text(row.state.value, style=_STYLES[row.state]),
        )
    title = f"Relative to {anchor}" if anchor else "Absolute"
    return Group(text(title, style="italic"), shown)


def history_document(found: History) -> dict[str, Any]:
    """The history for JSON."""
    return {
        "machine": _machine_document(found.machine),
        "series": [row_document(row, sessions=found.drawn) for row in found.rows],
        "other_machines": [other_document(other) for other in found.others],
        "unreadable": found.unreadable,
        "problems": found.problems,
    }


def row_document(row: SeriesRow, *, sessions: bool) -> dict[str, Any]:
    """One series for JSON; `sessions` adds its values and change points."""
    newest = row.judged[-1]
    document: dict[str, Any] = {
        "case_id": row.series.case_id,
        "model": row.series.model,
        "scenario": row.series.scenario,
        "metric": row.series.metric,
        "kind": row.series.kind,
        "anchor": row.series.anchor or None,
        "series": f"{row.series.subject:016x}",
        "sessions": row.series.count,
        "state": row.state,
        "run_id": row.newest.run,
        "value": row.newest.value,
        "median_before": row.before,
        "sessions_before": newest.before,
        "worse_by": row.change,
        "crept_by": row.crept,
        "limit": None if newest.limit is None else math.expm1(newest.limit),
    }
    if sessions:
        document["values"] = [
            {"run_id": one.run, "created": moment(one.created), "value": one.value, "state": judged.state}
            for one, judged in zip(row.series.sessions, row.judged, strict=True)
        ]
        document["change_points"] = [_level_document(level) for level in row.levels]
    return document


def other_document(other: OtherMachine) -> dict[str, Any]:
    """An excluded machine, for JSON."""
    differing = [{"key": key, "here": here, "there": there} for key, here, there in other.differing]
    return {"fingerprint": other.fingerprint, "documents": other.documents, "differing": differing}


def other_sentence(other: OtherMachine) -> str:
    """An excluded machine in one sentence."""
    keys = [f"{key} {_fact(there)} (here {_fact(here)})" for key, here, there in other.differing]
    differ = ", ".join(keys) or "its fingerprint only, which another version of ggufbench computed"
    documents = f"{other.documents} document{'s' if other.documents != 1 else ''}"
    return f"{other.fingerprint}: {documents}, differs in {differ}"


def problems_note(count: int, problems: Sequence[str]) -> RenderableType | None:
    """The number of unusable files, with the reasons of the newest."""
    if not count:
        return None
    shown = table("Unusable file")
    for problem in problems[:3]:
        shown.add_row(text(problem))
    if count > 3:
        shown.add_row(Text(f"{count - 3} more files (--json lists the newest ten)"))
    return shown


def creep_sentence(row: SeriesRow) -> str:
    """A sentence about a series that got worse in steps too small to detect one by one."""
    return (
        f"{row.series.case_id}, {METRICS[row.series.metric].short_label}: the last 10 sessions are "
        f"{percent(row.crept or 0.0).lstrip('+')} worse than the first 20 of {len(row.series.sessions)}; "
        "it got worse gradually, or an earlier regression was not fixed."
    )


def amount(row: SeriesRow, value: float) -> str:
    """A value of a series: relative to the anchor, or with its unit."""
    if row.series.kind == ANCHORED:
        return percent(value)
    return METRICS[row.series.metric].amount(value)


def percent(share: float) -> str:
    """A relative change: `+8.0 %`."""
    return f"{100 * share:+.1f} %" if abs(share) < 100 else f"{100 * share:+.1e} %"


def _machine_line(machine: SeenMachine) -> Text:
    facts = machine.facts
    about = f"{facts.get('cpu')}, {facts.get('usable_cores')} cores, {facts.get('operating_system')}"
    return text(f"Machine {machine.fingerprint}: {about}; {machine.runs} runs, {machine.documents} documents")


def _machine_document(machine: SeenMachine) -> dict[str, Any]:
    return {
        "fingerprint": machine.fingerprint,
        **machine.facts,
        "runs": machine.runs,
        "documents": machine.documents,
    }


def _left_out(rows: Sequence[SeriesRow]) -> Text | None:
    if not rows:
        return None
    counts = Counter(row.state for row in rows)
    said = ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state])
    return Text(f"{len(rows)} more series ({said}); select some with --match and --metric, or use --json.")


def _drawn(row: SeriesRow, width: int) -> RenderableType:
    """The chart of a series, with its changes of level below."""
    sessions = row.series.sessions
    bad = [judged.state in (State.SUSPECT, State.REGRESSION) for judged in row.judged]
    drawing = Drawing(
        [session.value for session in sessions],
        bad,
        [level.point.index for level in row.levels],
        lambda value: amount(row, value),
        (sessions[0].day, sessions[-1].day),
    )
    title = text(
        f"{row.series.case_id}  {METRICS[row.series.metric].short_label}  {_direction(row)}", style="bold"
    )
    lines = [text(_level_sentence(row, level), style="yellow") for level in row.levels]
    return stack(Text("\n").join([title, chart(drawing, width - 1), *lines]))


def _direction(row: SeriesRow) -> str:
    if row.series.kind == ANCHORED:
        return f"relative to {row.series.anchor.split(' (build')[0]}, higher is worse"
    return f"absolute, higher is {'worse' if METRICS[row.series.metric].better == 'lower' else 'better'}"


def _level_sentence(row: SeriesRow, level: Level) -> str:
    change = math.expm1(level.point.shift)
    way = "worse" if change > 0 else "better"
    since = f"{percent(abs(change)).lstrip('+')} {way} since {level.run}"
    day = row.series.sessions[level.point.index].day
    beside = f": {', '.join(level.changes)}" if level.changes else ": no version changed"
    return f"{since} ({day}){beside}"


def _level_document(level: Level) -> dict[str, Any]:
    return {
        "run_id": level.run,
        "index": level.point.index,
        "worse_by": math.expm1(level.point.shift),
        "p": level.point.p,
        "changes": level.changes,
    }


def _advisory(rows: Iterable[SeriesRow]) -> Text | None:
    kinds = {row.series.kind for row in rows}
    states = {row.state for row in rows}
    few = f"A series needs {LEAST} earlier sessions before it is judged." if State.TOO_FEW in states else ""
    said = " ".join(part for part in (few, ADVISORY if kinds - {ANCHORED} else "") if part)
    return Text(said, style="dim") if said else None


def _crept(rows: Iterable[SeriesRow]) -> Text | None:
    found = [
        row for row in rows if row.series.kind == ANCHORED and row.crept is not None and row.state is State.OK
    ]
    return Text("\n").join(text(creep_sentence(row), style="yellow") for row in found[:5]) if found else None


def _others(others: Sequence[OtherMachine]) -> RenderableType | None:
    """The excluded machines. Their documents are neither counted nor scaled."""
    if not others:
        return None
    shown = table("Excluded: other machine")
    for other in others[:5]:
        shown.add_row(text(other_sentence(other)))
    if len(others) > 5:
        shown.add_row(Text(f"{len(others) - 5} more machines (--json lists all)"))
    return shown


def _fact(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
