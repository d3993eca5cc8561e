"""A stored run: its records, comparisons and imported results, and the files that could not be read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ggufbench.records.comparison import Comparison
from ggufbench.records.comparisons import read_comparisons
from ggufbench.records.imported import ImportedResult, read_imports
from ggufbench.records.schema import Record
from ggufbench.records.store import StoreError, read_folder, run_folders
from ggufbench.records.tables import Table, sample_table, summary_table


@dataclass(frozen=True, slots=True)
class StoredRun:
    """Everything that one run stored."""

    folder: Path
    records: list[Record]
    comparisons: list[Comparison]
    problems: list[StoreError]
    """Errors of the files that could not be read."""
    imported: list[ImportedResult] = field(default_factory=list)
    """Results of other programs, which are shown and never gated."""

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def documents(self) -> list[Record | Comparison | ImportedResult]:
        """Everything that could be read."""
        return [*self.records, *self.comparisons, *self.imported]

    @property
    def created(self) -> str:
        """When its newest document was made, UTC, ISO 8601; empty without a document."""
        return max((one.created for one in self.documents), default="")

    @property
    def case_ids(self) -> list[str]:
        """The ids of all its cases."""
        return [one.case_id for one in self.documents]

    def only(self, parts: list[str]) -> StoredRun:
        """The same run with only the cases whose id contains one of the parts."""
        return StoredRun(
            self.folder,
            [record for record in self.records if _is_wanted(record.case_id, parts)],
            [comparison for comparison in self.comparisons if _is_wanted(comparison.case_id, parts)],
            self.problems,
            [result for result in self.imported if _is_wanted(result.case_id, parts)],
        )

    def samples(self) -> Table:
        """Each sample of each metric as one row; the columns are in docs/api.md."""
        return sample_table(self.records)

    def summaries(self) -> Table:
        """Each metric of each case as one row; the columns are in docs/api.md."""
        return summary_table(self.records)


def _is_wanted(case_id: str, parts: list[str]) -> bool:
    return any(part in case_id for part in parts)


def read_run(results: Path, name: str | None = None) -> StoredRun:
    """Read a run by its name under `results` or by its folder; None means the newest. Raises StoreError."""
    runs = run_folders(results)
    if name is None:
        if not runs:
            raise StoreError(f"{results} contains no run; make one with `ggufbench run`")
        folder = runs[-1]
    else:
        folder = next((run for run in runs if run.name == name), Path(name))
    run = read_documents(folder)
    if not run.case_ids:
        known = ", ".join(run.name for run in runs[-5:]) or "none"
        problem = str(run.problems[0]) if run.problems else "there is no record in it"
        raise StoreError(f"{folder} is not a run: {problem}; the newest runs are {known}")
    return run


def read_documents(folder: Path) -> StoredRun:
    """Every document in the folder of a run; the run is empty where there is no such folder."""
    found = (
        [*read_folder(folder), *read_comparisons(folder), *read_imports(folder)] if folder.is_dir() else []
    )
    return StoredRun(
        folder,
        [one for one in found if isinstance(one, Record)],
        [one for one in found if isinstance(one, Comparison)],
        [one for one in found if isinstance(one, StoreError)],
        [one for one in found if isinstance(one, ImportedResult)],
    )
