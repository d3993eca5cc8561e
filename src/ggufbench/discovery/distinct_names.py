"""Names that distinguish models: files of different models often have the same name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ggufbench.discovery import names
from ggufbench.discovery.model import Model

_IDENTITY_DIGITS = 6
_FOLDERS_UP = 6


def with_distinct_names(models: Iterable[Model]) -> list[Model]:
    """Add to every name that another model shares the first property in which all of them differ.

    The properties are the title in the header, the repository, a folder, and the identity.
    """
    groups: dict[str, list[Model]] = {}
    for model in models:
        groups.setdefault(model.label.casefold(), []).append(model)
    return [model for group in groups.values() for model in _distinct(group)]


def _distinct(group: Sequence[Model]) -> Sequence[Model]:
    if len(group) == 1:
        return group
    for found in _additions(group):
        if all(found) and len({text.casefold() for text in found}) == len(group):
            break
    else:
        found = [model.identity[:_IDENTITY_DIGITS] for model in group]
    pairs = zip(group, found, strict=True)
    return [replace(model, name=f"{model.name} ({addition})") for model, addition in pairs]


def _additions(group: Sequence[Model]) -> Iterator[list[str]]:
    yield [model.title for model in group]
    yield [model.repository or "" for model in group]
    for up in range(_FOLDERS_UP):
        yield [_folder(model, up) for model in group]


def _folder(model: Model, up: int) -> str:
    """Name of a folder above the file; empty beyond the root."""
    folders = model.path.parents
    return names.clean(folders[up].name, "") if up < len(folders) else ""
