"""Decide which kind of model a GGUF is, or give the reason why it cannot be benchmarked in one sentence."""

from __future__ import annotations

from ggufbench.discovery.header import Header, Tensor
from ggufbench.discovery.model import ModelKind
from ggufbench.errors import GgufbenchError
from ggufbench.text import printable

BLOCKS_CAP = 4096
"""Maximum number of layers; llama.cpp itself stops at 512."""
_POOLINGS = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank", 2**32 - 1: "none"}
"""`enum llama_pooling_type` of llama.h; the last one is -1, for not specified."""

_TYPES = {
    "adapter": "a LoRA adapter: it changes another model and cannot run alone",
    "imatrix": "an importance matrix: it guides a quantization and cannot run",
    "mmproj": "a multimodal projector (mmproj): the vision or audio part of another model",
    "controlvector": "a control vector: it steers another model and cannot run alone",
}
_DIFFUSION = "a diffusion model: it does not generate token by token"
_SPEECH = "a speech model: it produces sound, not text"
_DRAFT = "a draft model for speculative decoding: it cannot run without the model it was made for"
_ARCHITECTURES = {
    "clip": _TYPES["mmproj"],
    "controlvector": _TYPES["controlvector"],
    **dict.fromkeys(["dream", "llada", "llada-moe", "rnd1", "diffusion-gemma"], _DIFFUSION),
    **dict.fromkeys(["wavtokenizer-dec", "qwen3tts", "pockettts"], _SPEECH),
    **dict.fromkeys(["eagle3", "dflash", "gemma4-assistant"], _DRAFT),
}

UNCACHED = frozenset(
    {
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
    }
)
"""Encoders without a KV cache in llama.cpp (`llama_model::create_memory`)."""
_ENCODERS = UNCACHED | {"llama-embed", "t5encoder"}


class RefusedError(GgufbenchError):
    """The file is a valid GGUF that cannot be benchmarked. The message is one sentence."""


def block_of(name: str) -> int | None:
    """Layer of a tensor; None if it is outside all layers."""
    parts = name.split(".", 2)
    if len(parts) < 2 or parts[0] != "blk" or not parts[1].isdecimal() or len(parts[1]) > 6:
        return None
    return int(parts[1])


def architecture_of(header: Header) -> str:
    """Name of the architecture. Raises RefusedError or HeaderError if this kind is not a language model.

    Takes the header of a whole file or of the first shard; numbers are checked later.
    """
    _refuse_by_type(header)
    architecture = header.text("general.architecture")
    if not architecture:
        raise RefusedError(_without_architecture(header))
    if architecture in _ARCHITECTURES:
        raise RefusedError(_ARCHITECTURES[architecture])
    if any(key.startswith("adapter.") for key in header.values):
        raise RefusedError(_TYPES["adapter"])
    return architecture


def pooling_of(header: Header, architecture: str) -> str:
    """The pooling that the file states; `none` without one. Raises RefusedError for an unknown one."""
    key = f"{architecture}.pooling_type"
    stated = header.whole(key) or 0
    if stated not in _POOLINGS:
        raise RefusedError(f"the key {printable(key)} is {stated}, and llama.cpp knows 0 to 4")
    return _POOLINGS[stated]


def kind_of(header: Header, architecture: str) -> ModelKind:
    """Kind of the model, which decides its workload. Raises RefusedError for an unknown pooling."""
    if architecture == "t5":
        return "encoder-decoder"
    pooling = pooling_of(header, architecture)
    if pooling == "rank":
        return "reranker"
    is_causal = header.flag(f"{architecture}.attention.causal") is not False
    if pooling != "none" or architecture in _ENCODERS or not is_causal:
        return "embedding"
    return "generator"


def _refuse_by_type(header: Header) -> None:
    if header.whole("split.no"):
        number, count = header.whole("split.no"), header.whole("split.count")
        raise RefusedError(
            f"part {(number or 0) + 1} of {count or '?'} of a model: a model is loaded by its first part"
        )
    kind = header.text("general.type")
    if kind in _TYPES:
        raise RefusedError(_TYPES[kind])


def _without_architecture(header: Header) -> str:
    prefixes = {key.partition(".")[0] for key in header.values}
    for kind in ("imatrix", "controlvector", "adapter"):
        if kind in prefixes:
            return _TYPES[kind]
    return "the key general.architecture is missing"


def required(header: Header, architecture: str, name: str, most: int) -> int:
    """A required number from 1 to `most`. Raises RefusedError if it is missing or 0."""
    key = f"{architecture}.{name}"
    value = header.whole(key, most)
    if value is None:
        raise RefusedError(f"the key {printable(key)} is missing")
    if value == 0:
        raise RefusedError(f"the key {printable(key)} is 0")
    return value


def refuse_without_trunk(tensors: tuple[Tensor, ...], trunk_layers: int) -> None:
    """Raise RefusedError for a file without weights, or with weights of prediction heads only.

    `trunk_layers` is the number of layers that run for every token, without draft layers.
    """
    if not tensors:
        raise RefusedError("only a vocabulary: the file has no tensors")
    blocks = {block for t in tensors if (block := block_of(t.name)) is not None}
    if blocks and min(blocks) >= trunk_layers:
        raise RefusedError(_DRAFT)
