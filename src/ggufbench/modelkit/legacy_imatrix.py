"""Read an importance matrix in the format of llama-imatrix before it wrote GGUF, usually named `imatrix.dat`.

The file has the number of entries, and for each one the length and text of a tensor's name, the number of
calls, the number of values and the values: sums over the calls of the mean square of the inputs. Numbers are
32-bit and little-endian.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from ggufbench.paths import read_regular

_MOST_BYTES = 1 << 30
_MOST_ENTRIES = 1 << 16
_MOST_NAME_BYTES = 256


def read_legacy_imatrix(path: Path) -> dict[str, Any]:
    """The mean square of each tensor's inputs, as arrays of float32. Raises ValueError for any other file."""
    import numpy as np

    content = read_regular(path, _MOST_BYTES)
    (count,) = struct.unpack_from("<i", content) if len(content) >= 4 else (0,)
    if not 0 < count <= _MOST_ENTRIES:
        raise ValueError("it is neither a GGUF nor an imatrix.dat of older versions")
    found, at = {}, 4
    for _ in range(count):
        name, at = _name(content, at)
        calls, length = _numbers(content, at, 2)
        at += 8
        if length < 1 or at + 4 * length > len(content):
            raise ValueError(f"the values of {name} are incomplete")
        values = np.frombuffer(content, "<f4", length, at)
        found[name] = np.ascontiguousarray(values / max(calls, 1), np.float32)
        at += 4 * length
    return found


def _name(content: bytes, at: int) -> tuple[str, int]:
    (length,) = _numbers(content, at, 1)
    end = at + 4 + length
    name = content[at + 4 : end].decode("ascii", errors="replace")
    if not 0 < length <= _MOST_NAME_BYTES or len(name) != length or not name.isprintable():
        raise ValueError("it is neither a GGUF nor an imatrix.dat of older versions")
    return name, end


def _numbers(content: bytes, at: int, count: int) -> tuple[int, ...]:
    if at + 4 * count > len(content):
        raise ValueError("it ends within an entry")
    return struct.unpack_from(f"<{count}i", content, at)
