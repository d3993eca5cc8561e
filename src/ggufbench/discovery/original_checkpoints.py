"""Find the original checkpoint of a GGUF: the safetensors it was made from, if they are on this machine.

It may lie beside the GGUF, or in the Hugging Face cache, where transformers would look. A GGUF does not name
its original reliably, so these candidates are tried in order, and the first that exists and has the same
architecture, width and number of layers is used:

1. `general.source.huggingface.repository`, `general.source.repo_url`: the stated source;
2. the repository of the GGUF without `-GGUF`, and `general.repo_url` likewise; publishers of many models
   write `owner_name-GGUF` for `owner/name`;
3. `general.organization` and `general.name`;
4. `general.base_model.0`, if there is only one base. It comes last, because the converter copies it from the
   card of the original: for an instruction-tuned model it is often the base model before tuning.

No text from a file becomes a path: names are looked up in a listing of the cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ggufbench.discovery import names
from ggufbench.discovery.checkpoints import Checkpoint, compatible, read_checkpoint
from ggufbench.discovery.header import Header, HeaderError
from ggufbench.discovery.hub import Repository, real_path, repositories, repository_of, snapshots
from ggufbench.discovery.model import Model, OriginalCheckpoint
from ggufbench.paths import expanded

_REPOSITORY = re.compile(
    r"(?:https?://(?:www\.)?(?:huggingface\.co|hf\.co)/)?([\w.-]{1,96})/([\w.-]{1,96}?)(?:\.git)?/?",
    re.ASCII,
)
_GGUF_ENDING = re.compile(r"[-_.]gguf$", re.IGNORECASE)
_SNAPSHOTS_TRIED = 8


@dataclass(frozen=True, slots=True)
class _CheckpointPlace:
    """A folder that may hold a checkpoint, with every link resolved."""

    folder: Path
    stores: tuple[Path, ...] | None
    """Allowed targets of its links; None allows any target, because the user made the links."""
    repository: str | None


class Originals:
    """Finds original checkpoints; reads each repository and each folder at most once."""

    def __init__(self, caches: Iterable[Path]) -> None:
        """`caches` are hub caches, which may not exist, the most important first."""
        self._caches = tuple(dict.fromkeys(caches))
        self._listings: list[Mapping[str, Repository]] | None = None
        self._checkpoints: dict[tuple[Path, tuple[Path, ...] | None], Checkpoint | None] = {}
        self._revisions: dict[Path, list[_CheckpointPlace]] = {}

    def find(self, header: Header, model: Model, link: Path) -> OriginalCheckpoint | None:
        """The original checkpoint of a model, or None if it is not found; never raises.

        `link` is the path by which the model was found: in a cache, `model.path` is that of a blob.
        """
        repository = model.repository
        if repository is None and (hub := repository_of(link)):
            repository = names.clean_repository(hub.name)
        for place in self._places(header, link, model.path, repository):
            found = self._read(place)
            if found and _fits(found, header, model):
                return OriginalCheckpoint(place.repository, place.folder, found.files, found.file_size_bytes)
        return None

    def _places(
        self, header: Header, link: Path, path: Path, repository: str | None
    ) -> Iterator[_CheckpointPlace]:
        for folder in dict.fromkeys((link.parent, path.parent)):
            yield from _place(folder, repository)
        for name in dict.fromkeys(_candidates(header, repository)):
            yield from self._in_caches(name)

    def _in_caches(self, name: str) -> Iterator[_CheckpointPlace]:
        """The revisions of a repository in every cache."""
        if self._listings is None:
            self._listings = [_by_name(cache) for cache in self._caches]
        for listing in self._listings:
            if repository := listing.get(name.casefold()):
                if repository.folder not in self._revisions:
                    self._revisions[repository.folder] = _revisions(repository)
                yield from self._revisions[repository.folder]

    def _read(self, place: _CheckpointPlace) -> Checkpoint | None:
        key = (place.folder, place.stores)
        if key not in self._checkpoints:
            self._checkpoints[key] = read_checkpoint(*key)
        return self._checkpoints[key]


def hub_caches(places: Iterable[Path]) -> Iterator[Path]:
    """The places that are hub caches."""
    for place in places:
        folder = expanded(place)
        if repositories(folder, moved=True):
            yield folder


def _by_name(cache: Path) -> Mapping[str, Repository]:
    """Repositories of a cache by their names in lower case.

    The hub ignores case, and the converter may change the case of names.
    """
    found: dict[str, Repository] = {}
    for repository in repositories(cache, moved=True):
        found.setdefault(repository.name.casefold(), repository)
    return found


def _revisions(repository: Repository) -> list[_CheckpointPlace]:
    """The revision that `main` points to, then the latest ones."""
    return [
        _CheckpointPlace(snapshot, repository.stores, repository.name)
        for snapshot in snapshots(repository)[:_SNAPSHOTS_TRIED]
    ]


def _place(folder: Path, repository: str | None) -> Iterator[_CheckpointPlace]:
    """The folder of a GGUF: a revision in a hub cache, or a folder of the user."""
    resolved = real_path(folder)
    if resolved is None:
        return
    hub = repository_of(folder) or repository_of(resolved)
    if hub is None:
        yield _CheckpointPlace(resolved, None, repository)
    elif resolved.is_relative_to(hub.folder):
        yield _CheckpointPlace(resolved, hub.stores, repository)


def _candidates(header: Header, repository: str | None) -> Iterator[str]:
    """Repositories that the GGUF may have been made from, as `owner/name`, the most reliable first."""
    for key in ("general.source.huggingface.repository", "general.source.repo_url"):
        yield from _parsed(_text(header, key))
    for own in (repository or "", _text(header, "general.repo_url")):
        for parsed in _parsed(own):
            yield from _without_gguf(parsed)
    yield from _titled(header, "general.organization", "general.name")
    if header.values.get("general.base_model.count", 1) == 1:
        yield from _parsed(_text(header, "general.base_model.0.repo_url"))
        yield from _titled(header, "general.base_model.0.organization", "general.base_model.0.name")


def _without_gguf(repository: str) -> Iterator[str]:
    owner, _, name = repository.partition("/")
    stem = _GGUF_ENDING.sub("", name)
    if stem != name:
        yield f"{owner}/{stem}"
    if "_" in stem:
        yield stem.replace("_", "/", 1)


def _titled(header: Header, owner_key: str, name_key: str) -> Iterator[str]:
    """Repository name from the converter's titles, which have spaces for hyphens."""
    owner, name = (_text(header, key).strip().replace(" ", "-") for key in (owner_key, name_key))
    yield from _parsed(f"{owner}/{name}")


def _parsed(text: str) -> Iterator[str]:
    found = _REPOSITORY.fullmatch(text.strip())
    if found:
        yield f"{found[1]}/{found[2]}"


def _text(header: Header, key: str) -> str:
    value = header.values.get(key)
    return value if isinstance(value, str) else ""


def _fits(checkpoint: Checkpoint, header: Header, model: Model) -> bool:
    try:
        width = header.whole(f"{model.architecture}.embedding_length")
        drafting = header.whole(f"{model.architecture}.nextn_predict_layers") or 0
    except HeaderError:
        return False
    # Draft layers are counted in a GGUF, but not in a configuration.
    layers = (model.layers, model.layers - drafting)
    shape = checkpoint.width == width and checkpoint.layers in layers
    return shape and compatible(checkpoint.model_types, model.architecture)
