"""Entries of the picker: finding, filtering and sorting the models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from ggufbench.chat.cache import CachedModel

SortBy = Literal["name", "quantization", "size", "context", "speed", "memory", "load"]

SORTS: tuple[SortBy, ...] = get_args(SortBy)


@dataclass(frozen=True, slots=True)
class PickerEntry:
    """A model with the facts that depend on this machine."""

    row: CachedModel
    synthetic: bool
    """True if it was made by `ggufbench synth`: its answers are meaningless."""
    larger_than_memory: bool
    """True if its file is larger than the memory of this machine."""
    aliases: tuple[str, ...] = ()
    """Other names of the same content, such as tags of Ollama."""

    @property
    def broke(self) -> bool:
        """True if its record says that it failed, crashed, hung or ran out of memory."""
        return self.row.measured is not None and self.row.measured.broke

    def figure(self, name: str) -> float | None:
        """A measured number; None if it was not measured or the launch broke."""
        measured = self.row.measured
        return None if measured is None or measured.broke else getattr(measured, name)

    def document(self) -> dict[str, Any]:
        """All fields as a dictionary, for JSON output."""
        import dataclasses

        known = {"synthetic": self.synthetic, "larger_than_memory": self.larger_than_memory}
        return {**dataclasses.asdict(self.row), **known}


@dataclass(frozen=True, slots=True)
class Order:
    """Column to sort by: in the direction that puts the best value first, or reversed."""

    by: SortBy = "name"
    reverse: bool = False


_VALUES: Mapping[SortBy, Callable[[PickerEntry], Any]] = {
    "name": lambda entry: entry.row.name.casefold(),
    "quantization": lambda entry: entry.row.quantization,
    "size": lambda entry: entry.row.file_size_bytes,
    "context": lambda entry: entry.row.trained_context,
    "speed": lambda entry: entry.figure("decode_tokens_per_second"),
    "memory": lambda entry: entry.figure("peak_rss_bytes"),
    "load": lambda entry: entry.figure("load_seconds"),
}

LARGEST_FIRST = frozenset({"context", "speed"})


def find_entries(places: Sequence[Path] | None, results: Path | None) -> list[PickerEntry]:
    """Every generator in the default places or in `places`, with its newest record in `results`.

    Raises PlaceNotFoundError.
    """
    from ggufbench.chat.cache import rows
    from ggufbench.discovery import discover
    from ggufbench.machine.facts import memory_limit_bytes

    found = [model for model in discover(places).models if model.kind == "generator"]
    synthetic = {model.identity for model in found if model.synthetic}
    aliases = {model.identity: model.aliases for model in found}
    memory = memory_limit_bytes()
    return [
        PickerEntry(
            row,
            row.identity in synthetic,
            larger_than_memory=row.file_size_bytes > memory,
            aliases=aliases[row.identity],
        )
        for row in rows(found, results)
    ]


def matching(entries: Iterable[PickerEntry], words: str) -> list[PickerEntry]:
    """Entries whose name, repository or quantization contains each of the words; case is ignored."""
    wanted = words.casefold().split()
    return [entry for entry in entries if all(word in _text_of(entry) for word in wanted)]


def ordered(entries: Iterable[PickerEntry], order: Order) -> list[PickerEntry]:
    """Sort the entries; those without a value come last, in either direction."""
    value = _VALUES[order.by]
    plain = sorted(entries, key=lambda entry: (entry.row.name.casefold(), entry.row.quantization))
    known = [entry for entry in plain if value(entry) is not None]
    known.sort(key=value, reverse=(order.by in LARGEST_FIRST) != order.reverse)
    return known + [entry for entry in plain if value(entry) is None]


def _text_of(entry: PickerEntry) -> str:
    row = entry.row
    return " ".join((row.label, row.repository or "", row.quantization, *entry.aliases)).casefold()
