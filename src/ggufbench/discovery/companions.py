"""Find the model that a file belongs to: a projector, an adapter, a matrix, a vocabulary or a draft model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ggufbench.discovery import names
from ggufbench.discovery.header import Header
from ggufbench.discovery.hub import real_path
from ggufbench.discovery.model import Model, Rejected

_TYPES = frozenset({"adapter", "imatrix", "mmproj", "controlvector"})
_ARCHITECTURES = frozenset({"clip", "controlvector", "eagle3", "dflash", "gemma4-assistant"})
_PREFIXES = ("adapter.", "imatrix.", "controlvector.")
_BASE_KEYS = ("general.base_model.0.name", "general.base_model.0.repo_url")
_LEAST_NAME = 4
"""Characters of a name that are enough to find it within a file name."""


def with_owner(rejected: Rejected, header: Header, models: Sequence[Model]) -> Rejected:
    """Add to the reason the model that the file belongs to, if that is known.

    It is the model that the header or the file name names, or else the only one in the same folder.
    """
    stated = list(_texts(header, _BASE_KEYS))
    owner = _named(stated, models)
    if owner is None and _is_companion(header):
        near, stem = _in_the_same_folder(rejected.path, models), rejected.path.stem
        titles = [*stated, *_texts(header, ("general.name",)), names.model_name(stem)]
        owner = _named(titles, near) or _within(stem, near) or _named(titles, models)
        if owner is None and not stated:
            owner = _only(near)
    if owner is not None:
        return replace(rejected, reason=f"{rejected.reason}; it belongs to {owner}")
    if stated:
        return replace(rejected, reason=f"{rejected.reason}; it was made for {names.clean(stated[0])}")
    return rejected


def _is_companion(header: Header) -> bool:
    values = header.values
    return (
        values.get("general.type") in _TYPES
        or values.get("general.architecture") in _ARCHITECTURES
        or any(key.startswith(_PREFIXES) for key in values)
        or not header.tensors
    )


def _texts(header: Header, keys: Sequence[str]) -> Iterator[str]:
    for key in keys:
        value = header.values.get(key)
        if isinstance(value, str) and value.strip():
            yield value.rstrip("/").rpartition("/")[2]


def _in_the_same_folder(path: Path, models: Sequence[Model]) -> list[Model]:
    target = real_path(path)
    folders = {path.parent, target.parent if target else path.parent}
    return [model for model in models if model.path.parent in folders]


def _named(titles: Sequence[str], models: Sequence[Model]) -> str | None:
    wanted = {_plain(title) for title in titles} - {""}
    found = [m for m in models if wanted & {_plain(m.title), _plain(m.file_title)}]
    return _only(found)


def _within(stem: str, models: Sequence[Model]) -> str | None:
    """The model whose name is a part of the file name: `mmproj-gemma-3-4b-it-F16`."""
    whole = _plain(stem)
    found = [m for m in models if len(_plain(m.file_title)) >= _LEAST_NAME and _plain(m.file_title) in whole]
    return _only(found)


def _only(models: Sequence[Model]) -> str | None:
    """The name that all of these models share, which may be quantizations of one model."""
    found = {_plain(model.file_title): model.name for model in models}
    return next(iter(found.values())) if len(found) == 1 else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
