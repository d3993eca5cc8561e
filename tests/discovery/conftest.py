"""Small GGUFs built byte by byte: independent of the reader, and able to break every rule."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest

TensorSpec = tuple[str, tuple[int, ...], str]


class Raw:
    """A value given as its GGUF type and its bytes."""

    def __init__(self, kind: int, data: bytes) -> None:
        self.kind = kind
        self.data = data


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def encode(value: Any) -> tuple[int, bytes]:
    if isinstance(value, Raw):
        return value.kind, value.data
    if isinstance(value, bool):
        return 7, struct.pack("<?", value)
    if isinstance(value, int):
        return (4, struct.pack("<I", value)) if 0 <= value < 2**32 else (11, struct.pack("<q", value))
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, str | bytes):
        return 8, text(value)
    items = [encode(item) for item in value]
    kind = items[0][0] if items else 8
    return 9, struct.pack("<IQ", kind, len(items)) + b"".join(data for _, data in items)


def pair(key: str | bytes, value: Any) -> bytes:
    kind, data = encode(value)
    return text(key) + struct.pack("<I", kind) + data


def size_of(dims: Sequence[int], kind: str) -> int:
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    elements = 1
    for dim in dims:
        elements *= dim
    return elements // block * size


def build(
    values: Mapping[str, Any] | Sequence[tuple[str | bytes, Any]],
    tensors: Sequence[TensorSpec] = (),
    version: int = 3,
) -> tuple[bytes, int]:
    """A header, and the required size of its file."""
    pairs = list(values.items()) if isinstance(values, Mapping) else list(values)
    parts = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(pairs))]
    parts += [pair(key, value) for key, value in pairs]
    offset = end = 0
    for name, dims, kind in tensors:
        number = int(gguf.GGMLQuantizationType[kind])
        parts.append(text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, number, offset))
        end = offset + size_of(dims, kind)
        offset = (end + 31) // 32 * 32
    raw = b"".join(parts)
    return raw, (len(raw) + 31) // 32 * 32 + end if tensors else len(raw)


def write(path: Path, values: Any, tensors: Sequence[TensorSpec] = (), version: int = 3) -> Path:
    """A file with such a header and zeros as tensors."""
    raw, size = build(values, tensors, version)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(raw)
        file.truncate(size)
    return path


def llama_values(arch: str = "llama", **more: Any) -> dict[str, Any]:
    return {
        "general.architecture": arch,
        "general.file_type": 15,
        f"{arch}.block_count": 2,
        f"{arch}.context_length": 4096,
        f"{arch}.embedding_length": 256,
        f"{arch}.feed_forward_length": 512,
        f"{arch}.attention.head_count": 4,
        f"{arch}.attention.head_count_kv": 2,
        "tokenizer.ggml.tokens": ["<s>", "hello", "", "x" * 300, "world"],
        "tokenizer.chat_template": "{{ messages }}",
        **{key.replace("__", "."): value for key, value in more.items()},
    }


def llama_tensors(tied: bool = False) -> list[TensorSpec]:
    found: list[TensorSpec] = [
        ("token_embd.weight", (256, 1000), "Q4_K"),
        ("output_norm.weight", (256,), "F32"),
    ]
    if not tied:
        found.append(("output.weight", (256, 1000), "Q6_K"))
    for block in ("blk.0.", "blk.1."):
        found += [
            (block + "attn_norm.weight", (256,), "F32"),
            (block + "attn_q.weight", (256, 256), "Q4_K"),
            (block + "attn_k.weight", (256, 128), "Q4_K"),
            (block + "attn_v.weight", (256, 128), "Q4_K"),
            (block + "attn_output.weight", (256, 256), "Q4_K"),
            (block + "ffn_norm.weight", (256,), "F32"),
            (block + "ffn_gate.weight", (256, 512), "Q4_K"),
            (block + "ffn_up.weight", (256, 512), "Q4_K"),
            (block + "ffn_down.weight", (512, 256), "Q4_K"),
        ]
    return found


def write_llama(path: Path, **more: Any) -> Path:
    """A small llama that passes every check."""
    return write(path, llama_values(**more), llama_tensors())


def write_shards(folder: Path, name: str = "big-Q8_0", per_shard: int = 3) -> list[Path]:
    """A llama in shards, written by the library that real converters use."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(folder / f"{name}.gguf", "llama", split_max_tensors=per_shard)
    writer.add_block_count(2)
    writer.add_context_length(2048)
    writer.add_embedding_length(64)
    writer.add_head_count(4)
    writer.add_file_type(7)
    rng = np.random.default_rng(7)
    for tensor in (
        "token_embd",
        "output",
        "output_norm",
        "blk.0.attn_q",
        "blk.0.attn_k",
        "blk.1.attn_q",
        "x",
    ):
        data = rng.standard_normal((64, 64)).astype(np.float32)
        writer.add_tensor(f"{tensor}.weight", data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob(f"{name}-*.gguf"))


@pytest.fixture(scope="session")
def kit() -> SimpleNamespace:
    functions: list[Callable[..., Any]] = [
        text,
        encode,
        pair,
        build,
        size_of,
        write,
        write_llama,
        write_shards,
        llama_values,
        llama_tensors,
        Raw,
    ]
    return SimpleNamespace(**{function.__name__: function for function in functions})


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's folders belong to the user who runs it."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def without_privileges() -> Callable[[], AbstractContextManager[None]]:
    """A context in which root becomes an ordinary user, so that permissions apply."""

    @contextmanager
    def ordinary() -> Iterator[None]:
        is_root = os.geteuid() == 0
        try:
            if is_root:
                os.seteuid(65534)
            yield
        finally:
            if is_root:
                os.seteuid(0)

    return ordinary
