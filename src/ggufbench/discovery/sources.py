"""Places that hold GGUFs: the caches of programs that download them, and places named by the user."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ggufbench.discovery import jan, names, unfinished
from ggufbench.discovery.hub import hub_cache, is_repository_folder, repository_of
from ggufbench.errors import GgufbenchError
from ggufbench.paths import expanded, folder_from, read_regular, unusable_path, user_path
from ggufbench.text import printable

_JSON_CAP = 1 << 20
_MODEL_LAYER = "application/vnd.ollama.image.model"
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_SUFFIX = ".gguf"
_NO_HOME = Path(os.devnull) / "home"  # which cannot exist
_LMSTUDIO = (".lmstudio", "lm-studio")
_PARTIAL_PREFIX = "incomplete-"  # GPT4All's name for a file that it is downloading


@dataclass(frozen=True, slots=True)
class Root:
    """A folder to search, and the program that stores its files there."""

    source: str
    path: Path


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file that may be a model."""

    path: Path
    source: str
    name: str | None = None
    """Name given by the source; None: taken from the file name."""
    repository: str | None = None
    refusal: str | None = None
    """Reason to reject it without opening it."""
    tag: str | None = None
    """Ollama's name for it."""


class PlaceNotFoundError(GgufbenchError):
    """A place named by the user does not exist. The message names it and the remedy."""


def default_roots(env: Mapping[str, str], platform: str, home: Path | None) -> tuple[Root, ...]:
    """Every place that may hold models; it need not exist. Without a home, its places are left out.

    `platform` is `sys.platform`. Besides its arguments this reads only small files under `home` in which
    LM Studio and Jan store the location of their models.
    """
    if home is None:
        everywhere = default_roots(env, platform, _NO_HOME)
        return tuple(root for root in everywhere if not root.path.is_relative_to(_NO_HOME))
    cache = folder_from(env, "XDG_CACHE_HOME", home) or home / ".cache"
    roots = [
        Root("huggingface", hub_cache(env, home)),
        *(Root("lmstudio", path) for path in _lmstudio(home)),
        *(Root("ollama", path) for path in _ollama(env, platform, home)),
        Root("llama.cpp", _llamacpp(env, platform, home, cache)),
        *(Root("jan", path) for path in _jan(env, platform, home)),
        *(Root("gpt4all", path) for path in _gpt4all(env, platform, home)),
    ]
    return tuple(dict.fromkeys(roots))


def _lmstudio(home: Path) -> Iterator[Path]:
    bases = [home / ".lmstudio", home / ".cache" / "lm-studio"]
    pointer = _read_text(home / ".lmstudio-home-pointer").strip()
    if pointer and "\n" not in pointer:
        bases.insert(0, user_path(pointer, home))
    for base in bases:
        chosen = _read_object(base / "settings.json").get("downloadsFolder")
        if isinstance(chosen, str) and chosen:
            yield user_path(chosen, home)
        yield base / "models"


def _ollama(env: Mapping[str, str], platform: str, home: Path) -> Iterator[Path]:
    yield folder_from(env, "OLLAMA_MODELS", home) or home / ".ollama" / "models"
    if platform.startswith("linux"):
        # Installed as a system service: by the official installer, by distribution packages, and as a snap.
        yield Path("/usr/share/ollama/.ollama/models")
        yield Path("/var/lib/ollama/.ollama/models")
        yield Path("/var/lib/ollama/models")
        yield Path("/var/lib/ollama")
        yield Path("/var/snap/ollama/common/models")


def _llamacpp(env: Mapping[str, str], platform: str, home: Path, cache: Path) -> Path:
    if path := folder_from(env, "LLAMA_CACHE", home):
        return path
    if platform == "darwin":
        return home / "Library" / "Caches" / "llama.cpp"
    if platform == "win32":
        return _local_data(env, home) / "llama.cpp"
    return cache / "llama.cpp"


def _local_data(env: Mapping[str, str], home: Path) -> Path:
    return folder_from(env, "LOCALAPPDATA", home) or home / "AppData" / "Local"


