"""Read the shape and the files of a safetensors checkpoint, without its weights.

Only checkpoints that transformers can load without running or unpickling code count: `config.json` with
either `model.safetensors` or all shards named in `model.safetensors.index.json`, as `from_pretrained` looks
for them. PyTorch files (`*.bin`, `*.pt`) are pickles and are ignored; an adapter is not a checkpoint.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from ggufbench.discovery.header import HeaderError, open_regular

CONFIG_CAP = 1 << 20
"""Maximum bytes of `config.json`; those of real models have a few KiB."""
INDEX_CAP = 32 << 20
"""Maximum bytes of an index; that of a mixture with 384 experts in 61 layers has half of it."""
SHARDS_CAP = 1024
_HEADER_CAP = 100_000_000  # of a safetensors file; the library itself rejects longer headers
_SHARD_NAME = re.compile(r"\w[\w.-]{0,200}\.safetensors", re.ASCII)

# Configuration keys for the length of a token's vector, and for the number of layers.
_WIDTHS = ("hidden_size", "n_embd", "d_model")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")

# `model_type` of a configuration -> architecture name in llama.cpp's converter, if they differ by more than
# `_` and `-`.
_RENAMED: dict[str, tuple[str, ...]] = {
    "cohere": ("command-r",),
    "deepseek_v2": ("deepseek2",),
    "deepseek_v3": ("deepseek2",),
    "glm": ("chatglm", "glm4"),
    "gpt_neox": ("gptneox",),
    "gpt_bigcode": ("starcoder",),
    "granitemoehybrid": ("granitehybrid",),
    "idefics3": ("llama",),
    "kimi_k2": ("deepseek2",),
    "llava": ("llama",),
    "ministral3": ("mistral3",),
    "mistral": ("llama",),
    "mistral3": ("mistral3", "llama"),
    "mixtral": ("llama",),
    "phi": ("phi2",),
    "qwen2_5_vl": ("qwen2vl",),
    "qwen3_5": ("qwen35",),
    "qwen3_5_moe": ("qwen35moe",),
    "smolvlm": ("llama",),
}
_SAME = frozenset({
    "apertus", "arcee", "bloom", "cohere2", "dbrx", "deepseek", "dots1", "ernie45", "ernie45moe", "exaone",
    "exaone4", "falcon", "falconh1", "gemma", "gemma2", "gemma3", "gemma3n", "gemma4", "glm4", "glm4moe",
    "gpt2", "gptj", "gptoss", "granite", "granitemoe", "grok", "internlm2", "jamba", "lfm2", "lfm2moe",
    "llama", "llama4", "mamba", "mamba2", "minicpm", "minicpm3", "mpt", "nemotron", "nemotronh", "olmo",
    "olmo2", "olmoe", "openelm", "phi3", "phimoe", "qwen", "qwen2", "qwen2moe", "qwen2vl", "qwen3",
    "qwen3moe", "qwen3next", "qwen3vl", "qwen3vlmoe", "seedoss", "smollm3", "stablelm", "starcoder2",
})  # fmt: skip
"""Names that are the same in both."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint folder that transformers can load."""

    folder: Path
    files: tuple[Path, ...]
    """Its safetensors files, by their paths in the folder."""
    file_size_bytes: int
    """Total size of the files."""
    model_types: tuple[str, ...]
    """`model_type` of the configuration and of its language part; empty if neither is stated."""
    width: int
    """Length of a token's vector."""
    layers: int


def read_checkpoint(folder: Path, stores: Sequence[Path] | None = None) -> Checkpoint | None:
    """The checkpoint in a folder, or None if it has no loadable one.

    With `stores`, every file must lie in the folder itself or, if it is a link, in one of these; without, a
    link may point to any regular file. `folder` and `stores` have every link resolved.
    """
    try:
        if os.path.lexists(folder / "adapter_config.json"):
            return None  # transformers would load the model that it names
        config = _read_object(folder / "config.json", CONFIG_CAP, stores)
        language = config.get("text_config")
        parts = [config, language] if isinstance(language, dict) else [config]
        width, layers = _number(parts, _WIDTHS), _number(parts, _LAYERS)
        if not width or not layers:
            return None
        files = tuple(folder / name for name in _weight_names(folder, stores))
        size = sum(_weight_bytes(path, stores) for path in files)
    except (OSError, ValueError, RuntimeError):  # including HeaderError, RecursionError and link cycles
        return None
    types = tuple(kind for part in parts if isinstance(kind := part.get("model_type"), str) and kind)
    return Checkpoint(folder, files, size, types, width, layers)


def compatible(model_types: Sequence[str], architecture: str) -> bool:
    """True if a GGUF of this architecture can have been made from a model of one of these types.

    Unknown types are compatible: new architectures appear every month.
    """
    known = False
    for kind in model_types:
        plain = _plain(kind.removesuffix("_text"))
        renamed = _RENAMED.get(kind, ())
        if plain == _plain(architecture) or architecture in renamed:
            return True
        known = known or bool(renamed) or plain in _SAME
    return not (known and _is_known(architecture))


def _is_known(architecture: str) -> bool:
    return _plain(architecture) in _SAME or any(architecture in names for names in _RENAMED.values())


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _number(parts: Sequence[dict[str, Any]], keys: Sequence[str]) -> int | None:
    for part in parts:
        for key in keys:
            value = part.get(key)
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 32:
                return value
    return None


def _weight_names(folder: Path, stores: Sequence[Path] | None) -> list[str]:
    if os.path.lexists(folder / "model.safetensors"):
        return ["model.safetensors"]
    shards = _read_object(folder / "model.safetensors.index.json", INDEX_CAP, stores).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ValueError("the index does not name shards")
    names = set(shards.values()) if all(isinstance(name, str) for name in shards.values()) else set()
    # A name becomes a path, so only plain file names are allowed.
    if not 0 < len(names) <= SHARDS_CAP or not all(_SHARD_NAME.fullmatch(name) for name in names):
        raise ValueError("the index names files that are not shards")
    return sorted(names)


def _weight_bytes(path: Path, stores: Sequence[Path] | None) -> int:
    """Size of a safetensors file. Raises ValueError for anything else, such as a git-lfs pointer."""
    file, size = _open(path, stores)
    with file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if start[8:] != b"{" or not 2 <= length <= min(_HEADER_CAP, size - 8):
        raise ValueError("this is not a safetensors file")
    return size


def _read_object(path: Path, most: int, stores: Sequence[Path] | None) -> dict[str, Any]:
    file, size = _open(path, stores)
    with file:
        value = json.loads(file.read(most).decode()) if size <= most else None
    if not isinstance(value, dict):
        raise ValueError("the file is too large, or does not contain an object")  # noqa: TRY004 (as json does)
    return value


def _open(path: Path, stores: Sequence[Path] | None) -> tuple[FileIO, int]:
    """Open a file: the file and its size. Raises OSError or HeaderError if it must not be read."""
    target = path.resolve(strict=True)
    if stores is not None and not any(target.is_relative_to(place) for place in (path.parent, *stores)):
        raise HeaderError("the link points outside the cache")
    return open_regular(target)
