"""Stored runs as data: load them, and compare two."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ggufbench.analysis.run_diff import SHOWN, between
from ggufbench.errors import GgufbenchError
from ggufbench.metrics import METRICS
from ggufbench.paths import expanded
from ggufbench.records import comparisons, imported
from ggufbench.records.runs import StoredRun, read_documents
from ggufbench.records.schema import Record
from ggufbench.records.store import StoreError, read_record, run_folders
from ggufbench.records.tables import Table, sample_table, summary_table
from ggufbench.report.text.run_diff import Compared
from ggufbench.text import did_you_mean


@dataclass(frozen=True, slots=True)
class Results:
    """Stored runs, the newest first."""

    runs: Sequence[StoredRun]
    problems: Sequence[StoreError]
    """Errors of every file and folder that could not be read."""

    @property
    def records(self) -> list[Record]:
        """The records of all runs, those of the newest run first."""
        return [record for run in self.runs for record in run.records]

    def samples(self) -> Table:
        """Each sample of each metric as one row; the columns are in docs/api.md."""
        return sample_table(self.records)

    def summaries(self) -> Table:
        """Each metric of each case as one row; the columns are in docs/api.md."""
        return summary_table(self.records)


def load(path: str | Path = "results") -> Results:
    """Read a folder of results, the folder of one run, or the file of one record.

    Raises GgufbenchError if there is nothing to read at all. A file that cannot be read is in `problems`.
    """
    place = expanded(path)
    if place.is_file():
        return Results([StoredRun(place.parent, [read_record(place)], [], [])], [])
    if not place.is_dir():
        raise GgufbenchError(f"{place} does not exist; give a folder of results, a run's folder or a record")
    runs, problems = _read_runs(place)
    problems += [problem for run in runs for problem in run.problems]
    if not any(run.case_ids for run in runs):
        reason = f": {problems[0]}" if problems else ""
        raise GgufbenchError(f"{place} holds no run{reason}; make one with `ggufbench run`")
    return Results(sorted(runs, key=lambda run: run.created, reverse=True), problems)


def compare(
    before: StoredRun | str | Path,
    after: StoredRun | str | Path,
    metrics: Sequence[str] | str = SHOWN,
    match: Sequence[str] | str = (),
) -> Compared:
    """How each metric of each case changed from one run to the other: the data of `ggufbench compare`.

    The runs, or their folders, are compared in the order that is given. With `match`, only cases with one of
    these parts in their id are compared. One string is one metric or one part. Raises GgufbenchError.
    """
    metrics, match = ([given] if isinstance(given, str) else given for given in (metrics, match))
    for name in metrics:
        if name not in METRICS:
            remedy = did_you_mean(name, METRICS) or f"; the metrics are {', '.join(METRICS)}"
            raise GgufbenchError(f"{name!r} is not a metric{remedy}")
    first, second = _one_run(before), _one_run(after)
    if first.folder.resolve() == second.folder.resolve():
        raise GgufbenchError(f"both arguments name the run {first.folder}; name two runs")
    for run in (first, second):
        if not run.records:
            raise GgufbenchError(
                f"{run.folder} has no record to compare; `ggufbench show` prints what it has"
            )
    chosen = [run.only(list(match)).records if match else run.records for run in (first, second)]
    if not any(chosen):
        ids = ", ".join(dict.fromkeys(id_ for run in (first, second) for id_ in run.case_ids[:6]))
        raise GgufbenchError(f"no case in either run matches {', '.join(match)}; the cases are {ids}")
    return Compared(
        earlier=first.name,
        later=second.name,
        earlier_created=_newest(first).created,
        later_created=_newest(second).created,
        machines=(_machine(first), _machine(second)),
        found=between(chosen[0], chosen[1], list(dict.fromkeys(metrics))),
    )


def _read_runs(place: Path) -> tuple[list[StoredRun], list[StoreError]]:
    """The runs of a folder, which may be one itself, and the errors of what is in no run."""
    problems: list[StoreError] = []
    found = [read_documents(folder) for folder in run_folders(place) if _is_readable(folder, problems)]
    own = {place / comparisons.FOLDER, place / imported.FOLDER}
    runs = [run for run in found if run.folder not in own and (run.case_ids or run.problems)]
    here = read_documents(place)
    if here.case_ids or (here.problems and not runs):
        return [here, *runs], problems
    return runs, problems + here.problems


def _is_readable(folder: Path, problems: list[StoreError]) -> bool:
    try:
        os.scandir(folder).close()
    except OSError as error:
        problems.append(StoreError(f"{folder} cannot be listed: {error.strerror}"))
        return False
    return True


def _one_run(given: StoredRun | str | Path) -> StoredRun:
    if isinstance(given, StoredRun):
        return given
    runs = load(given).runs
    if len(runs) > 1:
        names = ", ".join(run.name for run in runs[:5])
        raise GgufbenchError(f"{given} holds {len(runs)} runs ({names}); give the folder of one of them")
    return runs[0]


def _newest(run: StoredRun) -> Record:
    return max(run.records, key=lambda record: record.created)


def _machine(run: StoredRun) -> str:
    machine = _newest(run).machine
    return f"{machine.cpu} ({machine.operating_system}, {machine.fingerprint})"