def _application_data(env: Mapping[str, str], platform: str, home: Path) -> Sequence[Path]:
    """The folders in which desktop programs store their data."""
    if platform == "darwin":
        return (home / "Library" / "Application Support",)
    if platform == "win32":
        return (folder_from(env, "APPDATA", home) or home / "AppData" / "Roaming",)
    return (
        folder_from(env, "XDG_DATA_HOME", home) or home / ".local" / "share",
        folder_from(env, "XDG_CONFIG_HOME", home) or home / ".config",
    )


def _jan(env: Mapping[str, str], platform: str, home: Path) -> Iterator[Path]:
    for base in _application_data(env, platform, home):
        bases = [base / "Jan" / "data"]
        chosen = _read_object(base / "Jan" / "settings.json").get("data_folder")
        if isinstance(chosen, str) and chosen:
            bases.insert(0, user_path(chosen, home))
        for data in bases:
            yield data / "llamacpp" / "models"
            yield data / "models"


def _gpt4all(env: Mapping[str, str], platform: str, home: Path) -> Iterator[Path]:
    base = _local_data(env, home) if platform == "win32" else _application_data(env, platform, home)[0]
    yield base / "nomic.ai" / "GPT4All"
    yield home / ".cache" / "gpt4all"  # its Python package, on every system


def default_candidates(roots: Sequence[Root]) -> Iterator[Candidate]:
    """Possible models in these places. Missing and unreadable places are skipped."""
    for root in roots:
        if _is_folder(root.path):
            yield from _look_in(root)


def explicit_candidates(places: Sequence[Path]) -> Iterator[Candidate]:
    """The files named by the user, with any suffix, and the GGUFs in the folders.

    Raises PlaceNotFoundError for a place that does not exist.
    """
    for place in places:
        path = expanded(place)
        try:
            path.stat()
        except (OSError, ValueError) as error:
            raise PlaceNotFoundError(_absence(place, error)) from None
        if not _is_folder(path):
            yield Candidate(path, "path", refusal=unfinished.piece_reason(path))
        elif _is_ollama(path):
            yield from _scan_ollama(path)
        else:
            yield from _walk(Root("path", path))


def _absence(place: Path, error: Exception) -> str:
    shown = names.clean(str(place)) if not str(place).isprintable() else str(place)
    if isinstance(error, PermissionError):
        return f"{shown} cannot be read: check the permissions of its parent folders"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return unusable_path(error)
    if isinstance(error, OSError) and place.is_symlink():
        return f"{shown} is a broken link: repair the link or name its target"
    return f"the file or folder {shown} does not exist: check the spelling, or name another one"


def _look_in(root: Root) -> Iterator[Candidate]:
    if root.source == "huggingface":
        return _scan_huggingface(root)
    if root.source == "ollama":
        return _scan_ollama(root.path)
    return _walk(root)


def _is_ollama(folder: Path) -> bool:
    return _is_folder(folder / "manifests") and _is_folder(folder / "blobs")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _scan_huggingface(root: Root) -> Iterator[Candidate]:
    """Models in every snapshot, including repositories that `scan_cache_dir` reports as corrupted."""
    for entry in _entries(root.path):
        if is_repository_folder(entry.name):
            repository = names.clean_repository(entry.name.partition("--")[2].replace("--", "/"))
            found = _walk(Root(root.source, Path(entry.path) / "snapshots"))
            for candidate in sorted(found, key=lambda one: one.path):
                yield replace(candidate, repository=repository)


def _scan_ollama(folder: Path) -> Iterator[Candidate]:
    manifests = folder / "manifests"
    for path in sorted(_files_under(manifests)):
        layers = _read_object(path).get("layers")
        for layer in layers if isinstance(layers, list) else []:
            if isinstance(layer, dict) and layer.get("mediaType") == _MODEL_LAYER:
                yield _ollama_candidate(folder, path, path.relative_to(manifests).parts, layer.get("digest"))


