"""Refuse a checkpoint that would make transformers load a pickle or run code that is not installed.

With `use_safetensors=True` and `trust_remote_code=False`, these cases remain (transformers 5.24):

- an index may name any file in any folder, and a name without `.safetensors` at its end goes to `torch.load`;
- so does `adapter_model.bin`, if `transformers_weights` in `config.json` names it;
- an attention named like a repository is compiled code from the hub or its cache, and one that is not
  installed is replaced by such code if the package `kernels` is installed; `USE_HUB_KERNELS=0` is ignored;
- with the package `peft`, an adapter next to the weights is loaded too, or refers to another model.

Code that `auto_map` names does not run without `trust_remote_code`.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CONFIG_BYTES = 1 << 20
_INDEX_BYTES = 32 << 20
_SHARD_NAME = re.compile(r"\w[\w.-]{0,200}\.safetensors", re.ASCII)
_INSTALLED_ATTENTION = frozenset({None, "eager", "sdpa", "flex_attention"})


def adapter_refusal(folder: Path) -> str | None:
    """Why a folder with an adapter is not loaded, in one sentence; None without an adapter."""
    if os.path.lexists(folder / "adapter_config.json"):
        return (
            "adapter_config.json next to the weights refers to other weights; move it away to measure these"
        )
    return None


def checkpoint_refusal(folder: Path) -> str | None:
    """Why a safetensors checkpoint is not loaded, in one sentence; None if it may be."""
    if refusal := adapter_refusal(folder):
        return refusal
    config = _read_object(folder / "config.json", _CONFIG_BYTES)
    if config is None:
        return f"config.json is missing, broken or longer than {_CONFIG_BYTES >> 20} MiB"
    for part in _parts(config):
        if "transformers_weights" in part:
            return "config.json names its weights with transformers_weights, which may be a pickle"
        for key, value in part.items():
            if key.lstrip("_").startswith("attn_implementation") and not _is_installed(value):
                return f"config.json requests the attention {value!r:.60}, which may be foreign code"
    return _weights_refusal(folder)


def _weights_refusal(folder: Path) -> str | None:
    if (folder / "model.safetensors").is_file():
        return None
    index = _read_object(folder / "model.safetensors.index.json", _INDEX_BYTES)
    if index is None:
        return "there is neither model.safetensors nor a readable model.safetensors.index.json"
    shards = index.get("weight_map")
    for name in shards.values() if isinstance(shards, dict) else [None]:
        if not isinstance(name, str) or not _SHARD_NAME.fullmatch(name):
            return f"model.safetensors.index.json names {name!r:.60}, which is not a safetensors file here"
    return None


def _is_installed(value: Any) -> bool:
    values = value.values() if isinstance(value, dict) else [value]
    return all(kind is None or (isinstance(kind, str) and kind in _INSTALLED_ATTENTION) for kind in values)


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The configuration and its nested ones, such as that of the language part."""
    waiting: list[Any] = [config]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _read_object(path: Path, most: int) -> dict[str, Any] | None:
    try:
        if not path.is_file():  # opening a pipe would block
            return None
        with path.open("rb") as file:
            data = file.read(most + 1)
        value = json.loads(data.decode()) if len(data) <= most else None
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
