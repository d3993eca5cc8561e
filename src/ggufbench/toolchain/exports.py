"""The files of a commit, written to a folder of the cache: byte for byte, and without running anything."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from threading import Timer
from typing import BinaryIO, cast

from ggufbench.toolchain.builds import BuildPlace, Tell, build_once
from ggufbench.toolchain.repository import (
    RepositoryError,
    git_command,
    git_environment,
    list_files,
    top_folder,
)

_EXPORT_SECONDS = 600.0
_CHUNK_BYTES = 2**20
_SYMLINK, _SUBMODULE, _EXECUTABLE = "120000", "160000", "100755"


@dataclass(frozen=True, slots=True)
class _File:
    mode: str
    blob: str
    path: PurePosixPath


def exported(repository: Path, commit: str, cache: Path, tell: Tell) -> Path:
    """A folder with the files of a commit, written where there is none yet.

    Not a worktree of git's: that would be listed in the user's repository until somebody prunes it, and
    making it runs hooks and filters. The files are what the commit holds: one of LFS stays a pointer, a
    submodule an empty folder. Raises RepositoryError and BuildError.
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
    # Folders first and links last: nothing is ever written through a link, whatever the tree holds.
    for below in {file.path.parent for file in files}:
        (folder / below).mkdir(parents=True, exist_ok=True)
    with _blobs(repository) as blobs:
        for file in sorted(files, key=lambda file: file.mode == _SYMLINK):
            try:
                _write(file, folder / file.path, blobs)
            except FileExistsError:
                raise RepositoryError(
                    f"commit {commit[:12]} has two things that are {file.path!s} on this disk; rename one"
                ) from None


def _write(file: _File, target: Path, blobs: _Blobs) -> None:
    if file.mode == _SUBMODULE:
        target.mkdir()
    elif file.mode == _SYMLINK:
        aim = b"".join(blobs.read(file.blob))
        if b"\0" in aim:
            raise RepositoryError(f"the link {file.path!s} leads nowhere; `git fsck` says more")
        target.symlink_to(os.fsdecode(aim))
    else:
        with target.open("xb") as output:
            output.writelines(blobs.read(file.blob))
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
            f"commit {commit[:12]} holds the path {text!r}, which git itself would not write"
        )
    return _File(mode, blob, PurePosixPath(text))


class _Blobs:
    """A running `git cat-file --batch`: a question is a hash, its answer a header and the bytes."""

    def __init__(self, repository: Path, process: subprocess.Popen[bytes]) -> None:
        self._repository = repository
        self._stdin = cast("BinaryIO", process.stdin)
        self._stdout = cast("BinaryIO", process.stdout)

    def read(self, blob: str) -> Iterator[bytes]:
        """The bytes of a blob, in pieces; they are to be taken all. Raises RepositoryError."""
        self._stdin.write(blob.encode() + b"\n")
        self._stdin.flush()
        header = self._stdout.readline().split()
        if len(header) != 3 or header[1] != b"blob":
            raise RepositoryError(
                f"{self._repository} lacks the object {blob[:12]}; a partial clone gets what it lacks by "
                "`git fetch --refetch --no-filter`"
            )
        left = int(header[2])
        while left > 0:
            piece = self._stdout.read(min(left, _CHUNK_BYTES))
            if not piece:
                raise RepositoryError(f"git ended within the object {blob[:12]}; try `git fsck`")
            left -= len(piece)
            yield piece
        self._stdout.read(1)  # the end of the line


@contextmanager
def _blobs(repository: Path) -> Iterator[_Blobs]:
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            git_command(repository, "cat-file", "--batch"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=git_environment(os.environ),
        )
        deadline = Timer(_EXPORT_SECONDS, process.kill)
        deadline.start()
        try:
            yield _Blobs(repository, process)
        except BrokenPipeError:
            raise RepositoryError(f"git ended while it read {repository}; try `git fsck`") from None
        finally:
            deadline.cancel()
            process.kill()
            process.communicate()
