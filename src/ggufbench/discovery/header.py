"""Reader for the header of a GGUF file: its keys, and the names, shapes and offsets of its tensors.

Everything in a file is hostile. Each length and count is checked against the remaining bytes and a cap before
use; the file is read in chunks and never mapped, so a file that shrinks meanwhile is an error and not a
SIGBUS; the content of long values is skipped and never stored.

A vocabulary has hundreds of thousands of strings, so skipping them one at a time would take most of a second.
Instead `_candidates` finds all possible string starts of a chunk at once. They are used only if each string
ends exactly at the next start, beginning at a known start, so the result equals that of the one-by-one walk.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ggufbench import paths
from ggufbench.discovery.foreign_files import START_BYTES, reason_of
from ggufbench.discovery.tables import TENSOR_TYPES, VALUE_ARRAY, VALUE_FORMATS, VALUE_STRING, TensorType
from ggufbench.errors import GgufbenchError
from ggufbench.text import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEADER_CAP = 128 << 20
"""Maximum bytes of a header; those of real models take 1 to 20 MiB."""
KEYS_CAP = 8192
TENSORS_CAP = 65_536
STRINGS_CAP = 1 << 22
"""Maximum elements of a string array; the largest known vocabularies have half a million merges."""
STEPS_CAP = 100_000
"""Maximum strings skipped singly: real files need a few, and a hostile file is rejected within a second."""
KEY_BYTES_CAP = 1024
TEXT_BYTES_CAP = 4096
ELEMENTS_CAP = 4096
KEPT_CAP = 1 << 20
"""Maximum bytes of text plus array elements kept from one header; later values are `Omitted`."""
WHOLE_CAP = 2**32 - 1
_CHUNK = 1 << 18  # stays in a core's cache while `_candidates` scans it
_ZEROS = 4096
_NAME_BYTES = 64
_DIMENSIONS = 4


class HeaderError(GgufbenchError, ValueError):
    """Not a GGUF header that llama.cpp can read. The message gives the reason in one sentence."""


@dataclass(frozen=True, slots=True)
class Omitted:
    """A skipped value: a long text or a long array."""

    count: int
    """Bytes of the text, or elements of the array."""
    array: bool


Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...] | Omitted


@dataclass(frozen=True, slots=True)
class Tensor:
    """Name, shape and offset of one tensor."""

    name: str
    dims: tuple[int, ...]
    """In ggml's order: the length of a row first, then the number of rows."""
    type: TensorType
    offset: int
    """Bytes from the start of the data."""
    elements: int
    size_bytes: int

    @property
    def rows(self) -> int:
        """Number of rows of one matrix; 1 for a vector."""
        return self.dims[1] if len(self.dims) > 1 else 1


@dataclass(frozen=True, slots=True)
class Header:
    """Header of a GGUF file. The accessors raise HeaderError for a value of the wrong type."""

    version: int
    values: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    header_bytes: int
    """Length of the header without padding."""
    file_size_bytes: int

    def text(self, key: str) -> str | None:
        """The text under `key`; None if the key is missing."""
        value = self.values.get(key)
        if value is None or isinstance(value, str):
            return value
        raise HeaderError(f"{_shown(key)} is {_kind(value)}, but a short text is expected")

    def whole(self, key: str, most: int = WHOLE_CAP) -> int | None:
        """The whole number from 0 to `most` under `key`; None if the key is missing."""
        value = self.values.get(key)
        return None if value is None else _whole(key, value, most)

    def flag(self, key: str) -> bool | None:
        """The boolean under `key`; None if the key is missing."""
        value = self.values.get(key)
        if value is None or isinstance(value, bool):
            return value
        raise HeaderError(f"{_shown(key)} is {_kind(value)}, but true or false is expected")

    def per_layer(self, key: str, layers: int, most: int = WHOLE_CAP) -> tuple[int, ...] | None:
        """One whole number per layer: from an array, or the same for all; None if the key is missing.

        Booleans count as 0 and 1. An array must have at least `layers` elements.
        """
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, tuple):
            return (_whole(key, value, most),) * layers
        if len(value) < layers:
            raise HeaderError(f"{_shown(key)} has {len(value)} elements for {layers} layers")
        return tuple(int(e) if isinstance(e, bool) else _whole(key, e, most) for e in value[:layers])

    def length(self, key: str) -> int:
        """Elements of the array under `key`; 0 if the key is missing or not an array."""
        value = self.values.get(key)
        if isinstance(value, tuple):
            return len(value)
        return value.count if isinstance(value, Omitted) and value.array else 0


