"""GGUFs by name: which file of a repository an application loads, and rows for its model picker.

Of several files the first of this order is loaded:

1. Q4 and IQ4, then Q5, then Q8, then every other quantization; but what failed, crashed, hung or ran out of
   memory here goes last of all;
2. within each of these what was measured on this machine, the fastest in decode first;
3. then, where nothing was measured, by the order of `discovery.usual`, and by the name of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ggufbench.chat.measurements import Measured, measured_here
from ggufbench.discovery import PlaceNotFoundError, discover, hub
from ggufbench.discovery.hub import Repository
from ggufbench.discovery.model import Discovery, Model
from ggufbench.discovery.names import portable_path
from ggufbench.discovery.quantization_order import class_of, place_of
from ggufbench.errors import GgufbenchError
from ggufbench.text import nearest, printable

if TYPE_CHECKING:
    from ggufbench.chat.config import LlamaCppModelConfig

_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_USUAL_CONTEXT = 4096
_NEAREST = 3
_PATH_SHOWN = 300


class GgufNotFoundError(GgufbenchError, LookupError):
    """No file to load; the message is one sentence that says what was looked for, where, and what to do."""


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A model on this machine, as a row of a picker."""

    label: str
    """Name and quantization."""
    name: str
    repository: str | None
    """`owner/name` where it is known."""
    quantization: str
    architecture: str
    parameters: int
    path: Path
    """The file to load; in a hub cache by the name that the hub gives it."""
    file_size_bytes: int
    """Over all shards."""
    trained_context: int
    """Tokens."""
    chat_template: bool
    """Whether the file says how a conversation is written for it."""
    source: str
    """The program whose cache it lies in, as `huggingface`, or `path`."""
    identity: str
    """Of the content: the key of its records."""
    cost: Literal["free"] = "free"
    """What pickers show beside the price of a remote model."""
    measured: Measured | None = None
    """None where it was never measured on this machine."""

    def config(self, **changes: Any) -> LlamaCppModelConfig:
        """The config that loads this file; its context is no longer than the model was trained for."""
        from ggufbench.chat.config import LlamaCppModelConfig

        n_ctx = min(_USUAL_CONTEXT, self.trained_context or _USUAL_CONTEXT)
        values = {"model": self.repository or self.name, "model_path": str(self.path), "n_ctx": n_ctx}
        return LlamaCppModelConfig(**{**values, **changes})


def preference(row: CachedModel) -> tuple[Any, ...]:
    """The order in which files are taken, as a key to sort by (see above)."""
    broke = row.measured is not None and row.measured.broke
    rate = row.measured.decode_tokens_per_second if row.measured and not broke else None
    kind, usual = class_of(row.quantization), place_of(row.quantization)
    return broke, kind, rate is None, -(rate or 0.0), usual, row.quantization, str(row.path)


def rows(models: Sequence[Model], results: Path | None = None) -> list[CachedModel]:
    """What discovery found as rows: by name, and of one name the file first that would be loaded."""
    parts = [_ModelPart(model, _link_to(model.path), model.repository, model.source) for model in models]
    return _rows(parts, results)


def get_gguf_models_from_cache(
    *, cache_dir: Path | None = None, results: Path | None = None
) -> list[CachedModel]:
    """Every model in the Hugging Face cache that can be loaded, sorted as by `rows`.

    Of each file of a repository the newest download. `cache_dir` is the folder to look in instead of that of
    HF_HUB_CACHE or HF_HOME; `results` where records lie, else GGUFBENCH_RESULTS or `results` here.
    """
    found = {
        path: repository
        for repository in hub.repositories(cache_dir or hub.hub_cache())
        for path in _newest_files(repository)
    }
    parts = [
        _ModelPart(model, path, found[path].name, "huggingface")
        for model, path in _loadable(found, _discover(list(found)))
    ]
    return _rows(parts, results)


