"""Discovery of the GGUFs on this machine: `discover()` lists the models, and rejected files with reasons."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ggufbench.discovery import classify, companions, facts, names, shards, sources, unfinished
from ggufbench.discovery.classify import RefusedError
from ggufbench.discovery.distinct_names import with_distinct_names
from ggufbench.discovery.facts import Provenance
from ggufbench.discovery.header import Header, HeaderError, read_header
from ggufbench.discovery.model import Discovery, KvShape, Model, OriginalCheckpoint, Rejected
from ggufbench.discovery.original_checkpoints import Originals, hub_caches
from ggufbench.discovery.shards import Files
from ggufbench.discovery.sources import Candidate, PlaceNotFoundError
from ggufbench.paths import home_folder
from ggufbench.text import printable

__all__ = [
    "Discovery",
    "KvShape",
    "Model",
    "OriginalCheckpoint",
    "PlaceNotFoundError",
    "Rejected",
    "discover",
]

_File = tuple[int, int]
"""Device and inode: the same for every link to a file."""
_LINKS_TRIED = 8


def discover(places: Sequence[Path] | None = None, env: Mapping[str, str] = os.environ) -> Discovery:
    """Every model in the default places, or in `places` (files and folders) instead.

    A file is one entry, however many links and programs refer to it. Reads headers and a few blocks, never
    whole files. Raises only PlaceNotFoundError, for a missing place; a defect of a file is the reason of its
    `Rejected`.
    """
    roots = sources.default_roots(env, sys.platform, home_folder(env))
    found = sources.default_candidates(roots) if places is None else sources.explicit_candidates(places)
    # Original checkpoints are searched where transformers would look, whatever the places.
    caches = [*hub_caches(places or ()), *(root.path for root in roots if root.source == "huggingface")]
    return _examine(found, Originals(caches))


def _examine(found: Iterable[Candidate], originals: Originals) -> Discovery:
    models: list[Model] = []
    rejected: dict[_File | Path, Rejected] = {}
    headers: dict[_File | Path, Header | None] = {}
    used: set[_File | Path] = set()
    for file, links in _by_file(found).items():
        outcome, header = _examine_file(links, originals)
        if isinstance(outcome, Model):
            models.append(outcome)
            used.update(_file_of(shard) for shard in outcome.shards)
        else:
            rejected[file] = outcome
            headers[file] = header
    # Later parts of a model are listed in the model itself.
    kept, copies = _without_copies(models)
    alone = [
        companions.with_owner(refusal, header, kept) if (header := headers[file]) else refusal
        for file, refusal in rejected.items()
        if file not in used
    ]
    return Discovery(
        tuple(sorted(with_distinct_names(kept), key=lambda m: (m.name, m.quantization, str(m.path)))),
        tuple(sorted([*alone, *copies], key=lambda r: str(r.path))),
    )


def _without_copies(models: Iterable[Model]) -> tuple[list[Model], list[Rejected]]:
    """Keep one model for each content; two programs may have downloaded the same file.

    The oldest file is kept, so that a new copy does not change the name of a model.
    """
    contents: dict[str, list[Model]] = {}
    for model in sorted(models, key=lambda model: (_changed(model.path), str(model.path))):
        contents.setdefault(model.identity, []).append(model)
    kept, rejected = [], []
    for original, *copies in contents.values():
        other = [name for copy in copies for name in (copy.label, copy.repository or "", *copy.aliases)]
        kept.append(replace(original, aliases=_other_names(original, (*original.aliases, *other))))
        reason = f"a copy of {printable(str(original.path))}; to measure this file, name it with --models"
        rejected += [Rejected(one.path, one.source, one.file_size_bytes, reason) for one in copies]
    return kept, rejected


def _other_names(model: Model, found: Iterable[str]) -> tuple[str, ...]:
    plain = replace(model, aliases=())
    return tuple(name for name in dict.fromkeys(found) if name and not plain.is_called(name))


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _by_file(found: Iterable[Candidate]) -> dict[_File | Path, list[Candidate]]:
    """The candidates of each file, in the order of the sources."""
    files: dict[_File | Path, list[Candidate]] = {}
    for candidate in found:
        files.setdefault(_file_of(candidate.path), []).append(candidate)
    return files


def _file_of(path: Path) -> _File | Path:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return path
    return status.st_dev, status.st_ino


def _examine_file(links: Sequence[Candidate], originals: Originals) -> tuple[Model | Rejected, Header | None]:
    """Examine one file. Its header is read once, however many links refer to it, and None if unreadable."""
    first, header = links[0], None
    try:
        header = _header_of(first)
        classify.architecture_of(header)
        candidate, files = _gather(links, header)
        _refuse_incomplete(files.paths)
        model = facts.describe(files, _provenance(candidate, files.paths[0]))
        aliases = _other_names(model, (name for link in links for name in _names_of(link)))
        original = originals.find(files.headers[0], model, candidate.path)
        return replace(model, original=original, aliases=aliases), header
    except (RefusedError, HeaderError) as error:
        return Rejected(first.path, first.source, _size_of(first.path), str(error)), header


def _header_of(candidate: Candidate) -> Header:
    if candidate.refusal is not None:
        raise RefusedError(candidate.refusal)
    _refuse_incomplete([candidate.path])
    return read_header(candidate.path)


def _refuse_incomplete(paths: Iterable[Path]) -> None:
    for path in paths:
        if reason := unfinished.download_reason(path):
            raise RefusedError(reason)


def _gather(links: Sequence[Candidate], header: Header) -> tuple[Candidate, Files]:
    """Collect the files of a model: the other shards may lie beside one link and not beside another."""
    refusal = RefusedError("no path refers to the file")
    for number, candidate in enumerate(links[:_LINKS_TRIED]):
        try:
            return candidate, shards.gather(candidate.path, header)
        except RefusedError as error:
            refusal = refusal if number else error
    raise refusal


def _provenance(candidate: Candidate, path: Path) -> Provenance:
    # Prefer the target's name to the link's, so that a model has one name; blobs of a cache have no name.
    named = path if path.suffix.lower() == ".gguf" else candidate.path
    stem = named.stem if named.suffix.lower() == ".gguf" else named.name
    return Provenance(candidate.name or names.model_name(stem), stem, candidate.source, candidate.repository)


def _names_of(link: Candidate) -> Iterator[str]:
    """The names by which a user may know a file: from its program, or its file name without the suffix."""
    if link.name is not None:
        yield from (link.tag or "", link.name)
    elif link.path.suffix.lower() == ".gguf":
        yield names.without_shard(printable(link.path.stem))
    yield link.repository or ""


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except (OSError, ValueError):
        return 0
