"""A run on the disk: its records, its comparisons, and the files that are neither."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ggufbench.records.comparison import Comparison
from ggufbench.records.comparisons import read_comparisons
from ggufbench.records.schema import Record
from ggufbench.records.store import StoreError, is_safe_name, read_folder, run_folders


@dataclass(frozen=True, slots=True)
class StoredRun:
    """The results of one run."""

    folder: Path
    records: list[Record]
    comparisons: list[Comparison]
    problems: list[StoreError]
    """Errors of the files that are neither."""

    @property
    def case_ids(self) -> list[str]:
        """Case ids of all records and comparisons."""
        return [record.case_id for record in self.records] + [one.case_id for one in self.comparisons]

    def only(self, parts: list[str]) -> StoredRun:
        """The records and comparisons whose case id contains one of these parts."""
        return StoredRun(
            self.folder,
            [record for record in self.records if _is_wanted(record.case_id, parts)],
            [comparison for comparison in self.comparisons if _is_wanted(comparison.case_id, parts)],
            self.problems,
        )


def _is_wanted(case_id: str, parts: list[str]) -> bool:
    return any(part in case_id for part in parts)


def read_run(results: Path, name: str | None = None) -> StoredRun:
    """Read a run by its name under `results` or by its folder; None means the newest. Raises StoreError."""
    runs = run_folders(results)
    if name is None:
        if not runs:
            raise StoreError(f"{results} contains no run; make one with `pytest bench --benchmark-only`")
        folder = runs[-1]
    else:
        folder = results / name if is_safe_name(name) else Path(name)
        folder = folder if folder.is_dir() else Path(name)
    found = [*read_folder(folder), *read_comparisons(folder)] if folder.is_dir() else []
    problems = [error for error in found if isinstance(error, StoreError)]
    if len(problems) == len(found):
        known = ", ".join(run.name for run in runs[-5:]) or "none"
        problem = str(problems[0]) if problems else "it contains no record"
        raise StoreError(f"{folder} is not a run: {problem}; the newest runs are {known}")
    return StoredRun(
        folder,
        [one for one in found if isinstance(one, Record)],
        [one for one in found if isinstance(one, Comparison)],
        problems,
    )
