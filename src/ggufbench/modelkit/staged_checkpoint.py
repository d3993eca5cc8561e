"""Copy of a checkpoint for the converter: weights, configuration and tokenizer, but no code.

The converter loads tokenizers with `trust_remote_code=True`: code named by `auto_map` in a configuration
would run, from a file beside it or from a repository in the cache. So the converter gets a separate folder
with links to the safetensors files and copies of the few others that it reads, without `auto_map` and `.py`
files. A part of a model may have a folder of its own, such as `1_Pooling` of an embedding model: the
converter reads its `config.json`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggufbench.discovery.checkpoints import Checkpoint, read_checkpoint
from ggufbench.discovery.names import clean
from ggufbench.modelkit.spec import ModelError
from ggufbench.paths import expanded, open_regular, read_regular

_COPIED = re.compile(
    r"[\w-][\w.-]{0,200}\.(?:json|jinja|txt|model|tiktoken)|README\.md", re.ASCII | re.IGNORECASE
)
_PART = re.compile(r"\w[\w.-]{0,200}", re.ASCII)
_INDEX = "model.safetensors.index.json"
_FILE_CAP = 512 << 20
"""Maximum bytes of one copied file; the largest `tokenizer.json` files have a tenth of it."""
_DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_TYPE_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32}


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint that can be converted."""

    checkpoint: Checkpoint
    name: str
    """Name of the model: that of the repository or the folder."""
    stored_dtype: str
    """Type of its first matrix, as safetensors writes it: `BF16`."""
    multimodal: bool
    """True if it has a vision or audio part besides the language model."""

    def automatic_type(self) -> str:
        """The 16-bit type that loses the least precision."""
        return "bf16" if self.stored_dtype == "BF16" else "f16"

    def estimated_bytes(self, kind: str) -> int:
        """Estimated size of the GGUF; stored types may differ from tensor to tensor."""
        per_weight = _DTYPE_BYTES.get(self.stored_dtype, 1)
        return int(self.checkpoint.file_size_bytes * _TYPE_BYTES[kind] / per_weight)


def find_source(text: str) -> Source:
    """The checkpoint in a folder, or of `owner/name` in the Hugging Face cache. Raises `ModelError`."""
    path = expanded(text)
    if path.is_dir():
        folder = path.resolve()
        return _read(folder, None, clean(folder.name), text)
    if path.exists():
        raise ModelError(
            f"{text} is a file; name the folder that contains config.json and the safetensors files."
        )
    return _in_cache(text)


def _in_cache(text: str) -> Source:
    from ggufbench.discovery import hub

    cache = hub.hub_cache()
    if text.count("/") != 1 or not hub.is_repository_name(text):
        raise ModelError(
            f"The folder {text} does not exist; name a folder, or owner/name in the Hugging Face cache."
        )
    found = hub.named(hub.repositories(cache), text)
    if not found:
        raise ModelError(
            f"{text} is neither a folder nor a repository in the Hugging Face cache {cache}; download it "
            f"with `hf download {text}`."
        )
    revisions = hub.snapshots(found[0])
    if not revisions:
        raise ModelError(f"{text} in {cache} has no files; download it again with `hf download {text}`.")
    return _read(revisions[0], found[0].stores, clean(found[0].name.rpartition("/")[2]), text)


def _read(folder: Path, stores: Sequence[Path] | None, name: str, text: str) -> Source:
    checkpoint = read_checkpoint(folder, stores)
    if checkpoint is None:
        raise ModelError(f"{text} cannot be converted: {_why_not(folder)}.")
    config = _object(folder / "config.json")
    multimodal = any(key in config for key in ("vision_config", "audio_config", "vision_tower"))
    return Source(checkpoint, name, _stored_dtype(checkpoint), multimodal)


def _why_not(folder: Path) -> str:
    names = {entry.name for entry in folder.iterdir()}
    if "adapter_config.json" in names:
        return "it is an adapter for another model; merge it into that model first"
    if not any(name.endswith(".safetensors") for name in names):
        if any(name.endswith((".bin", ".pt", ".pth")) for name in names):
            return (
                "its weights are PyTorch files, which can contain code; only safetensors are read, so save "
                "it again with save_pretrained"
            )
        gguf = any(name.endswith(".gguf") for name in names)
        return "it already contains GGUF files" if gguf else "it contains no safetensors files"
    if "config.json" not in names:
        return "config.json is missing"
    return "its config.json lacks the shape, or safetensors files are missing or broken"


def _stored_dtype(checkpoint: Checkpoint) -> str:
    """Type of the first matrix in name order; the converter uses the same one."""
    with open_regular(checkpoint.files[0]) as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    for name in sorted(header):
        entry = header[name]
        if isinstance(entry, dict) and len(entry.get("shape", ())) > 1:
            return str(entry.get("dtype"))
    return "F32"


def stage(source: Source, folder: Path) -> Path:
    """Create the copy in a new folder below `folder`, named like the model. Raises `ModelError`."""
    staged = folder / source.name
    staged.mkdir()
    origin = source.checkpoint.folder
    for file in source.checkpoint.files:
        (staged / file.name).symlink_to(file.resolve())
    for entry in sorted(origin.iterdir()):
        wanted = _COPIED.fullmatch(entry.name) and (entry.name != _INDEX or len(source.checkpoint.files) > 1)
        if wanted and entry.is_file():
            _copy(entry, staged / entry.name)
        elif _PART.fullmatch(entry.name) and (entry / "config.json").is_file():
            (staged / entry.name).mkdir()
            _copy(entry / "config.json", staged / entry.name / "config.json")
    return staged


def _copy(file: Path, target: Path) -> None:
    if file.stat().st_size > _FILE_CAP:
        raise ModelError(
            f"{file} is larger than {_FILE_CAP >> 20} MiB, too large for a tokenizer or configuration."
        )
    if not file.name.lower().endswith("config.json"):
        shutil.copyfile(file, target)
        return
    target.write_text(json.dumps(_without_code(_object(file))), encoding="utf-8")


def _without_code(value: Any) -> Any:
    """The same value without any `auto_map`, which names classes in the checkpoint's code."""
    if isinstance(value, dict):
        return {key: _without_code(part) for key, part in value.items() if key != "auto_map"}
    return [_without_code(part) for part in value] if isinstance(value, list) else value


def _object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_regular(file, _FILE_CAP).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} cannot be read: {error}.") from None
    if not isinstance(value, dict):
        raise ModelError(f"{file} cannot be read: it does not contain a JSON object.")
    return value
