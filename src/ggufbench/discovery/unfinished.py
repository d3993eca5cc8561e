"""Files that are not whole: unfinished downloads, and the pieces of a file that was split."""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from ggufbench.text import printable

_CONTROLS = (".aria2", ".st", ".opdownload.meta")
"""Suffixes of files in which a program notes what it has downloaded so far."""
_PARTIALS = (
    ".crdownload", ".part", ".partial", ".download", ".downloading", ".downloadInProgress", ".!qB", ".!ut",
    ".!bt", ".bc!", ".tmp", ".temp", ".incomplete", ".opdownload", ".fdmdownload", ".filepart", ".dltmp",
)  # fmt: skip
"""Suffixes that browsers and other programs give a file until its download is complete."""
_PIECE = re.compile(
    r"(?P<whole>.+\.gguf)(?P<style>[-._](?:part|split|chunk)?[-._]?)"
    r"(?P<number>\d{1,5}|[a-z]{1,3})(?P<count>[-_.]?of[-_.]?\d{1,5})?",
    re.IGNORECASE | re.DOTALL,
)
_FIRST_LETTERS = ("a", "aa", "aaa")
_FEW = 8


def download_reason(path: Path) -> str | None:
    """Why a file is not completely downloaded, judged by its name and its neighbours; None otherwise."""
    name = path.name
    if own := partial_reason(path):
        return own
    if path.parent.name == f"{name}.download":
        return "still being downloaded by Safari: wait until it ends, or resume it"
    for suffix in (*_CONTROLS, *_PARTIALS):
        neighbour = path.with_name(name + suffix)
        if os.path.lexists(neighbour):
            return (
                f"still being downloaded, because {printable(neighbour.name, 120)} is beside it: wait until "
                "it ends, or resume it; if the download is complete, remove that file"
            )
    return None


def partial_reason(path: Path) -> str | None:
    """Why a file with the suffix of an incomplete download cannot be used; None for any other name."""
    name = path.name.lower()
    whole = next((name[: -len(one)] for one in _PARTIALS if name.endswith(f".gguf{one.lower()}")), None)
    if whole is None or os.path.lexists(path.with_name(path.name[: len(whole)])):
        return None
    return "an incomplete download: wait until it ends, or resume it"


@dataclass(frozen=True, slots=True)
class _Piece:
    path: Path
    number: str
    whole: str
    style: str
    total: int | None

    @property
    def order(self) -> tuple[int, str]:
        return (int(self.number), "") if self.number.isdecimal() else (len(self.number), self.number.lower())


def piece_reason(path: Path) -> str | None:
    """How to join the pieces of a file, if `path` is the first of those there; None for any other file."""
    own = _piece(path)
    if own is None or os.path.lexists(path.with_name(own.whole)):
        return None
    found = sorted(_siblings(own), key=lambda piece: piece.order)
    if found[0].path.name != path.name or not _is_split(found):
        return None
    if own.total is not None and len(found) < own.total:
        return f"{len(found)} of {own.total} pieces of one file: download the others, then join them"
    if own.total is None and len(found) == 1:
        return "a piece of a file that was split: download the others beside it, then join them"
    return f"the first of {len(found)} pieces of one file: join them with `{_command(found)}`"


def _piece(path: Path) -> _Piece | None:
    found = _PIECE.fullmatch(path.name)
    if found is None:
        return None
    total = re.search(r"\d+$", found["count"] or "")
    return _Piece(path, found["number"], found["whole"], found["style"], int(total[0]) if total else None)


def _siblings(own: _Piece) -> list[_Piece]:
    """The pieces of the same file in its folder."""
    try:
        names = [entry.name for entry in own.path.parent.iterdir()]
    except OSError:
        return [own]
    pieces = filter(None, (_piece(own.path.with_name(name)) for name in names))
    kind = own.number.isdecimal()
    return [
        piece
        for piece in pieces
        if (piece.whole, piece.style, piece.total) == (own.whole, own.style, own.total)
        and piece.number.isdecimal() == kind
    ] or [own]


def _is_split(pieces: list[_Piece]) -> bool:
    """True if these are pieces, and not one file with another ending, such as `x.gguf.md` or `x.gguf.1`."""
    first = pieces[0]
    says_so = len(first.style) > 1 or first.total is not None
    if not first.number.isdecimal():
        return first.number.lower() in _FIRST_LETTERS and (says_so or len(pieces) > 1)
    return says_so or len(pieces) > 1 or len(first.number) > 1


def _command(pieces: list[_Piece]) -> str:
    names, whole = [printable(piece.path.name, 150) for piece in pieces], printable(pieces[0].whole, 150)
    if sys.platform == "win32":
        joined = '"+"'.join(names)
        return f'copy /b "{joined}" "{whole}"'
    if len(names) <= _FEW:
        return f"cat {shlex.join(names)} > {shlex.quote(whole)}"
    return f"cat {_braces(pieces)} > {shlex.quote(whole)}"


def _braces(pieces: list[_Piece]) -> str:
    """The names of many pieces in numeric order, as bash expands them: `x.gguf.part{1..12}of12`."""
    first, last = pieces[0], pieces[-1]
    name = first.path.name
    start = len(first.whole) + len(first.style)
    before, after = name[:start], name[start + len(first.number) :]
    if first.number.isdecimal():
        numbers = f"{{{first.number}..{last.number}}}"
        return shlex.quote(printable(before)) + numbers + shlex.quote(printable(after)) * bool(after)
    return shlex.quote(printable(before)) + "?" * len(first.number)
