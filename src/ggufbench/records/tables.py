"""Records as tidy tables: one row for each value, for pandas, polars, Arrow, CSV and Parquet.

Control characters of names are written as their escapes. Times are in seconds, memory in bytes.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ggufbench.errors import GgufbenchError
from ggufbench.metrics import METRICS
from ggufbench.records.samples import metric_samples
from ggufbench.records.schema import Launch, Record, Sample
from ggufbench.text import escaped

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars
    import pyarrow

Cell = str | int | float

_CASE: dict[str, type] = {
    "run": str,
    "case": str,
    "machine": str,
    "model": str,
    "quantization": str,
    "scenario": str,
    "provider": str,
    "device": str,
    "build": str,
    "outcome": str,
}
"""Columns that say what was measured."""

SAMPLE_COLUMNS: Mapping[str, type] = {
    **_CASE,
    "launch": int,
    "sample": int,
    "metric": str,
    "unit": str,
    "value": float,
    "interference": str,
}
"""Columns of a table of samples."""

SUMMARY_COLUMNS: Mapping[str, type] = {
    **_CASE,
    "metric": str,
    "unit": str,
    "better": str,
    "median": float,
    "minimum": float,
    "maximum": float,
    "samples": int,
    "launches": int,
    "interference": int,
}
"""Columns of a table of summaries."""

_SQL_TYPES = {str: "varchar", int: "bigint", float: "double"}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with named columns, each of one type."""

    columns: Mapping[str, type]
    values: Sequence[Sequence[Cell]]

    def __len__(self) -> int:
        return len(self.values)

    def rows(self) -> list[dict[str, Cell]]:
        """The rows as dicts."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.values]

    def to_pandas(self) -> pandas.DataFrame:
        """The table as a pandas data frame. Raises GgufbenchError where pandas is missing."""
        _require("pandas")
        return self.relation().df()

    def to_polars(self) -> polars.DataFrame:
        """The table as a polars data frame. Raises GgufbenchError where polars is missing."""
        _require("polars")
        import polars

        types = {str: polars.String, int: polars.Int64, float: polars.Float64}
        schema = {name: types[kind] for name, kind in self.columns.items()}
        return polars.DataFrame(self.values, schema=schema, orient="row")

    def to_arrow(self) -> pyarrow.Table:
        """The table as an Arrow table. Raises GgufbenchError where pyarrow is missing."""
        _require("pyarrow")
        return self.relation().to_arrow_table()

    def relation(self) -> duckdb.DuckDBPyRelation:
        """The table in duckdb, in memory."""
        import duckdb

        selected = ", ".join(
            f'unnest(?::{_SQL_TYPES[kind]}[]) as "{name}"' for name, kind in self.columns.items()
        )
        values = [[row[number] for row in self.values] for number in range(len(self.columns))]
        return duckdb.connect().sql(f"select {selected}", params=values)


def sample_table(records: Iterable[Record]) -> Table:
    """Every sample of every metric, warm-ups left out; those with interference name its kinds."""
    rows: list[tuple[Cell, ...]] = [
        (*_case_cells(record), *cells)
        for record in records
        for number, launch in enumerate(record.launches, 1)
        for cells in _launch_rows(number, launch, record.loaded_bytes)
    ]
    return Table(SAMPLE_COLUMNS, rows)


def summary_table(records: Iterable[Record]) -> Table:
    """Each metric of each case, over the samples without interference."""
    rows: list[tuple[Cell, ...]] = [
        (
            *_case_cells(record),
            *(escaped(text) for text in (metric, summary.unit, summary.better)),
            *(summary.median, summary.minimum, summary.maximum),
            *(summary.samples, len(summary.per_launch)),
            record.environment.disturbed if record.environment else 0,
        )
        for record in records
        for metric, summary in record.summary.items()
    ]
    return Table(SUMMARY_COLUMNS, rows)


def build_of(record: Record) -> str:
    """The versions that were measured: `llama-cpp-python 0.3.36, llama.cpp 0c1e570`."""
    versions = record.provider.versions.items()
    return escaped(", ".join(f"{name} {version}" for name, version in versions if name != "python"))


def _case_cells(record: Record) -> tuple[str, ...]:
    model = record.model
    texts = (
        *(record.run_id, record.case_id, record.machine.fingerprint, model.name, model.quantization),
        *(record.scenario, record.provider.name, record.setting.device),
    )
    return (*(escaped(text) for text in texts), build_of(record), record.outcome.value)


def _launch_rows(number: int, launch: Launch, file_size_bytes: int) -> Iterator[tuple[Cell, ...]]:
    """Launch, sample, metric, unit, value and interference of everything that a launch measured."""
    counts: dict[str, int] = {}
    for samples, marks in _measurements(launch):
        clean = [sample.model_copy(update={"disturbed": []}) for sample in samples]
        alone = launch.model_copy(update={"samples": clean, "marks": marks})
        for metric, values in metric_samples(alone, file_size_bytes).items():
            # A load is two samples, and only both together are `ready`.
            if not values or (len(samples) > 1 and not metric.endswith("ready_seconds")):
                continue
            counts[metric] = counts.get(metric, 0) + 1
            kinds = dict.fromkeys(reason.kind for sample in samples for reason in sample.disturbed)
            yield number, counts[metric], metric, METRICS[metric].unit, float(values[0]), ", ".join(kinds)


def _measurements(launch: Launch) -> Iterator[tuple[list[Sample], list[Any]]]:
    """The parts of a launch that give a value each: samples, the load as a whole, and the memory marks."""
    timed = [sample for sample in launch.samples if not sample.warmup]
    yield from (([sample], []) for sample in timed)
    loading = [sample for sample in timed if sample.phase in ("load", "first_decode")]
    if len(loading) > 1:
        yield loading, []
    yield [], launch.marks


def _require(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        reason = f"{package} is not installed; install it with `pip install {package}`"
        raise GgufbenchError(f"the table cannot be converted because {reason}") from None
