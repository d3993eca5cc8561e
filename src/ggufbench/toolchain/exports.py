"""The files of a commit, written to a folder of the cache: byte for byte, and without running anything."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ggufbench.toolchain.builds import BuildPlace, Tell, build_once
from ggufbench.toolchain.repository import RepositoryError, list_files, read_blobs, top_folder

_SYMLINK, _SUBMODULE, _EXECUTABLE = "120000", "160000", "100755"


@dataclass(frozen=True, slots=True)
class _File:
    mode: str
    blob: str
    path: PurePosixPath


def exported(repository: Path, commit: str, cache: Path, tell: Tell) -> Path:
    """A folder with the files of a commit, written if there is none yet.

    `git worktree` would change the user's repository, and `git archive` would run filters and leave out the
    files of `export-ignore`. The files are those stored in the commit: an LFS file stays a pointer, and a
    submodule becomes an empty folder. Raises RepositoryError and BuildError.
    """
    top = top_folder(repository)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", top.name).lstrip(".-")[:40] or "repository"
    digest = hashlib.sha256(os.fsencode(top)).hexdigest()[:12]
    place = BuildPlace(cache / "worktrees" / f"{name}-{digest}" / commit, "tree")

    def build() -> str:
        tell(f"writing commit {commit[:12]} of {top} to {place.path}")
        _export(top, commit, place.path)
        return commit

    build_once(place, build, tell)
    return place.path


def _export(repository: Path, commit: str, folder: Path) -> None:
    files = [_file_of(entry, commit) for entry in list_files(repository, commit)]
    # Folders first and links last: nothing is ever written through a link, whatever the tree contains.
    folders = {file.path if file.mode == _SUBMODULE else file.path.parent for file in files}
    for below in folders:
        (folder / below).mkdir(parents=True, exist_ok=True)
    blobs = sorted((file for file in files if file.mode != _SUBMODULE), key=lambda one: one.mode == _SYMLINK)
    contents = read_blobs(repository, [file.blob for file in blobs])
    for file, content in zip(blobs, contents, strict=True):
        try:
            _write(file, folder / file.path, content)
        except FileExistsError:
            raise RepositoryError(
                f"commit {commit[:12]} has two paths that are both {file.path!s} on this disk; rename one"
            ) from None


def _write(file: _File, target: Path, content: bytes) -> None:
    if file.mode == _SYMLINK:
        target.symlink_to(os.fsdecode(content))
    else:
        with target.open("xb") as output:
            output.write(content)
        if file.mode == _EXECUTABLE:
            target.chmod(0o755)


def _file_of(entry: bytes, commit: str) -> _File:
    facts, _, name = entry.partition(b"\t")
    mode, _kind, blob = facts.decode("ascii", errors="replace").split()
    text = os.fsdecode(name)
    parts = text.split("/")
    forbidden = any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
    if forbidden or (os.name == "nt" and re.search(r"[\\:]", text)):
        raise RepositoryError(
            f"commit {commit[:12]} contains the path {text!r}, which git itself would not write"
        )
    return _File(mode, blob, PurePosixPath(text))
