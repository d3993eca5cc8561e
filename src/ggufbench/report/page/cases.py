"""Table of cases: one short row for each, so that ten thousand fit on a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ggufbench.metrics import METRICS
from ggufbench.records.schema import Record
from ggufbench.report.page.case import kind_of
from ggufbench.report.text.phrases import NOTHING, TIMES
from ggufbench.report.text.terminal import ended
from ggufbench.text import size


def columns(rates: Sequence[str]) -> list[str]:
    """Headings of the value columns."""
    return ["Load", "Cold load", "Peak memory", *(name.capitalize() for name in rates), "Size"]


@dataclass(frozen=True, slots=True)
class TableCell:
    """A value in the table of cases."""

    text: str
    value: float | None = None
    """Sort key of the column; None is sorted to the end."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class CaseRow:
    """One row of the table of cases."""

    number: int
    name: str
    machine: str
    """Empty if all records are from one machine."""
    quantization: str
    scenario: str
    cells: Sequence[TableCell]
    targets: str
    targets_kind: str
    outcome: str
    plain_outcome: str
    """Outcome without phase and signal, for the filter."""
    kind: str
    is_folded: bool
    """True if the page has the details of the case."""


def missed(record: Record) -> list[str]:
    """Names of the missed targets."""
    return [target.name for target in record.targets if target.status == "missed"]


def case_row(record: Record, number: int, is_folded: bool, several: bool, rates: Sequence[str]) -> CaseRow:
    """Build the row of a record with these rates; `several` adds the machine."""
    names = missed(record)
    held = any(target.status != "not applicable" for target in record.targets)
    return CaseRow(
        number=number,
        name=record.case_id,
        machine=record.machine.fingerprint if several else "",
        quantization=record.model.quantization,
        scenario=record.scenario,
        cells=_cells(record, rates),
        targets=f"missed: {', '.join(names)}" if names else "met" if held else NOTHING,
        targets_kind="bad" if names else "good" if held else "",
        outcome=ended(record),
        plain_outcome=str(record.outcome),
        kind=kind_of(record),
        is_folded=is_folded,
    )


def _cells(record: Record, rates: Sequence[str]) -> list[TableCell]:
    limits: dict[str, float] = {limit.name: limit.fraction for limit in record.limits}
    found = {name: summary.median for name, summary in record.summary.items()}
    ratio = found.get("peak_to_file_ratio")

    def figure(metric: str, note: str = "") -> TableCell:
        value = found.get(metric)
        return TableCell(NOTHING) if value is None else TableCell(METRICS[metric].amount(value), value, note)

    def speed(name: str) -> TableCell:
        part = limits.get(name)
        return figure(f"{name}_tokens_per_second", "" if part is None else f"{100 * part:.0f} % of bound")

    of_file = "" if ratio is None else f"{ratio:.2f}{TIMES} file"
    return [
        figure("ready_seconds"),
        figure("cold_ready_seconds"),
        figure("peak_rss_bytes", of_file),
        *map(speed, rates),
        TableCell(size(record.loaded_bytes), record.loaded_bytes),
    ]
