"""Select a GGUF of a hub repository by quantization."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ggufbench.discovery.names import having, quantization_in
from ggufbench.discovery.quantization_order import class_of, place_of
from ggufbench.modelkit.spec import ModelError
from ggufbench.text import decimal_size

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})", re.DOTALL)
_COMPANION = re.compile(r"(?:^|[-_.])(?:mmproj|imatrix|lora|adapter)(?:[-_.]|$)|^mtp[-_.]", re.IGNORECASE)
_SAFE_NAME = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))[^/\\:][^\\:]{0,500}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository."""

    name: str
    """Its path in the repository, as the hub writes it."""
    size_bytes: int
    sha256: str | None
    """None for a file outside the hub's large-file storage, whose hash the hub does not report."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A model of a repository: one file, or all shards in order."""

    title: str
    """File name without folder, shard number and suffix."""
    quantization: str | None
    files: tuple[RemoteFile, ...]

    @property
    def size_bytes(self) -> int:
        """Total size of the files."""
        return sum(file.size_bytes for file in self.files)

    def described(self) -> str:
        """Quantization and size for people: `Q4_K_M (4.7 GB)`."""
        return f"{self.quantization or self.title} ({decimal_size(self.size_bytes)})"


def offers(files: Iterable[RemoteFile]) -> list[Offer]:
    """The models among the files, the default choice first.

    Files whose names could lead out of a folder or contain control characters are left out, and so are
    companions of a model: an mmproj, an adapter, an importance matrix.
    """
    groups: dict[tuple[str, int], dict[int, RemoteFile]] = {}
    for file in files:
        if not _is_model(file.name):
            continue
        stem = file.name[: -len(".gguf")]
        found = _SHARD.fullmatch(stem)
        key = (found["stem"], int(found["count"])) if found else (stem, 1)
        groups.setdefault(key, {})[int(found["number"]) if found else 1] = file
    complete = [
        Offer(stem.rpartition("/")[2], quantization_in(stem), tuple(parts[n] for n in sorted(parts)))
        for (stem, count), parts in groups.items()
        if sorted(parts) == list(range(1, count + 1))
    ]
    return sorted(complete, key=lambda offer: (_rank(offer), offer.size_bytes, offer.title))


def choose(found: Sequence[Offer], repository: str, quantization: str | None) -> Offer:
    """The model with that quantization or file name; by default the first. Raises `ModelError`."""
    if not found:
        raise ModelError(
            f"{repository} has no complete GGUF model; if it has safetensors, download those with "
            f"`hf download {repository}` and convert them with `ggufbench convert {repository}`."
        )
    if quantization is None:
        best = [offer for offer in found if _rank(offer) == _rank(found[0])]
        return _only(best, repository)
    wanted = quantization.strip()
    named = [offer for offer in found if wanted.lower().removesuffix(".gguf") == offer.title.lower()]
    meant = having(wanted, {offer.quantization for offer in found if offer.quantization})
    same = [offer for offer in found if offer.quantization in meant]
    if not named and not same:
        there = ", ".join(offer.described() for offer in found)
        raise ModelError(f"{repository} does not have {wanted}; it has {there}.")
    return _only(named or same, repository)


def _only(candidates: Sequence[Offer], repository: str) -> Offer:
    if len(candidates) > 1:
        names = ", ".join(offer.title for offer in candidates)
        raise ModelError(
            f"{repository} has several models of {candidates[0].quantization or 'no stated quantization'}: "
            f"{names}; select one by its name with --quant."
        )
    return candidates[0]


def _is_model(name: str) -> bool:
    base = name.rpartition("/")[2]
    is_gguf = base.lower().endswith(".gguf") and len(base) > len(".gguf")
    safe = name.isprintable() and _SAFE_NAME.fullmatch(name) is not None
    return is_gguf and safe and not _COMPANION.search(base[: -len(".gguf")])


def _rank(offer: Offer) -> tuple[int, float]:
    kind = offer.quantization or ""
    return class_of(kind), place_of(kind)
