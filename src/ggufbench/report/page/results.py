"""The results table that opens the page: a row for each model and scenario, with a small bar in each cell."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from ggufbench.analysis.baselines import memory_of
from ggufbench.metrics import METRICS
from ggufbench.outcomes import Outcome
from ggufbench.records.samples import rates_of
from ggufbench.records.schema import Record
from ggufbench.report.page.case import kind_of
from ggufbench.report.text.phrases import MEMORY_IN_TOTAL, NOTHING, PEAK_OF_PROCESS
from ggufbench.report.text.terminal import ended, is_scored
from ggufbench.text import count, listed

RESULT_COLUMNS = {
    "ready_seconds": "Load",
    "peak_rss_bytes": "Memory",
    "prompt_tokens_per_second": "Prompt",
    "encode_tokens_per_second": "Encode",
    "decode_tokens_per_second": "Decode",
}
"""Metrics of the table and of the picture, with their headings, without rates that no record can have."""

_MOST_ROWS = 60
_LONGEST_NAME = 40
_MOST_REASONS = 5


@dataclass(frozen=True, slots=True)
class BarCell:
    """A value with its bar."""

    text: str
    percent: float = 0.0
    """Length of the bar: the value relative to the largest one, which has 100."""


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One scenario of a model."""

    number: int
    """Number of its record on the page; 0 if the page does not hold it."""
    scenario: str
    machine: str
    """Empty if all records are from one machine."""
    cells: Sequence[BarCell]
    """Empty if nothing was measured."""
    outcome: str
    """Outcome of the case; empty if it was measured."""
    kind: str


@dataclass(frozen=True, slots=True)
class ModelResults:
    """A model with its rows."""

    name: str
    rows: Sequence[ResultRow]


@dataclass(frozen=True, slots=True)
class ResultsTable:
    """The whole table."""

    columns: Sequence[str]
    models: Sequence[ModelResults]
    notes: Sequence[str]


def shown_columns(records: Sequence[Record]) -> list[str]:
    """The metrics of `RESULT_COLUMNS` that these records can have."""
    rates = {f"{name}_tokens_per_second" for name in rates_of(records)}
    return [name for name in RESULT_COLUMNS if name in rates or not name.endswith("_tokens_per_second")]


def results_table(records: Sequence[Record], numbers: Mapping[int, int]) -> ResultsTable | None:
    """The results of all records but the skipped ones; None if there are none.

    `numbers` has the number of each record that the page holds, by its id().
    """
    current = [r for r in records if r.outcome is not Outcome.SKIPPED and not is_scored(r)]
    if not current:
        return None
    shown = sorted(current, key=_model_of)[:_MOST_ROWS]
    columns = shown_columns(shown)
    values = {id(record): _values(record, columns) for record in shown}
    several = len({record.machine.fingerprint for record in records}) > 1

    def row(record: Record, largest: Mapping[str, float | None]) -> ResultRow:
        found = values[id(record)]
        cells = [bar_cell(metric, value, largest[metric]) for metric, value in found.items()]
        is_measured = record.outcome is Outcome.MEASURED
        return ResultRow(
            number=numbers.get(id(record), 0),
            scenario=record.scenario,
            machine=f"{record.machine.cpu} {record.machine.fingerprint[:6]}" if several else "",
            cells=cells if any(value is not None for value in found.values()) else [],
            outcome="" if is_measured else ended(record),
            kind=kind_of(record),
        )

    models = []
    for (name, quantization, _), group in groupby(shown, key=_model_of):
        of_model = list(group)
        largest = {
            metric: largest_of([values[id(record)][metric] for record in of_model]) for metric in columns
        }
        rows = [row(record, largest) for record in of_model]
        models.append(ModelResults(shortened(f"{name}-{quantization}"), rows))
    headings = [RESULT_COLUMNS[name] for name in columns]
    return ResultsTable(headings, models, list(_notes(records, len(current))))


def bar_cell(metric: str, value: float | None, largest: float | None) -> BarCell:
    """A value as text, with the length of its bar, which is proportional to the value."""
    if value is None:
        return BarCell(NOTHING)
    text = METRICS[metric].amount(value)
    if largest is None or value <= 0 or largest <= 0:
        return BarCell(text)
    return BarCell(text, round(100 * min(value / largest, 1.0), 1))


def largest_of(values: Sequence[float | None]) -> float | None:
    """Largest of the values; None without a value."""
    return max((value for value in values if value is not None), default=None)


def shortened(name: str) -> str:
    """A name that fits a column: the middle of a long one is left out."""
    if len(name) <= _LONGEST_NAME:
        return name
    half = (_LONGEST_NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def _model_of(record: Record) -> tuple[str, str, str]:
    return record.model.name, record.model.quantization, record.model.identity


def _values(record: Record, columns: Sequence[str]) -> dict[str, float | None]:
    found = {name: summary.median for name, summary in record.summary.items()}
    memory = memory_of(record)
    if memory:
        found["peak_rss_bytes"] = statistics.median(memory)
    return {metric: _real(found.get(metric)) for metric in columns}


def _real(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _notes(records: Sequence[Record], total: int) -> Iterator[str]:
    """Notes that apply to several rows."""
    yield (
        "Medians. Load: from opening the file to the first token, with the file in memory. "
        f"{MEMORY_IN_TOTAL} {PEAK_OF_PROCESS} "
        "A bar shows the value relative to the largest one of the same model."
    )
    if total > _MOST_ROWS:
        yield f"The first {_MOST_ROWS} of {total:,} cases; the table of cases has all."
    skipped: dict[str, list[Record]] = {}
    for record in records:
        if record.outcome is Outcome.SKIPPED:
            skipped.setdefault(record.reason or "no reason is stored", []).append(record)
    for reason, cases in list(skipped.items())[:_MOST_REASONS]:
        names = listed([record.case_id for record in cases])
        yield f"Skipped: {count(len(cases), 'case')} ({names}): {reason.rstrip('.')}."
    if len(skipped) > _MOST_REASONS:
        yield f"{len(skipped) - _MOST_REASONS} more reasons for skipping are in the table of cases."