def find_gguf_in_cache(
    name: str,
    *,
    cache_dir: Path | None = None,
    quantization: str | None = None,
    results: Path | None = None,
) -> Path:
    """The file of the repository `owner/name` that is to be loaded; of a split model its first part.

    `quantization` asks for one, such as `Q4_K_M`; without, and where several files have it, the order above
    decides. Capitals in the name matter only where the cache has repositories that differ in them alone.
    Looks into the revision that `main` names, and where that has nothing to load, into earlier downloads.
    Raises GgufNotFoundError.
    """
    repository = _repository(name, cache_dir or hub.hub_cache(), quantization)
    there: dict[str, None] = {}
    refused: dict[str, str] = {}
    for snapshot in hub.snapshots(repository):
        files = dict.fromkeys(hub.gguf_files(repository, snapshot), repository)
        discovery = _discover(list(files))
        parts = [
            _ModelPart(model, path, repository.name, "huggingface")
            for model, path in _loadable(files, discovery)
        ]
        wanted = [part for part in parts if _has_quantization(part, quantization)]
        if wanted:
            return min(_rows(wanted, results), key=preference).path
        there.update((part.model.quantization, None) for part in parts)
        refused.update((printable(one.path.name), one.reason) for one in discovery.rejected)
    raise GgufNotFoundError(_nothing_to_load(repository, list(there), refused, quantization))


@dataclass(frozen=True, slots=True)
class _ModelPart:
    """A model with what its place knows."""

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
    """Of each name in its snapshots the file of the first one that has it."""
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
    """The models, each with the name that the hub gives its file; none with a part outside of the cache."""
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


def _number(path: Path) -> tuple[int, int] | None:
    """Device and inode, which are the same for every link to a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _link_to(path: Path) -> Path:
    """For a blob of a hub cache the name that the hub gives it; other paths as they are."""
    repository = hub.repository_of(path)
    if repository is None:
        return path
    names = (name for snapshot in hub.snapshots(repository) for name in hub.gguf_files(repository, snapshot))
    return next((name for name in names if hub.real_path(name) == path), path)


def _has_quantization(part: _ModelPart, asked: str | None) -> bool:
    """Whether header or file name say so: publishers have marks of their own, such as `UD-Q4_K_XL`."""
    if asked is None or part.model.quantization.casefold() == asked.casefold():
        return True
    stem = _SHARD.sub("", part.path.stem)
    return re.search(rf"(?:^|[-._ ]){re.escape(asked)}$", stem, re.IGNORECASE) is not None


def _repository(name: str, cache: Path, quantization: str | None) -> Repository:
    """The repository of that name. Raises GgufNotFoundError."""
    shown = printable(name)
    if not hub.is_repository_name(name):
        raise GgufNotFoundError(
            f"{shown!r} is no repository's name; write owner/name, or give the file's path"
        )
    repositories = hub.repositories(cache)
    found = hub.named(repositories, name)
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(one.name for one in found)
        raise GgufNotFoundError(f"{shown} may be one of {names}; write the name as one of them is written")
    near = _nearest(name, repositories)
    hint = f" (there is {', '.join(near)})" if near else ""
    where = printable(portable_path(cache), _PATH_SHOWN)
    raise GgufNotFoundError(f"no {shown} in {where}{hint}; {_remedy(name, quantization)}")


def _nearest(name: str, repositories: Sequence[Repository]) -> list[str]:
    """The names most like it of those that have a GGUF; the part after the owner may be all that is known."""
    known = {one.name.casefold(): one for one in repositories if any(map(bool, _newest_files(one)))}
    short = name.casefold().rpartition("/")[2]
    ends = [key for key in known if short in key.rpartition("/")[2]]
    close = nearest(name.casefold(), known, _NEAREST)
    return [known[key].name for key in dict.fromkeys([*close, *ends])][:_NEAREST]


def _remedy(name: str, quantization: str | None) -> str:
    asked = name if "/" in name else f"owner/{name}"
    return f"download it with `ggufbench pull {asked} --quant {printable(quantization or 'Q4_K_M', 20)}`"


def _nothing_to_load(
    repository: Repository, there: Sequence[str], refused: Mapping[str, str], quantization: str | None
) -> str:
    where = f"{repository.name} in {printable(portable_path(repository.cache), _PATH_SHOWN)}"
    remedy = _remedy(repository.name, quantization)
    if there:
        return f"{where} has {', '.join(there)} and no {printable(quantization or '', 20)}; {remedy}"
    if refused:
        (file, reason), more = next(iter(refused.items())), len(refused) - 1
        others = f", and {more} more files are no better" if more else ""
        return f"{where} has nothing to load: {file} is {reason}{others}; {remedy}"
    return f"{where} has no complete GGUF; {remedy}"
