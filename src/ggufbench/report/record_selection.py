"""Selection of the documents in a report from the results folder."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ggufbench.history.judgement import State
from ggufbench.history.series import ANCHORED, HistoryQuery, SeriesRow
from ggufbench.history.series import history as ask_history
from ggufbench.records.comparison import Comparison
from ggufbench.records.comparisons import read_comparisons
from ggufbench.records.record_summary import BriefRecord, many_objects
from ggufbench.records.runs import StoredRun, read_run
from ggufbench.records.schema import ModelIdentity, Record
from ggufbench.records.store import StoreError, read_folder, run_folders
from ggufbench.report.content import Content

MOST_COMPLETE = 300
"""Most cases whose logs are read and shown; with more, a page would need gigabytes."""

_MOST_SERIES = 4
_LEAST_SESSIONS = 3
_MOST_PROBLEMS = 20
_URGENCY = (State.REGRESSION, State.SUSPECT, State.OK, State.TOO_FEW)

_Document = TypeVar("_Document", Record, Comparison)


@dataclass(frozen=True, slots=True)
class Choice:
    """Runs and filters of a report; an empty filter selects everything."""

    results: Path
    runs: Sequence[str] = ()
    """Names or folders of runs; by default the newest run. The newest record of each case is used."""
    match: Sequence[str] = ()
    """Parts of case ids."""
    scenarios: Sequence[str] = ()
    models: Sequence[str] = ()
    """Parts or patterns of the name or the repository of a model, in upper or lower case."""
    against: str | None = None
    """An earlier run to compare with."""
    on_step: Callable[[str], None] = lambda _step: None

    def wants(self, document: Record | Comparison) -> bool:
        """True if the filters select this document."""
        scenarios = _scenarios_of(document)
        return (
            (not self.match or any(part in document.case_id for part in self.match))
            and (not self.scenarios or any(name in self.scenarios for name in scenarios))
            and (not self.models or any(_fits(document.model, pattern) for pattern in self.models))
        )


def choose(choice: Choice) -> Content:
    """Read the selected documents. Raises StoreError if there are none."""
    with many_objects():
        runs = _read_runs(choice.results, choice.runs or [None], choice.on_step)
    records = _newest(_wanted(choice, (run.records for run in runs)))
    comparisons = _newest(_wanted(choice, (run.comparisons for run in runs)))
    if not records and not comparisons:
        raise StoreError(_nothing(choice, runs))
    problems = [str(problem) for run in runs for problem in run.problems]
    against = _against(choice, runs)
    if against is not None:
        problems += map(str, against.problems)
    return Content(
        records=records,
        comparisons=comparisons,
        runs=[run.folder.name for run in runs],
        history=_history(choice, records),
        against=against,
        problems=_shortened(problems),
    )


def _read_runs(results: Path, names: Sequence[str | None], on_step: Callable[[str], None]) -> list[StoredRun]:
    folders = [_folder(results, name) for name in names]
    count = sum(sum(1 for _ in folder.glob("*.json")) for folder in dict.fromkeys(folders) if folder)
    if count > MOST_COMPLETE:
        on_step(f"reading {count} records")
    read = [
        _read_briefly(folder, results, name) if folder and count > MOST_COMPLETE else read_run(results, name)
        for folder, name in dict(zip(folders, names, strict=True)).items()
    ]
    return list({run.folder.resolve(): run for run in read}.values())


def _folder(results: Path, name: str | None) -> Path | None:
    """Folder of a run, found like in read_run(); None if there is no run."""
    if name is None:
        return next(reversed(run_folders(results)), None)
    return next((run for run in run_folders(results) if run.name == name), Path(name))


def _read_briefly(folder: Path, results: Path, name: str | None) -> StoredRun:
    found = [*read_folder(folder, BriefRecord), *read_comparisons(folder)]
    problems = [one for one in found if isinstance(one, StoreError)]
    if len(problems) == len(found):
        return read_run(results, name)  # raises the error
    return StoredRun(
        folder,
        [one for one in found if isinstance(one, Record)],
        [one for one in found if isinstance(one, Comparison)],
        problems,
    )


def _wanted(choice: Choice, documents: Iterable[Iterable[_Document]]) -> list[_Document]:
    return [document for of_run in documents for document in of_run if choice.wants(document)]


def _newest(documents: Iterable[_Document]) -> list[_Document]:
    """Newest document of each case on each machine, in the order of their first occurrence."""
    found: dict[tuple[str, ...], _Document] = {}
    for document in documents:
        # A record by its model and scenario: older versions of ggufbench wrote other ids.
        key: tuple[str, ...] = (document.machine.fingerprint, document.case_id)
        if isinstance(document, Record):
            key = (document.machine.fingerprint, document.model.identity, document.scenario)
        if key not in found or found[key].created <= document.created:
            found[key] = document
    return list(found.values())


def _against(choice: Choice, runs: Sequence[StoredRun]) -> StoredRun | None:
    if choice.against is None:
        return None
    (earlier,) = _read_runs(choice.results, [choice.against], choice.on_step)
    if any(run.folder.resolve() == earlier.folder.resolve() for run in runs):
        raise StoreError(
            f"--against {choice.against}: the report is about this run itself; name an earlier run"
        )
    return replace(
        earlier,
        records=[record for record in earlier.records if choice.wants(record)],
        comparisons=[one for one in earlier.comparisons if choice.wants(one)],
    )


def _history(choice: Choice, records: Sequence[Record]) -> list[SeriesRow]:
    """The most important series of these cases with all sessions; empty if few sessions are stored."""
    if not records or len(records) > MOST_COMPLETE or len(run_folders(choice.results)) < _LEAST_SESSIONS:
        return []
    shown = {record.case_id for record in records}
    machine = max(records, key=lambda record: record.created).machine.fingerprint
    try:
        rows = ask_history(HistoryQuery(choice.results, match=sorted(shown), machine=machine)).rows
        known = [r for r in rows if r.series.case_id in shown and r.series.count >= _LEAST_SESSIONS]
        return [_whole(choice.results, machine, row) for row in sorted(known, key=_urgency)[:_MOST_SERIES]]
    except StoreError:
        # The history does not contain the run: it is in another folder, or the first of this machine.
        return []


def _whole(results: Path, machine: str, row: SeriesRow) -> SeriesRow:
    """Read the same series with all its sessions and its change points."""
    question = HistoryQuery(results, match=[row.series.case_id], metrics=[row.series.metric], machine=machine)
    found = ask_history(question).rows
    same = (other for other in found if other.series.subject == row.series.subject)
    return next((other for other in same if other.series.metric == row.series.metric), row)


def _urgency(row: SeriesRow) -> tuple[int, bool, int]:
    return _URGENCY.index(row.state), row.series.kind != ANCHORED, -row.series.count


def _scenarios_of(document: Record | Comparison) -> set[str]:
    if isinstance(document, Record):
        return {document.scenario}
    return {arm.scenario for arm in document.arms}


def _fits(model: ModelIdentity, pattern: str) -> bool:
    texts = (model.name, f"{model.name}-{model.quantization}", model.repository or "")
    wanted = pattern.lower()
    return any(wanted in text.lower() or fnmatch.fnmatchcase(text.lower(), wanted) for text in texts)


def _nothing(choice: Choice, runs: Sequence[StoredRun]) -> str:
    names = ", ".join(run.folder.name for run in runs)
    if not any(run.records or run.comparisons for run in runs):
        return f"{names} holds imported results only, which no report shows; `ggufbench show` prints them"
    asked = ", ".join([*choice.match, *choice.scenarios, *choice.models])
    held = [case_id for run in runs for case_id in run.case_ids]
    more = f" and {len(held) - 12} more" if len(held) > 12 else ""
    return f"{names}: no case matches {asked}; the cases are {', '.join(held[:12])}{more}"


def _shortened(problems: Sequence[str]) -> list[str]:
    left = len(problems) - _MOST_PROBLEMS
    return [*problems[:_MOST_PROBLEMS], *([f"and {left} more files"] if left > 0 else [])]
