"""Make the models of the example report in a hub cache: GGUFs, and the original checkpoints for transformers.

python tools/example_models.py FOLDER

The weights are random, and the same in every file of a model. The cache has the layout of huggingface_hub
(blobs, snapshots, links), so that `HF_HUB_CACHE=FOLDER pytest bench --benchmark-only` finds all of it.
"""

import hashlib
import os
import sys
import tempfile
from pathlib import Path

from ggufbench.modelkit import SynthSpec, synthesize
from ggufbench.modelkit.spec import parse_size

OWNER = "example"
REVISION = "0" * 40
MODELS = (
    ("llama-1.1b", "llama", "1.1B", ("Q8_0", "Q4_K_M", "IQ4_NL")),
    ("qwen3-60m", "qwen3", "60M", ("Q8_0",)),
    ("gpt-oss-100m", "gpt-oss", "100M", ("MXFP4",)),
    ("qwen3-30m", "qwen3", "30M", ("Q8_0",)),
)


def main(folder: Path) -> None:
    """Make the files that are missing."""
    for name, architecture, size, quantizations in MODELS:
        repository = folder / f"models--{OWNER}--{name}-GGUF"
        for quantization in quantizations:
            spec = SynthSpec(architecture, parse_size(size), quantization, context=8192)
            _add(repository, f"{name}-{quantization}.gguf", lambda path, spec=spec: synthesize(path, spec))
        first = repository / "snapshots" / REVISION / f"{name}-{quantizations[0]}.gguf"
        _original(folder / f"models--{OWNER}--{name}", first, architecture)


def _original(repository: Path, gguf: Path, architecture: str) -> None:
    """Write the same weights as bfloat16 safetensors."""
    if (repository / "snapshots" / REVISION / "config.json").exists():
        return
    import torch
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory(dir=repository.parent) as scratch:
        source = gguf
        if architecture == "gpt-oss":
            source = Path(scratch) / "plain.gguf"
            _without_scaling(gguf, source)
        model = AutoModelForCausalLM.from_pretrained(
            str(source.parent), gguf_file=source.name, dtype=torch.bfloat16
        )
        saved = Path(scratch) / "saved"
        del model.config.quantization_config  # describes the GGUF, not the saved weights
        plain = AutoModelForCausalLM.from_config(model.config, dtype=torch.bfloat16)
        plain.load_state_dict(model.state_dict())
        plain.save_pretrained(saved)
        for path in sorted(saved.iterdir()):
            _add(repository, path.name, lambda target, path=path: path.replace(target))


def _without_scaling(source: Path, target: Path) -> None:
    """Write a copy without the keys of rope scaling, on which transformers 5.24 fails."""
    import gguf

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "gpt-oss")
    for field in reader.fields.values():
        if (
            field.name.startswith("GGUF.")
            or field.name == "general.architecture"
            or ".rope.scaling." in field.name
        ):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(repository: Path, name: str, make) -> None:
    """Add a file to the repository: a blob, and a link to it in the snapshot."""
    link = repository / "snapshots" / REVISION / name
    if link.exists():
        return
    print(f"making {repository.name}/{name}")
    for part in ("blobs", "refs", f"snapshots/{REVISION}"):
        (repository / part).mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(REVISION)
    new = repository / "blobs" / f"new-{name}"
    make(new)
    with new.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    new.replace(repository / "blobs" / digest)
    link.symlink_to(os.path.relpath(repository / "blobs" / digest, link.parent))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
