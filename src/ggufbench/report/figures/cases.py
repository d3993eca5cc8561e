"""Selection of the cases in a figure, their order and their labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property

from ggufbench.analysis.baselines import Versus
from ggufbench.metrics import Summary
from ggufbench.outcomes import Outcome
from ggufbench.records.schema import Record
from ggufbench.report.content import Content
from ggufbench.report.figures.captions import is_failed, plain

_MOST_REAL = 1e16
"""Largest value in any unit; more bytes, seconds or tokens come from a damaged file."""

MOST = 24
"""Most cases in a bar figure."""

_MOST_FAILED_SHARE = 3
"""At most one in three cases is a failed one without a baseline, because bars show measured values."""


@dataclass(frozen=True, slots=True)
class FigureRow:
    """One case in a bar figure."""

    record: Record
    label: str
    versus: Sequence[Versus] = ()
    """Comparisons with its transformers baselines."""

    @property
    def title(self) -> str:
        """Name of the case with its model."""
        return f"{plain(self.record.model.name)} {self.label}"

    @property
    def is_baseline(self) -> bool:
        """True if the case is a transformers baseline."""
        return self.record.is_baseline


@dataclass(frozen=True, slots=True)
class FigureBlock:
    """A model with its cases: llama.cpp from small to large, then transformers."""

    heading: str
    rows: Sequence[FigureRow]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Cases that a figure shows."""

    blocks: Sequence[FigureBlock]
    of: int
    """Number of cases that could be shown."""

    @property
    def rows(self) -> list[FigureRow]:
        """Rows of all blocks, in order."""
        return [row for block in self.blocks for row in block.rows]

    @property
    def note(self) -> str:
        """Sentence for the caption if cases were left out; otherwise empty."""
        shown = len(self.rows)
        if shown == self.of:
            return ""
        return (
            f" The figure shows {shown} of {self.of:,} cases: models with a baseline first, then the newest."
        )


@dataclass
class CaseFacts:
    """The content, with the facts that several figures need."""

    content: Content
    most: int = MOST
    """Most cases in a bar figure."""

    @property
    def pairs(self) -> list[Versus]:
        """Comparison of every llama.cpp record with every baseline of its model."""
        return self.content.versus

    @cached_property
    def records(self) -> list[Record]:
        """All records except skipped ones, without values that cannot be drawn."""
        measured = (record for record in self.content.records if record.outcome is not Outcome.SKIPPED)
        return [_drawable(record) for record in measured]

    @cached_property
    def versus(self) -> Mapping[tuple[str, str, str], list[Versus]]:
        """Comparisons with baselines by the key of the record."""
        found: dict[tuple[str, str, str], list[Versus]] = {}
        for pair in self.pairs:
            found.setdefault(key_of(pair.record), []).append(pair)
        return found

    @cached_property
    def several_machines(self) -> bool:
        """True if a label must name the machine."""
        return len({record.machine.fingerprint for record in self.records}) > 1

    def label(self, record: Record) -> str:
        """Label of a case below the heading of its model: `Q4_K_M · cpu`."""
        parts = [record.model.quantization, record.scenario]
        if record.setting.weights == "safetensors":
            parts = [record.scenario]
        if self.several_machines:
            parts.append(f"{record.machine.cpu} {record.machine.fingerprint[:6]}")
        return " · ".join(map(plain, parts))

    def with_most(self, most: int) -> CaseFacts:
        """The same facts for figures with another number of cases."""
        other = copy(self)
        other.most = most
        return other

    def choose(self, eligible: Callable[[Record], bool]) -> Chosen:
        """Choose at most `most` eligible or failed records, in blocks by model."""

        def is_drawable(record: Record) -> bool:
            return eligible(record) or id(record) in self._failed

        blocks = []
        room = self.most
        failed_room = max(1, self.most // _MOST_FAILED_SHARE)
        for name in self._by_urgency:
            records = [record for record in self._by_model[name] if is_drawable(record)]
            if not records:
                continue
            taken = records
            if not any(map(eligible, records)):
                taken = _order(records)[: min(room, failed_room)]
                failed_room -= len(taken)
            taken = self._reduce(taken, room)
            room -= len(taken)
            if taken:
                blocks.append(FigureBlock(plain(name), [self._row(record) for record in _order(taken)]))
            if room <= 0:
                break
        blocks.sort(key=lambda block: _size(block.rows[0].record))
        return Chosen(blocks, sum(map(is_drawable, self.records)))

    @cached_property
    def _failed(self) -> set[int]:
        """The id() of each record that ended without a value."""
        return {id(record) for record in self._everything if is_failed(record)}

    @property
    def _everything(self) -> Iterator[Record]:
        yield from self.records
        yield from (pair.baseline for pair in self.pairs)

    @cached_property
    def _by_model(self) -> dict[str, list[Record]]:
        """All records by the name of the model.

        A baseline of an original checkpoint is listed with every model made from it.
        """
        found: dict[str, list[Record]] = {}
        keys: dict[str, set[tuple[str, str, str]]] = {}
        own = ((record.model.name, record) for record in self.records)
        beside = ((pair.record.model.name, pair.baseline) for pair in self.pairs)
        for name, record in (*own, *beside):
            seen = keys.setdefault(name, set())
            if key_of(record) not in seen:
                seen.add(key_of(record))
                found.setdefault(name, []).append(record)
        return found

    @cached_property
    def _by_urgency(self) -> list[str]:
        """Names of the models: with a baseline first, then measured ones; the newest first in each group."""
        newest: dict[str, str] = {}
        measured: set[str] = set()
        for record in self.records:
            name = record.model.name
            newest[name] = max(newest.get(name, ""), record.created)
            measured.update([name] if id(record) not in self._failed else [])
        with_baseline = {pair.record.model.name for pair in self.pairs}
        names = sorted(newest, key=lambda name: newest[name], reverse=True)
        return sorted(names, key=lambda name: (name not in with_baseline, name not in measured))

    def _reduce(self, records: list[Record], room: int) -> list[Record]:
        """Choose the most important cases if there are too many: baselines first, then the newest."""
        if len(records) <= room:
            return records
        newest = sorted(records, key=lambda record: record.created, reverse=True)
        return sorted(newest, key=lambda record: (not record.is_baseline, is_failed(record)))[:room]

    def _row(self, record: Record) -> FigureRow:
        return FigureRow(record, self.label(record), self.versus.get(key_of(record), ()))


def key_of(record: Record) -> tuple[str, str, str]:
    """Key that identifies a record in a report."""
    return record.run_id, record.case_id, record.machine.fingerprint


def _drawable(record: Record) -> Record:
    """The record without impossible values, which a damaged file may contain and no axis can show."""
    summary = {name: found for name, found in record.summary.items() if _is_real(found)}
    limits = [limit for limit in record.limits if 0 < limit.bound < _MOST_REAL]
    if len(summary) == len(record.summary) and len(limits) == len(record.limits):
        return record
    return record.model_copy(update={"summary": summary, "limits": limits})


def _is_real(found: Summary) -> bool:
    return 0 <= found.minimum <= found.median <= found.maximum < _MOST_REAL


def _order(records: Iterable[Record]) -> list[Record]:
    return sorted(records, key=lambda r: (r.is_baseline, r.loaded_bytes, r.model.quantization, r.scenario))


def _size(record: Record) -> int:
    return record.loaded_bytes
