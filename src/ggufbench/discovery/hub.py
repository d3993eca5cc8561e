"""Repositories in a Hugging Face cache, by name. Files outside the cache are never returned.

No name becomes a path: it is looked up in a listing of the cache. A folder that is a link is skipped, and a
file counts only if it lies in the cache with every link resolved, as the blobs behind the links do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ggufbench.discovery.header import HeaderError, open_regular
from ggufbench.errors import GgufbenchError
from ggufbench.paths import folder_from, home_folder

PREFIX = "models--"
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}"
_NAME = re.compile(rf"(?:{_PART}/)?{_PART}")
_REFERENCE_BYTES = 256
_FOLDERS_DEEP = 4
"""Maximum depth of folders in a snapshot; publishers use one level, a folder for each quantization."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository in a cache."""

    name: str
    """`owner/name`, from the folder name; a few old repositories have no owner."""
    folder: Path
    """Its folder, with every link resolved."""
    cache: Path
    """The cache that lists it, with every link resolved."""

    @property
    def stores(self) -> tuple[Path, Path]:
        """Allowed targets of the links in its snapshots: its own blobs, and the shared ones."""
        return self.folder / "blobs", self.cache / "blobs"


def hub_cache(env: Mapping[str, str] = os.environ, home: Path | None = None) -> Path:
    """Download folder of huggingface_hub, which may not exist."""
    home = home or home_folder(env)
    if home is None:
        if not any(env.get(name) for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME")):
            raise GgufbenchError("this process has no home folder with a Hugging Face cache: set HF_HOME")
        home = Path(os.devnull)  # unused, unless a variable begins with ~
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if path := folder_from(env, variable, home):
            return path
    cache = folder_from(env, "XDG_CACHE_HOME", home) or home / ".cache"
    return (folder_from(env, "HF_HOME", home) or cache / "huggingface") / "hub"


def folder_name(repository: str) -> str:
    """Folder name of a repository in a cache."""
    return PREFIX + repository.replace("/", "--")


def is_repository_folder(name: str) -> bool:
    """True if a folder of a cache holds a repository of any kind."""
    return name.startswith((PREFIX, "datasets--", "spaces--"))


def is_repository_name(text: str) -> bool:
    """True if this is a valid repository name; `--` is excluded, because the cache writes it for `/`."""
    return _NAME.fullmatch(text) is not None and "--" not in text and ".." not in text


def repositories(cache: Path, *, moved: bool = False) -> list[Repository]:
    """Every model repository in the cache, by name; empty if the cache is missing or unreadable.

    With `moved`, includes folders that are links, because the user moved them to another disk.
    """
    base = real_path(cache)
    if base is None:
        return []
    found = []
    for entry in _entries(base):
        name = entry.name.removeprefix(PREFIX).replace("--", "/", 1)
        if not (entry.name.startswith(PREFIX) and is_repository_name(name)):
            continue
        folder = base / entry.name
        target = folder if _is_real_folder(entry) else real_path(folder) if moved else None
        if target is not None:
            found.append(Repository(name, target, base))
    return found


def repository_of(path: Path) -> Repository | None:
    """The repository of a snapshot file or blob; None outside a cache."""
    for folder in path.parents:
        if folder.name in ("snapshots", "blobs") and folder.parent.name.startswith(PREFIX):
            own, cache = real_path(folder.parent), real_path(folder.parent.parent)
            name = folder.parent.name.removeprefix(PREFIX).replace("--", "/")
            return Repository(name, own, cache) if own and cache else None
    return None


def named(found: list[Repository], name: str) -> list[Repository]:
    """The repositories of that name; if there are none, those that differ only in case."""
    exact = [repository for repository in found if repository.name == name]
    return exact or [repository for repository in found if repository.name.casefold() == name.casefold()]


def snapshots(repository: Repository) -> list[Path]:
    """The downloaded revisions: the one that `main` points to, then the others, latest first."""
    main = main_revision(repository.folder)
    found = [
        Path(entry.path) for entry in _entries(repository.folder / "snapshots") if _is_real_folder(entry)
    ]
    return sorted(found, key=lambda path: (path.name != main, -_changed(path), path.name))


def gguf_files(repository: Repository, snapshot: Path) -> list[Path]:
    """Paths of the files named `*.gguf` in a snapshot that lie in the cache."""
    return [path for path in _walk(snapshot, _FOLDERS_DEEP) if stays_in(repository.cache, path)]


def stays_in(cache: Path, path: Path) -> bool:
    """True if a path resolves to a regular file in `cache`, which has every link resolved."""
    target = real_path(path)
    return target is not None and target.is_relative_to(cache) and target.is_file()


def real_path(path: Path) -> Path | None:
    """The path with every link resolved; None if it does not exist."""
    try:
        return path.resolve(strict=True)
    except (OSError, ValueError, RuntimeError):  # a link cycle, a NUL
        return None


def _walk(folder: Path, deep: int) -> Iterator[Path]:
    for entry in _entries(folder):
        if _is_real_folder(entry):
            if deep:
                yield from _walk(Path(entry.path), deep - 1)
        elif entry.name.lower().endswith(".gguf"):
            yield Path(entry.path)


def main_revision(repository: Path) -> str | None:
    """The commit in `refs/main` of a repository folder; None if it cannot be read."""
    path = repository / "refs" / "main"
    try:
        if real_path(path) != path:
            return None
        file, _ = open_regular(path)
        with file:
            return file.read(_REFERENCE_BYTES).decode().strip()
    except (OSError, ValueError, HeaderError):
        return None


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder, by name; empty if it cannot be read or its path contains a link."""
    if real_path(folder) != folder:
        return []
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _is_real_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
