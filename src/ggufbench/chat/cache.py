"""GGUFs by name: which file of a repository an application loads, and rows for its model picker.

If there are several files, the first in this order is loaded:

1. Q4 and IQ4, then Q5, then Q8, then every other quantization; files that failed, crashed, hung or ran out
   of memory on this machine come after all others;
2. within each of these, files measured on this machine, fastest decode first;
3. files without a measurement, by `discovery.quantization_order`, then by file name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ggufbench.chat.measurements import Measured, measured_here
from ggufbench.discovery import PlaceNotFoundError, discover, hub
from ggufbench.discovery.hub import Repository
from ggufbench.discovery.model import KIND_NAMES, Discovery, Model
from ggufbench.discovery.names import portable_path
from ggufbench.discovery.quantization_choice import with_quantization
from ggufbench.discovery.quantization_order import class_of, place_of
from ggufbench.errors import GgufbenchError
from ggufbench.text import nearest, printable

if TYPE_CHECKING:
    from ggufbench.chat.config import LlamaCppModelConfig

_USUAL_CONTEXT = 4096
_NEAREST = 3
_PATH_SHOWN = 300


class GgufNotFoundError(GgufbenchError, LookupError):
    """No file to load. The message says in one sentence what was searched, where, and what to do."""


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A model on this machine, as a row of a model picker."""

    label: str
    """Name and quantization."""
    name: str
    repository: str | None
    """`owner/name`, if known."""
    quantization: str
    architecture: str
    parameters: int
    path: Path
    """The file to load; in a hub cache, the link that carries the hub's file name."""
    file_size_bytes: int
    """Sum over all shards."""
    trained_context: int
    """In tokens."""
    chat_template: bool
    """True if the file has a chat template."""
    source: str
    """The program whose cache holds it, such as `huggingface`, or `path`."""
    identity: str
    """Hash of the content: the key of its records."""
    cost: Literal["free"] = "free"
    """The price that a picker shows, comparable with that of a remote model."""
    measured: Measured | None = None
    """None if it was never measured on this machine."""

    def config(self, **changes: Any) -> LlamaCppModelConfig:
        """The config that loads this file, with a context of at most the trained length.

        Raises GgufbenchError for a file whose name is not valid text.
        """
        from ggufbench.chat.config import LlamaCppModelConfig

        path = str(self.path)
        if not _is_unicode(path):
            raise GgufbenchError(
                f"the name of the file {portable_path(self.path)} is not valid UTF-8, which a config cannot "
                "hold; rename the file"
            )
        n_ctx = min(_USUAL_CONTEXT, self.trained_context or _USUAL_CONTEXT)
        values = {"model": self.repository or self.name, "model_path": path, "n_ctx": n_ctx}
        return LlamaCppModelConfig(**{**values, **changes})


def _is_unicode(text: str) -> bool:
    return text.encode(errors="replace").decode() == text


def preference(row: CachedModel) -> tuple[Any, ...]:
    """Sort key for the order in the module docstring."""
    broke = row.measured is not None and row.measured.broke
    rate = row.measured.decode_tokens_per_second if row.measured and not broke else None
    kind, usual = class_of(row.quantization), place_of(row.quantization)
    return broke, kind, rate is None, -(rate or 0.0), usual, row.quantization, str(row.path)


def rows(models: Sequence[Model], results: Path | None = None) -> list[CachedModel]:
    """Discovered models as rows, sorted by name; within a name, the file that would be loaded comes first."""
    parts = [_ModelPart(model, _link_to(model.path), model.repository, model.source) for model in models]
    return _rows(parts, results)


def get_gguf_models_from_cache(
    *, cache_dir: Path | None = None, results: Path | None = None
) -> list[CachedModel]:
    """Every loadable model in the Hugging Face cache, sorted as by `rows`.

    Only the newest download of each file is listed. `cache_dir` replaces the folder from HF_HUB_CACHE or
    HF_HOME. `results` is the folder of the records; the default is GGUFBENCH_RESULTS, else `results` in the
    working directory.
    """
    found = {
        path: repository
        for repository in hub.repositories(cache_dir or hub.hub_cache())
        for path in _newest_files(repository)
    }
    parts = [
        _ModelPart(model, path, found[path].name, "huggingface")
        for model, path in _loadable(found, _discover(list(found)))
        if _chats(model)
    ]
    return _rows(parts, results)