def _whole(key: str, value: Value, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise HeaderError(f"{_shown(key)} is {_kind(value)}, but a whole number is expected")
    if not 0 <= value <= most:
        raise HeaderError(f"{_shown(key)} is {value}, but a whole number from 0 to {most} is expected")
    return value


def _kind(value: Value) -> str:
    if isinstance(value, tuple) or (isinstance(value, Omitted) and value.array):
        return "an array"
    names = {bool: "true or false", int: "a whole number", float: "a number with a fraction"}
    return names.get(type(value), "a text")


def _shown(name: str) -> str:
    return printable(name, 64)


class ByteSource(Protocol):
    """Methods of a binary file that the reader uses."""

    def seek(self, offset: int, /) -> object:
        """Move to the byte at `offset`."""

    def read(self, size: int, /) -> bytes | None:
        """Return at most `size` bytes from there."""


def open_regular(path: Path) -> tuple[FileIO, int]:
    """Open a regular file: the file and its size in bytes. Never waits for a FIFO or a device.

    Raises HeaderError if the path is anything else or cannot be read.
    """
    try:
        file = paths.open_regular(path)
    except FileNotFoundError:
        raise HeaderError("the file does not exist (any more)") from None
    except IsADirectoryError:
        raise HeaderError("this is a folder, not a GGUF file") from None
    except (OSError, ValueError) as error:
        raise HeaderError(f"the file cannot be read: {_why(error)}") from None
    return file, os.fstat(file.fileno()).st_size


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or printable(str(error))


def read_header(path: Path) -> Header:
    """Read the header of the GGUF at `path`. Raises only HeaderError, if that is impossible.

    Reads at most one chunk (256 KiB) beyond the header.
    """
    file, size = open_regular(path)
    try:
        with file:
            return parse_header(file, size)
    except OSError as error:
        raise HeaderError(f"the file cannot be read: {_why(error)}") from None


def parse_header(file: ByteSource, size: int) -> Header:
    """Read the header from an open file of `size` bytes. Raises HeaderError."""
    reader = _Reader(file, size)
    version, tensor_count, key_count = _read_start(reader)
    values = dict(_read_pairs(reader, key_count))
    tensors = tuple(_read_tensors(reader, tensor_count))
    header = Header(version, values, tensors, reader.at, size)
    _check_offsets(header)
    return header


def data_offset(header: Header) -> int:
    """Byte offset of the tensor data in the file."""
    return _padded(header.header_bytes, _alignment(header))


def _read_start(reader: _Reader) -> tuple[int, int, int]:
    if reader.size == 0:
        raise HeaderError("the file is empty")
    start = reader.load()[:START_BYTES]
    if reader.size < 4 or reader.take(4, "the magic bytes") != b"GGUF":
        raise HeaderError(reason_of(start))
    version = reader.u32("the version")
    if version & 0xFFFF == 0 and version:
        raise HeaderError("the file is big endian; only little endian GGUFs are supported")
    if version not in (2, 3):
        raise HeaderError(f"the file is GGUF version {version}; versions 2 and 3 are supported")
    tensor_count = reader.u64("the number of tensors")
    key_count = reader.u64("the number of keys")
    # A tensor takes at least 24 bytes and a key at least 13.
    reader.check_count(tensor_count, 24, TENSORS_CAP, "tensors")
    reader.check_count(key_count, 13, KEYS_CAP, "keys")
    return version, tensor_count, key_count


class _Reader:
    """Position in the header with one chunk of the file. Never reads beyond the file or the cap."""

    def __init__(self, file: ByteSource, size: int) -> None:
        self.size = size
        self.at = 0
        self.steps_left = STEPS_CAP
        self.kept_left = KEPT_CAP
        self._file = file
        self._limit = min(size, HEADER_CAP)
        self._chunk = b""
        self._start = 0

    def load(self, wanted: int = _CHUNK) -> bytes:
        """Load bytes from the position on: `wanted` or a chunk, fewer at the limit of the header."""
        wanted = min(max(wanted, _CHUNK), self._limit - self.at)
        self._file.seek(self.at)
        parts: list[bytes] = []
        while wanted > 0:
            part = self._file.read(wanted)
            if not part:
                raise HeaderError("the file became shorter while it was read")
            parts.append(part)
            wanted -= len(part)
        self._chunk, self._start = parts[0] if len(parts) == 1 else b"".join(parts), self.at
        return self._chunk

    def require(self, count: int, what: str) -> None:
        """Raise HeaderError if `count` more bytes would exceed the file or the cap."""
        if count <= self._limit - self.at:
            return
        if self._limit < self.size:
            raise HeaderError(f"the header is longer than {HEADER_CAP >> 20} MiB (at {what})")
        raise HeaderError(f"truncated: the file ends at byte {self.size}, inside its header ({what})")

    def check_count(self, count: int, least_bytes: int, most: int, what: str) -> None:
        """Raise HeaderError if `count` items of at least `least_bytes` each are impossible."""
        if count > most:
            raise HeaderError(f"the file claims {count} {what}; at most {most} are supported")
        self.require(count * least_bytes, what)

    def take(self, count: int, what: str) -> bytes:
        """Read the next `count` bytes."""
        begin = self.at - self._start
        if begin < 0 or begin + count > len(self._chunk):
            self.require(count, what)
            self.load(count)
            begin = 0
        self.at += count
        return self._chunk[begin : begin + count]

    def skip(self, count: int, what: str) -> None:
        """Skip `count` bytes without reading them."""
        self.require(count, what)
        self.at += count

    def u32(self, what: str) -> int:
        """Read 4 bytes as an unsigned number."""
        return int.from_bytes(self.take(4, what), "little")

    def u64(self, what: str) -> int:
        """Read 8 bytes as an unsigned number."""
        return int.from_bytes(self.take(8, what), "little")

    def keep(self, count: int) -> bool:
        """Reserve `count` bytes or elements; False if the limit of kept values is exceeded."""
        if count > self.kept_left:
            return False
        self.kept_left -= count
        return True

    def step(self, what: str) -> None:
        """Count one string that was not skipped together with others."""
        self.steps_left -= 1
        if self.steps_left < 0:
            raise HeaderError(f"{what} has too many irregular strings to be a vocabulary")


def _read_pairs(reader: _Reader, count: int) -> Iterator[tuple[str, Value]]:
    seen: set[str] = set()
    for _ in range(count):
        key = _read_name(reader, KEY_BYTES_CAP, "a key")
        if key in seen:
            raise HeaderError(f"the key {_shown(key)} occurs twice")
        seen.add(key)
        yield key, _read_value(reader, _shown(key))


def _read_name(reader: _Reader, most: int, what: str) -> str:
    length = reader.u64(what)
    if not 0 < length <= most:
        raise HeaderError(f"{what} has a name of {length} bytes; 1 to {most} are allowed")
    return reader.take(length, what).decode("utf-8", "replace")


def _read_value(reader: _Reader, key: str) -> Value:
    kind = reader.u32(key)
    if kind == VALUE_STRING:
        return _read_text(reader, key)
    if kind == VALUE_ARRAY:
        return _read_array(reader, key)
    code = VALUE_FORMATS.get(kind)
    if code is None:
        raise HeaderError(f"{key} has the unknown value type {kind}")
    value: Scalar = struct.unpack(f"<{code}", reader.take(struct.calcsize(f"<{code}"), key))[0]
    return value


def _read_text(reader: _Reader, key: str) -> str | Omitted:
    length = reader.u64(key)
    if length <= TEXT_BYTES_CAP and reader.keep(length):
        return reader.take(length, key).decode("utf-8", "replace")
    reader.skip(length, key)
    return Omitted(length, array=False)


def _read_array(reader: _Reader, key: str) -> Value:
    kind = reader.u32(key)
    count = reader.u64(key)
    if kind == VALUE_STRING:
        reader.check_count(count, 8, STRINGS_CAP, f"strings in {key}")
        _skip_strings(reader, count, key)
        return Omitted(count, array=True)
    code = VALUE_FORMATS.get(kind)
    if code is None:
        what = "an array of arrays" if kind == VALUE_ARRAY else f"an array of the unknown value type {kind}"
        raise HeaderError(f"{key} is {what}, which llama.cpp does not support")
    size = count * struct.calcsize(f"<{code}")
    if count <= ELEMENTS_CAP and reader.keep(count):
        return struct.unpack(f"<{count}{code}", reader.take(size, key))
    reader.skip(size, key)
    return Omitted(count, array=True)


def _skip_strings(reader: _Reader, count: int, key: str) -> None:
    while count > 0:
        reader.require(8, key)
        taken, length = _walk(reader, reader.load(), count, key)
        count -= taken
        reader.skip(length, key)


def _walk(reader: _Reader, data: bytes, count: int, key: str) -> tuple[int, int]:
    """Skip at most `count` strings that start in `data`; returns their number and bytes."""
    import numpy as np

    chunk = np.frombuffer(data, np.uint8)
    starts = _candidates(chunk)
    ends = starts + 8 + chunk[starts]
    # A run of regular strings ends if the string at a start does not end at the next start.
    last_of_run = np.append(np.flatnonzero(ends[:-1] != starts[1:]), len(starts) - 1)
    at, left = 0, count
    while left and at + 8 <= len(data):
        reader.step(key)
        index = int(np.searchsorted(starts, at))
        if index < len(starts) and starts[index] == at:
            last = int(last_of_run[np.searchsorted(last_of_run, index)])
            taken = min(last - index + 1, left)
            at = int(ends[index + taken - 1])
        else:
            taken, length = _step_singly(data, at, left)
            at += length
        left -= taken
    return count - left, at


def _candidates(chunk: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Offsets where a string of 1 to 255 bytes may start: a length byte, seven zeros, and text.

    A longer or an empty string does not match this pattern. A text that starts with NUL is left to
    `_step_singly`: with such texts, the byte before an empty string would match as well.
    """
    import numpy as np

    if len(chunk) < 9:
        return np.empty(0, np.intp)
    zero = chunk == 0
    two = zero[:-1] & zero[1:]
    four = two[:-2] & two[2:]
    seven = four[:-3] & four[3:]
    found = np.greater(seven[1:-1], zero[:-8])
    np.greater(found, zero[8:], out=found)
    return np.flatnonzero(found)


def _step_singly(data: bytes, at: int, left: int) -> tuple[int, int]:
    """Skip one string of any length, or a run of empty ones; returns their number and bytes."""
    length = int.from_bytes(data[at : at + 8], "little")
    if length:
        return 1, 8 + length
    window = data[at : at + _ZEROS]
    empty = min((len(window) - len(window.lstrip(b"\0"))) // 8, left)
    return empty, 8 * empty


def _read_tensors(reader: _Reader, count: int) -> Iterator[Tensor]:
    seen: set[str] = set()
    for _ in range(count):
        name = _read_name(reader, _NAME_BYTES - 1, "a tensor")
        if name in seen:
            raise HeaderError(f"the tensor {_shown(name)} occurs twice")
        seen.add(name)
        yield _read_tensor(reader, name)


def _read_tensor(reader: _Reader, name: str) -> Tensor:
    what = f"tensor {_shown(name)}"
    count = reader.u32(what)
    if count > _DIMENSIONS:
        raise HeaderError(f"{what} has {count} dimensions; at most {_DIMENSIONS} are allowed")
    dims: tuple[int, ...] = struct.unpack(f"<{count}Q", reader.take(8 * count, what))
    kind, offset = struct.unpack("<IQ", reader.take(12, what))
    if kind not in TENSOR_TYPES:
        raise HeaderError(f"{what} has type {kind}, which llama.cpp does not know (any more)")
    elements = _elements(dims, what)
    tensor_type = TENSOR_TYPES[kind]
    if dims and dims[0] % tensor_type.block_elements:
        raise HeaderError(
            f"{what} has rows of {dims[0]} elements, which do not divide into blocks of {tensor_type.name}"
        )
    if not dims and tensor_type.block_elements > 1:
        raise HeaderError(f"{what} has no dimensions, but {tensor_type.name} needs at least one")
    size = elements // tensor_type.block_elements * tensor_type.block_bytes
    return Tensor(name, dims, tensor_type, offset, elements, size)


def _elements(dims: tuple[int, ...], what: str) -> int:
    product = 1
    for dim in dims:
        product *= dim
        # Each dimension is checked as well: a zero must not hide an absurd one.
        if dim > 2**63 - 1 or product > 2**63 - 1:
            raise HeaderError(f"{what} has an impossible shape: {' x '.join(map(str, dims))}")
    return product


def _alignment(header: Header) -> int:
    alignment = header.whole("general.alignment")
    if alignment is None:
        return 32
    if alignment == 0 or alignment & (alignment - 1):
        raise HeaderError(f"general.alignment is {alignment}, but a power of 2 is expected")
    return alignment


def _padded(count: int, alignment: int) -> int:
    return (count + alignment - 1) // alignment * alignment


def _check_offsets(header: Header) -> None:
    """Check that tensors lie one after another, as llama.cpp requires, and inside the file."""
    alignment = _alignment(header)
    start, expected = data_offset(header), 0
    for tensor in header.tensors:
        if tensor.offset != expected:
            raise HeaderError(
                f"tensor {_shown(tensor.name)} is at byte {tensor.offset} of the data, "
                f"but byte {expected} is expected"
            )
        end = start + tensor.offset + tensor.size_bytes
        if end > header.file_size_bytes:
            raise HeaderError(
                f"truncated: tensor {_shown(tensor.name)} ends at byte {end}, "
                f"but the file has {header.file_size_bytes} bytes"
            )
        expected = _padded(tensor.offset + tensor.size_bytes, alignment)
