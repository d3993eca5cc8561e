"""Results of discovery: models that can be measured, and rejected files with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class KvShape:
    """Elements of the KV cache that one token adds, summed over the layers of each kind.

    Multiply by the bytes per element of `type_k` and `type_v`. Layers with a sliding window keep at most
    `sliding_window` tokens; the others keep every token of the context.
    """

    full_k: int
    full_v: int
    sliding_k: int
    sliding_v: int


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Query heads x (length of a key + length of a value), summed over the layers of each kind.

    Twice that, times the tokens that a query attends to, is the number of floating-point operations of one
    token's attention. Layers with a sliding window attend to at most `sliding_window` tokens.
    """

    full: int
    sliding: int


ModelKind = Literal["generator", "embedding", "reranker", "encoder-decoder"]
"""Result of a model: more text, a vector, a score of a pair, or a text that follows an encoded one."""

KIND_NAMES: dict[ModelKind, str] = {
    "generator": "a model that generates text",
    "embedding": "an embedding model",
    "reranker": "a reranker",
    "encoder-decoder": "an encoder-decoder model",
}
"""Each kind as the user reads it."""


@dataclass(frozen=True, slots=True)
class OriginalCheckpoint:
    """The safetensors checkpoint that a GGUF was made from."""

    repository: str | None
    """`owner/name`, if the source knows it."""
    path: Path
    """Its folder with config.json, every link resolved: the same for all quantizations made from it."""
    files: tuple[Path, ...]
    """Its safetensors files."""
    file_size_bytes: int
    """Total size of the files."""


@dataclass(frozen=True, slots=True)
class Model:
    """A GGUF that can be benchmarked, with the facts of its header."""

    name: str
    """File name without directory, suffix, shard number and quantization."""
    path: Path
    """The file to load, every link resolved; the first of several shards, which keeps its numbered name."""
    shards: tuple[Path, ...]
    source: str
    """Place of discovery: `huggingface`, `lmstudio`, `ollama`, `llama.cpp`, `jan`, `gpt4all` or `path`."""
    repository: str | None
    """`owner/name`, if the source knows it."""
    architecture: str
    quantization: str
    """Common name (`Q4_K_M`, `IQ4_NL`, `MXFP4`), from `general.file_type` and the tensor types."""
    parameters: int
    file_size_bytes: int
    """Total size of all shards."""
    tensor_bytes: int
    decode_bytes_per_token: int
    """Weight bytes read to decode one token: all of a dense model, the used experts of a mixture."""
    prompt_parameters: int
    """Weights by which every prompt token is multiplied (see `discovery.facts`)."""
    repack_bytes: int
    """Bytes of matrices whose type llama.cpp may copy and reorder for the CPU (see `discovery.facts`)."""
    trained_context: int
    layers: int
    experts: int
    experts_used: int
    sliding_window: int
    """Window in tokens; 0 if every layer has full attention."""
    vocabulary: int
    kv: KvShape
    attention: AttentionShape
    chat_template: bool
    synthetic: bool
    """True if made by `ggufbench synth`: random weights, so only its speed and size are meaningful."""
    identity: str
    """Hash of header, size and sampled blocks: the same for copies, different after any re-quantization."""
    original: OriginalCheckpoint | None = None
    """Original checkpoint; None if it is not on this machine."""
    kind: ModelKind = "generator"
    pooling: str = "none"
    """How the file makes one vector from those of all tokens: `none`, `mean`, `cls`, `last` or `rank`."""

    @property
    def label(self) -> str:
        """Name and quantization, as in tables and case ids: `qwen3-8b-Q4_K_M`."""
        return f"{self.name}-{self.quantization}"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file that looks like a model but cannot be benchmarked."""

    path: Path
    source: str
    file_size_bytes: int
    reason: str
    """One sentence for the user: `only a vocabulary: the file has no tensors`."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """Everything found on this machine, in a stable order (by name, quantization, path)."""

    models: tuple[Model, ...]
    rejected: tuple[Rejected, ...]
