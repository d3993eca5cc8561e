"""The files in which Jan notes where a model is: `model.yml`, and `model.json` of older versions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FILE_NAMES = ("model.yml", "model.json")
_PATH = re.compile(r"^model_path:[ \t]*(?P<text>.+?)[ \t]*$", re.MULTILINE)
_COMMENT = re.compile(r"\s+#.*$")
_FOLDERS_UP = 5
"""Folders between a note and Jan's data folder, to which its paths are relative."""


def model_path(
    note: Path, read_text: Callable[[Path], str], read_object: Callable[[Path], Any]
) -> Path | None:
    """The file that a note names, which may not exist; None if it names none."""
    stated = _in_yaml(read_text(note)) if note.suffix == ".yml" else _in_json(read_object(note))
    if not stated or "\0" in stated or "://" in stated:
        return None
    path = Path(stated)
    places = [path] if path.is_absolute() else [one / path for one in _folders(note)]
    return next((place for place in places if _exists(place)), places[0])


def _folders(note: Path) -> Iterator[Path]:
    yield from note.parents[: _FOLDERS_UP + 1]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _in_yaml(text: str) -> str | None:
    """The value of `model_path` in a file of one key and value per line."""
    found = _PATH.search(text)
    if found is None:
        return None
    value = found["text"]
    if value[0] in "\"'" and value.rstrip().endswith(value[0]) and len(value) > 1:
        inner = value[1:-1]
        return inner.replace("\\\\", "\\") if value[0] == '"' else inner.replace("''", "'")
    return _COMMENT.sub("", value)


def _in_json(document: dict[str, Any]) -> str | None:
    """The first source that is a file of this machine."""
    sources = document.get("sources")
    urls = [one.get("url") for one in sources if isinstance(one, dict)] if isinstance(sources, list) else []
    return next((url for url in urls if isinstance(url, str) and Path(url).is_absolute()), None)