def find_gguf_in_cache(
    name: str,
    *,
    cache_dir: Path | None = None,
    quantization: str | None = None,
    results: Path | None = None,
) -> Path | None:
    """The file to load from the repository `owner/name`; the first part of a split model.

    `quantization` selects one, such as `Q4_K_M`; without it, and if several files match, the order above
    decides. The case of the name matters only if the cache has repositories that differ in case alone.
    Searches the revision that `main` points to and, if that has no loadable file, earlier downloads.
    None if nothing is found; `get_chat_model` raises GgufNotFoundError with the reason.
    """
    try:
        return locate_gguf(name, cache_dir=cache_dir, quantization=quantization, results=results)
    except GgufNotFoundError:
        return None


def locate_gguf(
    name: str,
    *,
    cache_dir: Path | None = None,
    quantization: str | None = None,
    results: Path | None = None,
) -> Path:
    """The file that `find_gguf_in_cache` returns. Raises GgufNotFoundError if it would return None."""
    repository = _repository(name, cache_dir or hub.hub_cache(), quantization)
    there: dict[str, None] = {}
    refused: dict[str, str] = {}
    for snapshot in hub.snapshots(repository):
        files = dict.fromkeys(hub.gguf_files(repository, snapshot), repository)
        discovery = _discover(list(files))
        loadable = _loadable(files, discovery)
        parts = [
            _ModelPart(model, path, repository.name, "huggingface")
            for model, path in loadable
            if _chats(model)
        ]
        wanted = _having(parts, quantization)
        if wanted:
            return min(_rows(wanted, results), key=preference).path
        there.update((part.model.quantization, None) for part in parts)
        refused.update((printable(one.path.name), one.reason) for one in discovery.rejected)
        refused.update(
            (printable(path.name), KIND_NAMES[model.kind]) for model, path in loadable if not _chats(model)
        )
    raise GgufNotFoundError(_nothing_to_load(repository, list(there), refused, quantization))


def find_gguf(name: str, *, quantization: str | None = None) -> Path:
    """The file to load by `owner/name` in the Hugging Face cache, or by a name of a model on this machine.

    The names are those of `ggufbench models`, and every tag of Ollama. Raises GgufNotFoundError.
    """
    try:
        return locate_gguf(name, quantization=quantization)
    except GgufNotFoundError:
        called = [model for model in discover().models if model.is_called(name)]
        wanted = with_quantization(quantization, called) if quantization else called
        if not wanted:
            raise
        return min(rows(wanted), key=preference).path


@dataclass(frozen=True, slots=True)
class _ModelPart:
    """A model with the facts from its location."""

    model: Model
    path: Path
    repository: str | None
    source: str


def _rows(parts: Sequence[_ModelPart], results: Path | None) -> list[CachedModel]:
    measured = measured_here({part.model.identity for part in parts}, results)
    made = [_row(part, measured.get(part.model.identity)) for part in parts]
    return sorted(made, key=lambda row: ((row.repository or row.name).casefold(), preference(row)))


def _row(part: _ModelPart, measured: Measured | None) -> CachedModel:
    model = part.model
    return CachedModel(
        label=model.label,
        name=model.name,
        repository=part.repository,
        quantization=model.quantization,
        architecture=model.architecture,
        parameters=model.parameters,
        path=part.path,
        file_size_bytes=model.file_size_bytes,
        trained_context=model.trained_context,
        chat_template=model.chat_template,
        source=part.source,
        identity=model.identity,
        measured=measured,
    )


def _newest_files(repository: Repository) -> Iterable[Path]:
    """The newest file of each name: that of the first snapshot that has it."""
    found: dict[Path, Path] = {}
    for snapshot in hub.snapshots(repository):
        for path in hub.gguf_files(repository, snapshot):
            found.setdefault(path.relative_to(snapshot), path)
    return found.values()


def _discover(files: Sequence[Path]) -> Discovery:
    try:
        return discover(files)
    except PlaceNotFoundError:  # deleted since it was listed
        return Discovery((), ())


