"""Read a git repository: commits by name, their order, and the files of one.

Only commands that change nothing and start no program of the repository's configuration (hooks, filters,
signature checks) are used. A tree can hold any path.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from ggufbench.errors import GgufbenchError
from ggufbench.text import nearest, printable

_SECONDS = 60.0
_EXPORT_SECONDS = 600.0
_KEPT_OF_GIT = ("GIT_CONFIG_", "GIT_CEILING_")
"""Variables that apply to any repository; others may name another repository, as they do in a hook."""
_MOST_REFS = 1000
_HASH = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


class RepositoryError(GgufbenchError):
    """The repository cannot be read; the message is one sentence with the remedy."""


def resolve_commit(repository: Path, name: str) -> str | None:
    """Full hash of the commit named by a name, a hash or an expression such as `main~2`; else None.

    Raises RepositoryError if git itself fails.
    """
    if not name or name.startswith("-"):  # git would read it as an option
        return None
    done = _git(repository, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    answer = done.stdout.decode("ascii", errors="replace").strip()
    if done.returncode == 0 and _HASH.fullmatch(answer):
        return answer
    _require_repository(repository)
    return None


def nearest_ref(repository: Path, name: str) -> str | None:
    """The branch or tag with the most similar name; None without one, or without a repository."""
    try:
        done = _git(repository, "for-each-ref", f"--count={_MOST_REFS}", "--format=%(refname:short)")
    except RepositoryError:
        return None
    refs = done.stdout.decode("utf-8", errors="replace").split()
    return next(iter(nearest(name, refs)), None)


def top_folder(repository: Path) -> Path:
    """The folder of the repository's checkout; of a bare one, itself. Raises RepositoryError."""
    found = _line(repository, "rev-parse", "--show-toplevel") or _line(repository, "rev-parse", "--git-dir")
    if not found:
        _require_repository(repository)
        raise RepositoryError(f"git did not print the top folder of the repository of {repository}")
    return Path(repository, found).resolve()


def first_parents(repository: Path, good: str, bad: str) -> list[str]:
    """Commits from one to a later one, along the first parents of the later; both are full hashes.

    If `good` was merged in, the commits of the line that do not contain it are left out. Raises
    RepositoryError if `good` is not an ancestor of `bad`.
    """
    if _git(repository, "merge-base", "--is-ancestor", good, bad).returncode != 0:
        shallow = _line(repository, "rev-parse", "--is-shallow-repository") == "true"
        remedy = (
            "fetch its history with `git fetch --unshallow`" if shallow else "give the earlier one as good"
        )
        raise RepositoryError(f"{good[:12]} is not an ancestor of {bad[:12]} in {repository}; {remedy}")
    line = _lines(repository, "rev-list", "--first-parent", "--reverse", f"{good}..{bad}")
    after_good = set(_lines(repository, "rev-list", "--ancestry-path", f"{good}..{bad}"))
    return [good, *(commit for commit in line if commit in after_good)]


def commit_message(repository: Path, commit: str) -> str:
    """The message of a commit, given as full hash. Raises RepositoryError."""
    # The object itself: `git log` may start the program that checks signatures.
    stored = _answer(repository, "cat-file", "commit", commit)
    return stored.partition(b"\n\n")[2].decode("utf-8", errors="replace")


def list_files(repository: Path, commit: str) -> list[bytes]:
    """Mode, kind, hash and, after a tab, path of each file of a commit. Raises RepositoryError."""
    listing = _answer(repository, "ls-tree", "-r", "-z", "--full-tree", commit)
    return [entry for entry in listing.split(b"\0") if entry]


def read_blobs(repository: Path, blobs: Sequence[str]) -> Iterator[bytes]:
    """The contents of these blobs, in this order. Raises RepositoryError."""
    with tempfile.TemporaryFile() as output:
        asked = "".join(f"{blob}\n" for blob in blobs).encode()
        _git(
            repository, "cat-file", "--batch", "--buffer", text=asked, output=output, seconds=_EXPORT_SECONDS
        )
        output.seek(0)
        for blob in blobs:
            header = output.readline().split()
            if len(header) != 3 or header[1] != b"blob":
                raise RepositoryError(
                    f"{repository} lacks the object {blob[:12]}; complete a partial clone with "
                    "`git fetch --refetch --no-filter`"
                )
            content = output.read(int(header[2]))
            if output.read(1) != b"\n":
                raise RepositoryError(f"git ended within the object {blob[:12]}; try `git fsck`")
            yield content


def folder_in_checkout(repository: Path) -> PurePosixPath:
    """Path of a folder relative to the top of its checkout. Raises RepositoryError."""
    _require_repository(repository)
    return PurePosixPath(_line(repository, "rev-parse", "--show-prefix"))


def _require_repository(repository: Path) -> None:
    _answer(repository, "rev-parse", "--git-dir")


def _refusal(repository: Path, stderr: bytes) -> str:
    """Error message of git, which names the remedy if another user owns the repository."""
    lines = [line.strip() for line in stderr.decode("utf-8", errors="replace").splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith("fatal: ")), "fatal: git gave no reason")
    words = printable(said.removeprefix("fatal: "))
    if words.startswith("not a git repository"):
        return f"{repository} is not in a git repository"
    return f"git cannot read {repository}: {words}"


def _line(repository: Path, *arguments: str) -> str:
    return os.fsdecode(_git(repository, *arguments).stdout).removesuffix("\n")


def _lines(repository: Path, *arguments: str) -> list[str]:
    return _answer(repository, *arguments).decode("ascii", errors="replace").split()


def _answer(repository: Path, *arguments: str) -> bytes:
    """Output of git. Raises RepositoryError if it fails."""
    done = _git(repository, *arguments)
    if done.returncode != 0:
        raise RepositoryError(_refusal(repository, done.stderr))
    return done.stdout


def _git(
    repository: Path,
    *arguments: str,
    text: bytes = b"",
    output: IO[bytes] | int = subprocess.PIPE,
    seconds: float = _SECONDS,
) -> subprocess.CompletedProcess[bytes]:
    """Run git so that it fetches nothing, and ignores the variables that name another repository."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k.startswith(_KEPT_OF_GIT)}
    try:
        return subprocess.run(
            ["git", "-C", str(repository), "--no-replace-objects", *arguments],
            input=text,
            stdout=output,
            stderr=subprocess.PIPE,
            env={**kept, "LC_ALL": "C", "GIT_ALLOW_PROTOCOL": "", "GIT_OPTIONAL_LOCKS": "0"},
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        raise RepositoryError("git is not installed; install it to compare commits") from None
    except subprocess.TimeoutExpired:
        raise RepositoryError(f"git did not answer within {seconds:.0f} s in {repository}") from None
    except (OSError, ValueError) as error:  # a name that cannot be passed to a program
        raise RepositoryError(f"git cannot read {repository}: {error}") from None
