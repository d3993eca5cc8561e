"""Results of discovery: models that can be measured, and rejected files with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ggufbench.discovery.tables import bytes_per_element

_CELLS = 256
"""Block size of llama.cpp's KV cache, in tokens."""


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
    """Name for people: from the file name, with an addition in brackets if other models have the same one."""
    path: Path
    """The file to load, every link resolved; the first of several shards, which keeps its numbered name."""
    shards: tuple[Path, ...]
    source: str
    """Place of discovery: `huggingface`, `lmstudio`, `ollama`, `llama.cpp`, `jan`, `gpt4all` or `path`."""
    repository: str | None
    """`owner/name`, if the source knows it."""
    architecture: str
    quantization: str
    """Common name (`Q4_K_M`, `UD-Q4_K_XL`), from the header, or more precisely from the file name."""
    stated_quantization: str
    """Quantization by the header alone."""
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
    learned_positions: int
    """Rows of the table of learned positions, as in GPT-2: the longest possible context; 0 without one."""
    chat_template: bool
    synthetic: bool
    """True if made by `ggufbench synth`: random weights, so only its speed and size are meaningful."""
    identity: str
    """Hash of header, size and sampled blocks: the same for copies, different after any re-quantization."""
    file_title: str
    """File name without directory, suffix, shard number and quantization; independent of other files.

    For a model of Ollama, whose tags may change, the title in the header.
    """
    title: str
    """`general.name` of the header; empty if it is missing."""
    original: OriginalCheckpoint | None = None
    """Original checkpoint; None if it is not on this machine."""
    kind: ModelKind = "generator"
    pooling: str = "none"
    """How the file makes one vector from those of all tokens: `none`, `mean`, `cls`, `last` or `rank`."""
    aliases: tuple[str, ...] = ()
    """Other names of the same content: tags of Ollama, file names of links and of copies."""

    @property
    def label(self) -> str:
        """Name and quantization, as in tables: `qwen3-8b-Q4_K_M`."""
        return f"{self.name}-{self.quantization}"

    def is_called(self, name: str) -> bool:
        """True if this is the name, the label, the repository or an alias; case is ignored."""
        own = (self.name, self.label, self.file_title, self.repository or "", *self.aliases)
        return name.casefold() in {text.casefold() for text in own if text}

    def bounded_context(self, n_ctx: int) -> int:
        """`n_ctx`, but at most the number of learned positions.

        llama.cpp aborts the process at a position beyond the table, and does not limit the context itself.
        """
        return min(n_ctx, self.learned_positions or n_ctx)

    def cache_bytes(self, n_ctx: int, n_ubatch: int, type_k: str, type_v: str) -> int:
        """Bytes of the KV cache: sliding-window layers keep the window and a ubatch, the others n_ctx tokens.

        As llama.cpp does: whole blocks of 256 cells.
        """
        k, v = bytes_per_element(type_k), bytes_per_element(type_v)
        cells = _round_up(n_ctx, _CELLS)
        window = _round_up(min(cells, self.sliding_window + n_ubatch), _CELLS)
        full = (self.kv.full_k * k + self.kv.full_v * v) * cells
        sliding = (self.kv.sliding_k * k + self.kv.sliding_v * v) * window
        return round(full + sliding)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


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