def _loadable(files: Mapping[Path, Repository], discovery: Discovery) -> list[tuple[Model, Path]]:
    """The models, each with the link in its snapshot; models with a part outside the cache are left out."""
    links: dict[tuple[int, int], Path] = {}
    for path in files:
        if number := _number(path):
            links.setdefault(number, path)
    found = []
    for model in discovery.models:
        number = _number(model.path)
        link = links.get(number) if number else None
        if link and all(hub.stays_in(files[link].cache, shard) for shard in model.shards):
            found.append((model, link))
    return found


def _chats(model: Model) -> bool:
    return model.kind == "generator"


def _number(path: Path) -> tuple[int, int] | None:
    """Device and inode: the same for every link to a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _link_to(path: Path) -> Path:
    """The link with the hub's file name if `path` is a blob of a hub cache; otherwise `path`."""
    repository = hub.repository_of(path)
    if repository is None:
        return path
    names = (name for snapshot in hub.snapshots(repository) for name in hub.gguf_files(repository, snapshot))
    return next((name for name in names if hub.real_path(name) == path), path)


def _having(parts: Sequence[_ModelPart], requested: str | None) -> list[_ModelPart]:
    """The parts of that quantization; all of them without a request."""
    if requested is None:
        return list(parts)
    found = with_quantization(requested, [part.model for part in parts])
    return [part for part in parts if part.model in found]


def _repository(name: str, cache: Path, quantization: str | None) -> Repository:
    """The repository of that name. Raises GgufNotFoundError."""
    shown = printable(name)
    if not hub.is_repository_name(name):
        raise GgufNotFoundError(
            f"{shown!r} is not a repository name; write owner/name, or give the file's path"
        )
    repositories = hub.repositories(cache)
    found = hub.named(repositories, name)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(one.name for one in found)
        raise GgufNotFoundError(f"{shown} is ambiguous: it matches {names}; write one of these exactly")
    if moved := hub.named(hub.repositories(cache, moved=True), name):
        folder = printable(str(moved[0].folder), _PATH_SHOWN)
        raise GgufNotFoundError(
            f"{shown} in {printable(portable_path(cache), _PATH_SHOWN)} is a link to {folder}, and no file "
            "outside the cache is loaded by name: give the path of its file, or move the whole cache and set "
            "HF_HUB_CACHE"
        )
    near = _nearest(name, repositories)
    hint = f" (similar: {', '.join(near)})" if near else ""
    where = printable(portable_path(cache), _PATH_SHOWN)
    raise GgufNotFoundError(f"no {shown} in {where}{hint}; {_remedy(name, quantization)}")


def _nearest(name: str, repositories: Sequence[Repository]) -> list[str]:
    """The most similar names of repositories with a GGUF; `name` may lack the owner."""
    known = {one.name.casefold(): one for one in repositories if any(map(bool, _newest_files(one)))}
    short = name.casefold().rpartition("/")[2]
    ends = [key for key in known if short in key.rpartition("/")[2]]
    close = nearest(name.casefold(), known, _NEAREST)
    return [known[key].name for key in dict.fromkeys([*close, *ends])][:_NEAREST]


def _remedy(name: str, quantization: str | None) -> str:
    full_name = name if "/" in name else f"owner/{name}"
    return f"download it with `ggufbench pull {full_name} --quant {printable(quantization or 'Q4_K_M', 20)}`"


def _nothing_to_load(
    repository: Repository, there: Sequence[str], refused: Mapping[str, str], quantization: str | None
) -> str:
    where = f"{repository.name} in {printable(portable_path(repository.cache), _PATH_SHOWN)}"
    remedy = _remedy(repository.name, quantization)
    if there:
        return f"{where} has {', '.join(there)} but not {printable(quantization or '', 20)}; {remedy}"
    if refused:
        (file, reason), more = next(iter(refused.items())), len(refused) - 1
        others = f", and {more} more files cannot be loaded either" if more else ""
        return f"{where} has no loadable file ({file}: {reason}{others}); {remedy}"
    return f"{where} has no complete GGUF; {remedy}"
