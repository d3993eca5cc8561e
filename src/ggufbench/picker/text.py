"""Texts of the picker: the cells of the table and the details of a model.

Names come from files: `text` escapes control characters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ggufbench.discovery.names import portable_path
from ggufbench.picker.entries import LARGEST_FIRST, Order, PickerEntry, SortBy
from ggufbench.report.text.phrases import shell_command
from ggufbench.report.text.terminal import text
from ggufbench.text import context_tokens, parameters, rate, seconds_text, size

NOTHING = "-"
_ARROW = 2
"""Cells of a heading reserved for the sort arrow."""
_PADDING = 2
_NAME_AT_LEAST, _NAME_WANTED = 12, 24
_MOST = 16
"""Maximum width in cells of every column but the first."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table."""

    heading: str
    by: SortBy | None
    """None if it cannot be sorted by."""
    cell: Callable[[PickerEntry], str]
    right: bool = True


def heading(column: Column, order: Order) -> Text:
    """Heading of a column, with an arrow if the table is sorted by it."""
    arrow = ""
    if column.by == order.by:
        arrow = " ↓" if (order.by in LARGEST_FIRST) != order.reverse else " ↑"
    return Text(column.heading + arrow, justify="right" if column.right else "left", no_wrap=True)


def cell(column: Column, entry: PickerEntry, width: int) -> Text:
    """Cell of at most `width` columns; a longer text is cut with an ellipsis."""
    shown = text(column.cell(entry))
    shown.truncate(width, overflow="ellipsis")
    shown.no_wrap, shown.justify = True, "right" if column.right else "left"
    return shown


def details(entry: PickerEntry | None, nothing: str = "") -> RenderableType:
    """Details of one model, one line per fact; the text `nothing` without a model."""
    if entry is None:
        return text(nothing)
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(no_wrap=True, min_width=10)
    facts.add_column(overflow="fold")
    for name, value in _facts(entry):
        facts.add_row(name, text(value))
    return Group(text(_first_line(entry), style="bold"), facts)


def _facts(entry: PickerEntry) -> Iterator[tuple[str, str]]:
    row = entry.row
    yield ("! Measured" if entry.broke else "Measured"), _measured(entry)
    if row.measured is None or entry.broke:
        command = ["ggufbench", "run", "--models", portable_path(row.path)]
        yield "To measure", shell_command(command)
    if entry.larger_than_memory:
        yield "! Memory", "the file is larger than the memory of this machine"
    template = "" if row.chat_template else ", no chat template"
    yield (
        "Kind",
        f"{row.architecture}, {parameters(row.parameters)} parameters, {size(row.file_size_bytes)}{template}",
    )
    yield "Context", f"trained for {row.trained_context} tokens"
    yield "From", f"{row.repository} ({row.source})" if row.repository else row.source
    yield "Path", portable_path(row.path)


def _measured(entry: PickerEntry) -> str:
    """`decode 41.0 t/s, prompt 310 t/s, load 0.41 s, peak memory 5.0 GiB (cpu, 2026-11-24)`."""
    measured = entry.row.measured
    if measured is None:
        return "never on this machine"
    when = f"({measured.scenario}, {measured.created[:10]})"
    if measured.broke:
        return f"{_ended(measured.outcome)} {when}"
    figures = (
        ("decode", measured.decode_tokens_per_second, rate),
        ("prompt", measured.prompt_tokens_per_second, rate),
        ("load", measured.load_seconds, seconds_text),
        ("peak memory", measured.peak_rss_bytes, size),
    )
    known = [f"{name} {show(value)}" for name, value, show in figures if value is not None]
    interference = ", with interference" if measured.outcome == "environment" else ""
    return f"{', '.join(known) or 'nothing'} {when}{interference}"


def _ended(outcome: str) -> str:
    return "ran out of memory" if outcome == "out of memory" else outcome


def _first_line(entry: PickerEntry) -> str:
    return entry.row.label + (" ~ synthetic: random weights" if entry.synthetic else "")


def _marked(entry: PickerEntry) -> str:
    """Name, with `!` before it if the details contain a warning and `~` after it if it is synthetic."""
    warning = "! " if entry.broke or entry.larger_than_memory else ""
    return warning + entry.row.name + (" ~" if entry.synthetic else "")


def _speed(entry: PickerEntry) -> str:
    """Decode rate, or the outcome if it broke."""
    if entry.broke and entry.row.measured:
        return str(entry.row.measured.outcome)
    return _shown(entry, "decode_tokens_per_second", rate)


def _shown(entry: PickerEntry, figure: str, show: Callable[[float], str]) -> str:
    value = entry.figure(figure)
    return NOTHING if value is None else show(value)


MODEL = Column("Model", "name", _marked, right=False)

# In display order; on a narrow screen columns are dropped from the end of `_DISPENSABLE`.
_QUANT = Column("Quant", "quantization", lambda entry: entry.row.quantization, right=False)
_SIZE = Column("Size", "size", lambda entry: size(entry.row.file_size_bytes))
_CONTEXT = Column("Context", "context", lambda entry: context_tokens(entry.row.trained_context))
_COST = Column("Cost", None, lambda entry: entry.row.cost, right=False)
_SPEED = Column("Speed", "speed", _speed)
_MEMORY = Column("Memory", "memory", lambda entry: _shown(entry, "peak_rss_bytes", size))
_LOAD = Column("Load", "load", lambda entry: _shown(entry, "load_seconds", seconds_text))
_OTHERS = (_QUANT, _SIZE, _CONTEXT, _COST, _SPEED, _MEMORY, _LOAD)
_DISPENSABLE = (_SPEED, _MEMORY, _CONTEXT, _LOAD, _COST)


def fitting(entries: Sequence[PickerEntry], width: int) -> list[tuple[Column, int]]:
    """The columns that fit into `width` cells, with their widths; the model column takes the rest."""
    widths = {column.heading: _width(column, entries) for column in (MODEL, *_OTHERS)}
    kept, dispensable = list(_OTHERS), list(_DISPENSABLE)
    wanted = min(_NAME_WANTED, widths["Model"])
    while (left := width - _PADDING - sum(widths[c.heading] + _PADDING for c in kept)) < wanted:
        if not dispensable:
            break
        kept.remove(dispensable.pop())
    first = (MODEL, max(_NAME_AT_LEAST, min(left, widths["Model"])))
    return [first, *((column, widths[column.heading]) for column in kept)]


def _width(column: Column, entries: Sequence[PickerEntry]) -> int:
    longest = max((cell_len(text(column.cell(entry)).plain) for entry in entries), default=0)
    needed = max(longest, len(column.heading) + (_ARROW if column.by else 0))
    return needed if column is MODEL else min(needed, _MOST)
