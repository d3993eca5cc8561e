"""Which cases a figure draws, in which order, and what stands beside them."""

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
"""Of any unit; more bytes, seconds or tokens are a damaged file."""

MOST = 24
"""Cases that a figure of bars draws."""

_MOST_FAILED_SHARE = 3
"""Not more than one of so many cases is a failed one without a baseline: bars are of what was measured."""


@dataclass(frozen=True, slots=True)
class FigureRow:
    """One case in a figure of bars."""

    record: Record
    label: str
    versus: Sequence[Versus] = ()
    """Its transformers baselines."""

    @property
    def title(self) -> str:
        """The case where no heading names its model."""
        return f"{plain(self.record.model.name)} {self.label}"

    @property
    def is_baseline(self) -> bool:
        """Whether it is transformers."""
        return self.record.is_baseline


@dataclass(frozen=True, slots=True)
class FigureBlock:
    """A model with its cases: those of llama.cpp from small to large, then those of transformers."""

    heading: str
    rows: Sequence[FigureRow]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is drawn of all that could be."""

    blocks: Sequence[FigureBlock]
    of: int
    """Cases that could be drawn."""

    @property
    def rows(self) -> list[FigureRow]:
        """Of all blocks, in their order."""
        return [row for block in self.blocks for row in block.rows]

    @property
    def note(self) -> str:
        """A sentence for the caption where something was left out; else empty."""
        shown = len(self.rows)
        if shown == self.of:
            return ""
        return f" Drawn are {shown} of {self.of:,} cases: models with a baseline first, then the newest."


@dataclass
class CaseFacts:
    """The content with what several figures need of it, found once."""

    content: Content
    most: int = MOST
    """Cases that a figure of bars draws."""

    @property
    def pairs(self) -> list[Versus]:
        """Every llama.cpp record beside every baseline of its model."""
        return self.content.versus

    @cached_property
    def records(self) -> list[Record]:
        """All but those that were skipped, with what can be drawn of their figures."""
        measured = (record for record in self.content.records if record.outcome is not Outcome.SKIPPED)
        return [_drawable(record) for record in measured]

    @cached_property
    def versus(self) -> Mapping[tuple[str, str, str], list[Versus]]:
        """The baselines of each record, by its key."""
        found: dict[tuple[str, str, str], list[Versus]] = {}
        for pair in self.pairs:
            found.setdefault(key_of(pair.record), []).append(pair)
        return found

    @cached_property
    def several_machines(self) -> bool:
        """Whether a label must say on which one."""
        return len({record.machine.fingerprint for record in self.records}) > 1

    def label(self, record: Record) -> str:
        """A case below the heading of its model: `Q4_K_M · cpu`."""
        parts = [record.model.quantization, record.scenario]
        if record.setting.weights == "safetensors":
            parts = [record.scenario]
        if self.several_machines:
            parts.append(f"{record.machine.cpu} {record.machine.fingerprint[:6]}")
        return " · ".join(map(plain, parts))

    def with_most(self, most: int) -> CaseFacts:
        """The same facts, found once, for figures of so many cases."""
        other = copy(self)
        other.most = most
        return other

    def choose(self, eligible: Callable[[Record], bool]) -> Chosen:
        """At most `most` of the eligible records, and of those that failed, in blocks by model."""

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
        """Which records, by their id(), ended without a number."""
        return {id(record) for record in self._everything if is_failed(record)}

    @property
    def _everything(self) -> Iterator[Record]:
        yield from self.records
        yield from (pair.baseline for pair in self.pairs)

    @cached_property
    def _by_model(self) -> dict[str, list[Record]]:
        """All records by the name of the model.

        A baseline of an original stands with every model made of it, whatever name it was measured under.
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
        """Names of the models: with a baseline first, then what was measured; of each the newest first."""
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
        """The cases that tell most where there is no room for all: baselines, then the newest."""
        if len(records) <= room:
            return records
        newest = sorted(records, key=lambda record: record.created, reverse=True)
        return sorted(newest, key=lambda record: (not record.is_baseline, is_failed(record)))[:room]

    def _row(self, record: Record) -> FigureRow:
        return FigureRow(record, self.label(record), self.versus.get(key_of(record), ()))


def key_of(record: Record) -> tuple[str, str, str]:
    """What tells a record from all others of a report."""
    return record.run_id, record.case_id, record.machine.fingerprint


def _drawable(record: Record) -> Record:
    """The record without figures that no machine has; a file may say anything, and an axis has an end."""
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
