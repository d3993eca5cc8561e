"""The files of a model, and a fingerprint of their content."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ggufbench.discovery.classify import RefusedError
from ggufbench.discovery.header import Header, HeaderError, Tensor, open_regular, read_header
from ggufbench.text import printable

_SHARD_NAME = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
_SHARDS_CAP = 65_535
_SAMPLES = 8
_SAMPLE_BYTES = 64 << 10
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one model, with their headers, first shard first."""

    paths: tuple[Path, ...]
    headers: tuple[Header, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors of all shards."""
        return tuple(tensor for header in self.headers for tensor in header.tensors)


def gather(path: Path, header: Header) -> Files:
    """All files of the model whose first file is `path`, in numeric order.

    A single file has every link resolved. Shards keep their names, because llama.cpp finds them by name: a
    Hugging Face cache links them to blobs named by a hash. Raises RefusedError for a missing, foreign or
    broken shard.
    """
    count = header.whole("split.count", _SHARDS_CAP) or 1
    if count == 1 or header.whole("split.no"):
        return Files((_resolved(path),), (header,))
    paths = _siblings(path, count)
    headers = [header]
    for number, sibling in enumerate(paths[1:], start=1):
        headers.append(_read_shard(sibling, number))
    _check_tensors(headers)
    return Files(paths, tuple(headers))


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # a link cycle created since the file was opened
        return path.absolute()


def _siblings(path: Path, count: int) -> tuple[Path, ...]:
    """Paths of all shards beside the first one, or beside its target if only that has a shard name."""
    for first in (path, _resolved(path)):
        found = _SHARD_NAME.fullmatch(first.name)
        if found and int(found["number"]) == 1 and int(found["count"]) == count:
            folder = _resolved(first.parent)
            names = (f"{found['stem']}-{n:05d}-of-{count:05d}.gguf" for n in range(1, count + 1))
            return tuple(_existing(folder / name) for name in names)
    raise RefusedError(f"the first of {count} parts, but its name does not end in -00001-of-{count:05d}.gguf")


def _existing(path: Path) -> Path:
    # Checked one by one: a file may claim 65,535 parts, and the message names the first missing one.
    try:
        path.stat()
    except OSError:
        raise RefusedError(f"a part of the model is missing: {printable(path.name, 200)}") from None
    return path


def _read_shard(path: Path, number: int) -> Header:
    name = printable(path.name, 200)
    try:
        header = read_header(path)
        stated = header.whole("split.no")
    except HeaderError as error:
        raise RefusedError(f"its part {name} is broken: {error}") from None
    if stated != number:
        raise RefusedError(f"{name} is not part {number + 1} of this model: its split.no is {stated}")
    return header


def _check_tensors(headers: list[Header]) -> None:
    found = [tensor.name for header in headers for tensor in header.tensors]
    if len(set(found)) != len(found):
        raise RefusedError("its parts do not belong together: a tensor occurs in two of them")
    stated = headers[0].whole("split.tensors.count")
    if stated is not None and stated != len(found):
        raise RefusedError(
            f"its parts do not belong together: {stated} tensors are stated, but {len(found)} exist"
        )


def identity(files: Files) -> str:
    """Hash of every header, every size and eight 64 KiB blocks at fixed offsets, as 16 hexadecimal digits.

    Equal for copies; different for another quantization, and for other weights unless they differ only
    outside the blocks. Raises HeaderError if a file cannot be read.
    """
    digest = hashlib.sha256()
    for path, header in zip(files.paths, files.headers, strict=True):
        digest.update(header.file_size_bytes.to_bytes(8, "little"))
        _update(digest, path, 0, header.header_bytes)
    total = sum(header.file_size_bytes for header in files.headers)
    for sample in range(_SAMPLES):
        index, offset = _locate(files, max(total - _SAMPLE_BYTES, 0) * sample // (_SAMPLES - 1))
        length = min(_SAMPLE_BYTES, files.headers[index].file_size_bytes - offset)
        _update(digest, files.paths[index], offset, length)
    return digest.hexdigest()[:16]


def _locate(files: Files, position: int) -> tuple[int, int]:
    """Shard and offset of a byte position in the concatenation of all shards."""
    for index, header in enumerate(files.headers[:-1]):
        if position < header.file_size_bytes:
            return index, position
        position -= header.file_size_bytes
    return len(files.headers) - 1, position


def _update(digest: hashlib._Hash, path: Path, offset: int, length: int) -> None:
    file, _ = open_regular(path)
    try:
        with file:
            if offset and hasattr(os, "posix_fadvise"):
                # No read-ahead: a benchmark of a cold load needs the weights out of the page cache.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            file.seek(offset)
            while length > 0:
                part = file.read(min(length, _READ_BYTES))
                if not part:
                    raise HeaderError("the file became shorter while it was read")
                digest.update(part)
                length -= len(part)
    except OSError as error:
        raise HeaderError(f"the file cannot be read: {error.strerror}") from None