def _ollama_candidate(folder: Path, manifest: Path, parts: tuple[str, ...], digest: Any) -> Candidate:
    name = names.ollama_name(parts)
    repository = names.clean_repository("/".join(parts[-3:-1]))
    # A digest becomes a file name, so only text in the form of a digest is allowed.
    found = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if not found:
        refusal = "this Ollama manifest names its model by an invalid digest"
        return Candidate(manifest, "ollama", name, repository, refusal)
    blob = folder / "blobs" / f"sha256-{found[1]}"
    return Candidate(blob, "ollama", name, repository, tag=names.ollama_tag(parts))


def _files_under(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _walk_entries(folder) if _is_file(entry)]


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False


def _walk(root: Root) -> Iterator[Candidate]:
    """All entries below a folder named `*.gguf`, the models that Jan's notes name, and incomplete files.

    Follows links, visits each folder once. In a place of the user, folders of Ollama are recognised.
    """
    for entry in _walk_entries(root.path):
        path = Path(entry.path)
        if entry.name == "manifests" and root.source == "path" and _is_ollama(path.parent):
            yield from _scan_ollama(path.parent)
        elif entry.name in jan.FILE_NAMES:
            yield from _noted_by_jan(root, path)
        elif candidate := _candidate(root, path):
            yield candidate


def _candidate(root: Root, path: Path) -> Candidate | None:
    name = path.name.lower()
    if not name.endswith(_SUFFIX):
        if _SUFFIX not in name or _is_folder(path):
            return None
        refusal = unfinished.piece_reason(path) or unfinished.partial_reason(path)
        return Candidate(path, root.source, refusal=refusal) if refusal else None
    if root.source == "gpt4all" and name.startswith(_PARTIAL_PREFIX):
        return None
    refusal = (
        "this is a folder, not a GGUF file (its content is listed separately)" if _is_folder(path) else None
    )
    return Candidate(path, root.source, *_known_to(root, path), refusal=refusal)


def _noted_by_jan(root: Root, note: Path) -> Iterator[Candidate]:
    target = jan.model_path(note, _read_text, _read_object)
    if target is None:
        return
    name = names.model_name(note.parent.name)
    refusal = None
    if not os.path.lexists(target):
        missing = printable(str(target))
        refusal = f"Jan's {note.name} names {missing}, which does not exist: import the model again in Jan"
    yield Candidate(note if refusal else target, root.source, name, refusal=refusal)


def _known_to(root: Root, path: Path) -> tuple[str | None, str | None]:
    """Name and repository according to the folders of the program."""
    parts = path.relative_to(root.path).parts
    if root.source == "jan" and path.stem.lower() == "model" and len(parts) > 1:
        return names.model_name(parts[-2]), None
    if root.source == "lmstudio" and len(parts) > 2:
        return None, names.clean_repository("/".join(parts[:2]))
    if root.source == "path":
        return None, _repository_of(path)
    return None, None


def _repository_of(path: Path) -> str | None:
    """The repository by the folders of a file, in a cache of the hub or below LM Studio's `models`."""
    if hub := repository_of(path):
        return names.clean_repository(hub.name)
    parts = path.parts
    for number, name in enumerate(parts[:-4]):
        if name in _LMSTUDIO and parts[number + 1] == "models":
            return names.clean_repository("/".join(parts[number + 2 : number + 4]))
    return None


def _walk_entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            status = current.stat()
        except (OSError, ValueError):
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in _entries(current):
            yield entry
            if _leads_to_folder(entry):
                waiting.append(Path(entry.path))


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder, by name; empty if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _read_text(path: Path) -> str:
    """Content of a small text file; empty if it is missing, unreadable, too large or not a file."""
    try:
        return read_regular(path, _JSON_CAP).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def _read_object(path: Path) -> dict[str, Any]:
    """Object in a small JSON file; empty if there is no valid object."""
    try:
        value = json.loads(_read_text(path) or "{}")
    except (ValueError, RecursionError):  # nested too deeply
        return {}
    return value if isinstance(value, dict) else {}
