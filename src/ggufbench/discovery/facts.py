"""Facts of a model from its headers: its kind, its size, and the bytes read per token.

Some figures are estimates by rule, because the exact ones depend on the machine:

`repack_bytes` counts the matrices of type Q4_0, Q4_K, IQ4_NL and MXFP4 with a row count divisible by 8, which
llama.cpp copies into another layout on x86 with AVX2 and, mostly, on Arm. It excludes embedding tables. More
types are copied on some processors (Q2_K with AVX-512; Q5_K, Q6_K and Q8_0 on Arm), and nothing if the
weights are on a GPU.

`kv` counts attention caches only: the state of recurrent layers does not grow. With multi-head latent
attention (MLA) the cache holds one compressed row per token, which serves as key and value: `key_length`
elements (or `kv_lora_rank` plus the rotary ones if that is missing) and no values.

`prompt_parameters` counts the elements of matrices: only the used experts of a layer, no lookup tables, and
not the output matrix, because only the last token of a batch needs logits. For the same reason llama.cpp
drops all other tokens before the feed-forward part of the last layer, so that part is excluded as well,
except in architectures that keep them until the end (such as gpt-oss) and in models whose vectors need every
token. The heads of an embedding model and of a reranker run once for each sequence and do not count.

An encoder-decoder model reads a prompt with its encoder (`enc.`), and decodes with the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ggufbench.discovery import classify, names
from ggufbench.discovery.header import Header, HeaderError, Tensor
from ggufbench.discovery.model import AttentionShape, KvShape, Model, ModelKind
from ggufbench.discovery.shards import Files, identity
from ggufbench.discovery.tables import FILE_TYPE_GUESSED, FILE_TYPES

_REPACKED_TYPES = frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"})
_TABLES = frozenset({"token_embd.weight", "per_layer_token_embd.weight"})
_POSITIONS = "position_embd.weight"
_ONE_ROW = frozenset({"per_layer_token_embd.weight", _POSITIONS, "token_types.weight"})
_NOT_MULTIPLIED = _TABLES | _ONE_ROW | {"output.weight"}
_ENCODER_PREFIXES = ("v.", "a.", "mm.")
_ONCE_FOR_A_SEQUENCE = ("cls.", "dense_2.", "dense_3.")
_EXPERT = re.compile(r"_exps\.|\.ffn_(?:gate|up|down)\.\d+\.")
# Architectures whose last layer runs for every token of a prompt.
_KEEPS_EVERY_TOKEN = frozenset(
    {
        "bailingmoe3",
        "cohere2moe",
        "gemma4",
        "gpt-oss",
        "hy_v3",
        "nemotron_h",
        "qwen35",
        "qwen35moe",
        "qwen3next",
        "step35",
    }
)
_TYPES_BY_NAME = dict(FILE_TYPES.values())
_RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})

# Architecture -> (period, True if the full layer is the first of a period; otherwise it is the last).
# Period 0: every layer slides. The key `attention.sliding_window_pattern` in a file takes precedence.
_SLIDING: dict[str, tuple[int, bool]] = {
    "afmoe": (4, False),
    "cohere2": (4, False),
    "cohere2moe": (4, True),
    "deepseek4": (0, False),
    "exaone-moe": (4, False),
    "exaone4": (4, False),
    "gemma2": (2, False),
    "gemma3": (6, False),
    "gemma-embedding": (6, False),
    "gemma3n": (5, False),
    "gpt-oss": (2, False),
    "laguna": (4, True),
    "llama4": (4, False),
    "mellum": (4, False),
    "modern-bert": (3, True),
    "muse-glimmer": (4, False),
    "olmo2": (4, False),
    "plamo3": (8, False),
    "smallthinker": (4, True),
}
_WINDOW_IGNORED = frozenset({"phi3"})  # llama.cpp runs it with full attention regardless of the file
_LLAMA4_CHUNK = 8192
_GEMMA3N_CACHED_LAYERS = 20
_LINEAR_BY_INTERVAL = frozenset({"qwen3next", "qwen35", "qwen35moe", "qwen4exp"})


@dataclass(frozen=True, slots=True)
class Provenance:
    """Facts about a model from the place where it was found."""

    name: str
    stem: str
    """File name without suffix: the last resort for the quantization."""
    source: str
    repository: str | None


@dataclass(frozen=True, slots=True)
class _HeaderShape:
    """Numbers of the architecture that several facts need."""

    architecture: str
    layers: int
    trunk: int
    """Number of layers that run for every token: without draft layers (NextN, MTP)."""
    experts: int
    experts_used: tuple[int, ...]
    kind: ModelKind


def describe(files: Files, found: Provenance) -> Model:
    """Facts of a model. Raises RefusedError or HeaderError if the headers are not those of a model."""
    header, tensors = files.headers[0], files.tensors
    shape = _shape(header, classify.architecture_of(header))
    classify.refuse_without_trunk(tensors, shape.trunk)
    classify.required(header, shape.architecture, "embedding_length", 2**32 - 1)
    kv, title = _kv_shape(header, shape), _title(header)
    return Model(
        name=found.name,
        path=files.paths[0],
        shards=files.paths,
        source=found.source,
        repository=found.repository,
        architecture=names.clean(shape.architecture),
        quantization=quantization(header, tensors, found.stem),
        stated_quantization=quantization(header, tensors, ""),
        parameters=sum(t.elements for t in tensors),
        file_size_bytes=sum(h.file_size_bytes for h in files.headers),
        tensor_bytes=sum(t.size_bytes for t in tensors),
        decode_bytes_per_token=_decode_bytes(tensors, shape),
        prompt_parameters=sum(_prompted(t, shape) for t in tensors),
        repack_bytes=sum(t.size_bytes for t in tensors if _is_repacked(t)),
        trained_context=classify.required(header, shape.architecture, "context_length", 2**32 - 1),
        layers=shape.layers,
        experts=shape.experts,
        experts_used=max(shape.experts_used),
        sliding_window=_window(header, shape) if kv.sliding_k else 0,
        vocabulary=header.length("tokenizer.ggml.tokens"),
        kv=KvShape(0, 0, 0, 0) if shape.architecture in classify.UNCACHED else kv,
        attention=_attention_shape(header, shape),
        learned_positions=next((t.rows for t in tensors if t.name == _POSITIONS), 0),
        chat_template=bool(header.values.get("tokenizer.chat_template")),
        synthetic=header.values.get("ggufbench.synthetic") is True,
        kind=shape.kind,
        pooling=classify.pooling_of(header, shape.architecture),
        # A tag is not used: another one may be added to the same file.
        file_title=(title if found.source == "ollama" else "") or found.name,
        title=title,
        identity=identity(files),  # last, because it takes time, and a rejected file does not need it
    )


def _title(header: Header) -> str:
    title = header.values.get("general.name")
    return names.clean(title, "") if isinstance(title, str) else ""


def _shape(header: Header, architecture: str) -> _HeaderShape:
    layers = classify.required(header, architecture, "block_count", classify.BLOCKS_CAP)
    drafting = header.whole(f"{architecture}.nextn_predict_layers") or 0
    if drafting > layers:
        raise HeaderError(f"nextn_predict_layers is {drafting}, more than the {layers} layers")
    experts = header.whole(f"{architecture}.expert_count") or 0
    used = header.per_layer(f"{architecture}.expert_used_count", layers) or (0,) * layers
    if max(used) > experts:
        raise HeaderError(f"expert_used_count is {max(used)}, more than the {experts} experts")
    kind = classify.kind_of(header, architecture)
    return _HeaderShape(architecture, layers, layers - drafting, experts, used, kind)


def quantization(header: Header, tensors: Sequence[Tensor], stem: str) -> str:
    """Quantization by its common name.

    Taken from `general.file_type` if the matrices contain one of its types (for F32: mostly), otherwise from
    the type with the most bytes in matrices, or without matrices from the file name; else `unknown`.
    A name in the file name that is more precise is used instead: publishers have names for their own
    mixtures, such as `UD-Q4_K_XL`, to which llama.cpp gives the file type of the nearest type.
    """
    sizes: dict[str, int] = {}
    for tensor in tensors:
        if tensor.rows > 1 and tensor.size_bytes:
            sizes[tensor.type.name] = sizes.get(tensor.type.name, 0) + tensor.size_bytes
    # Ties are broken by name, so that the result does not depend on the order of the tensors.
    dominant = max(sizes, key=lambda name: (sizes[name], name), default=None)
    named = names.quantization_in(stem)
    stated = _stated_type(header, sizes, dominant) or dominant
    if stated is None:
        return named or "unknown"
    return named if named and _is_refinement(named, stated, dominant) else stated


def _stated_type(header: Header, sizes: Mapping[str, int], dominant: str | None) -> str | None:
    """Name of `general.file_type`; None if it is missing or contradicts the tensors."""
    stated = header.values.get("general.file_type")
    if not isinstance(stated, int) or isinstance(stated, bool):
        return None
    name, types = FILE_TYPES.get(stated & ~FILE_TYPE_GUESSED, ("", frozenset[str]()))
    fits = dominant == name if name == "F32" else not types.isdisjoint(sizes)
    return name if name and (fits or dominant is None) else None


def _is_refinement(named: str, stated: str, dominant: str | None) -> bool:
    """True if a name from a file name is compatible with the stated type, and says more."""
    if _bits(named) is None or _bits(named) != _bits(stated):
        return False
    types = _TYPES_BY_NAME.get(named)
    if types is None:
        return True  # a mixture of a publisher
    # The names of llama.cpp itself: `Q4_K_M` for tensors of Q4_K, and a type that contradicts the header.
    return dominant in types and (stated not in _TYPES_BY_NAME or dominant not in _TYPES_BY_NAME[stated])


def _bits(quantization: str) -> str | None:
    """Bits per weight in a name, as a digit; None for floating-point types."""
    found = re.match(r"(?:I?Q|TQ|MXFP|NVFP)(\d)", names.unprefixed(quantization))
    return found[1] if found else None


def _is_repacked(tensor: Tensor) -> bool:
    return (
        tensor.type.name in _REPACKED_TYPES
        and len(tensor.dims) in (2, 3)
        and tensor.rows % 8 == 0
        and tensor.name not in _TABLES
    )


def _decode_bytes(tensors: Sequence[Tensor], shape: _HeaderShape) -> int:
    """Weight bytes read to decode one token.

    A lookup table costs one row, except a token table that is also the output matrix. Only the used experts
    of a layer are read, shared experts always. Draft layers and vision or audio towers cost nothing.
    """
    tied = not any(tensor.name == "output.weight" for tensor in tensors)
    return sum(_decoded(tensor, shape, tied) for tensor in tensors)


def _decoded(tensor: Tensor, shape: _HeaderShape, tied: bool) -> int:
    name, size = tensor.name, tensor.size_bytes
    if name in _ONE_ROW or (name == "token_embd.weight" and not tied):
        return size // max(tensor.rows, 1)
    if name.startswith((*_ENCODER_PREFIXES, "enc.")):
        return 0
    block = classify.block_of(name)
    if block is None:
        return 0 if name.startswith("nextn.") else size
    if block >= shape.trunk:
        return 0
    if shape.experts and _EXPERT.search(name):
        return size * shape.experts_used[block] // shape.experts
    return size


def _prompted(tensor: Tensor, shape: _HeaderShape) -> int:
    """Elements of a tensor by which each prompt token is multiplied."""
    name = tensor.name
    if len(tensor.dims) < 2 or name in _NOT_MULTIPLIED or name.endswith(".bias"):
        return 0
    block = classify.block_of(name)
    if block is None:
        ignored = name.startswith((*_ENCODER_PREFIXES, *_ONCE_FOR_A_SEQUENCE, "nextn.", "dec."))
        return 0 if ignored or "attn_rel_b" in name else tensor.elements
    last = shape.trunk - 1
    if block > last:
        return 0
    keeps_all = shape.kind != "generator" or shape.architecture in _KEEPS_EVERY_TOKEN
    if block == last and ".ffn_" in name and not keeps_all:
        return 0
    if shape.experts and _EXPERT.search(name):
        return tensor.elements * shape.experts_used[block] // shape.experts
    return tensor.elements


def _kv_shape(header: Header, shape: _HeaderShape) -> KvShape:
    heads = _kv_heads(header, shape)
    slides = _sliding_layers(header, shape)
    cached = _cached_layers(header, shape)
    totals = {False: [0, 0], True: [0, 0]}
    for sliding in (False, True):
        key, value = _lengths(header, shape, sliding)
        for layer in cached:
            if slides[layer] is sliding:
                totals[sliding][0] += heads[layer] * key
                totals[sliding][1] += heads[layer] * value
    return KvShape(*totals[False], *totals[True])


def _attention_shape(header: Header, shape: _HeaderShape) -> AttentionShape:
    heads = header.per_layer(f"{shape.architecture}.attention.head_count", shape.layers)
    if heads is None:
        return AttentionShape(0, 0)
    kv_heads, slides = _kv_heads(header, shape), _sliding_layers(header, shape)
    totals = {False: 0, True: 0}
    for layer in _attending_layers(header, shape):
        if kv_heads[layer]:  # a layer without KV heads mixes tokens in another way
            totals[slides[layer]] += heads[layer] * _attended_length(header, shape, slides[layer])
    return AttentionShape(totals[False], totals[True])


def _attended_length(header: Header, shape: _HeaderShape, sliding: bool) -> int:
    """Elements of key and value by which a query head is multiplied per token."""
    key, value = _lengths(header, shape, sliding)
    prefix = f"{shape.architecture}.attention"
    if header.whole(f"{prefix}.key_length_mla"):
        value = header.whole(f"{prefix}.kv_lora_rank") or key
    return key + value


def _kv_heads(header: Header, shape: _HeaderShape) -> tuple[int, ...]:
    prefix = f"{shape.architecture}.attention"
    for name in ("head_count_kv", "head_count"):
        heads = header.per_layer(f"{prefix}.{name}", shape.layers)
        if heads is not None:
            return heads
    return (0,) * shape.layers


def _lengths(header: Header, shape: _HeaderShape, sliding: bool) -> tuple[int, int]:
    """Key and value length of one head; layers with a sliding window may have separate ones."""
    prefix = f"{shape.architecture}.attention"
    heads = header.per_layer(f"{prefix}.head_count", shape.layers) or (0,)
    width = classify.required(header, shape.architecture, "embedding_length", 2**32 - 1)
    default = width // max(heads) if max(heads) else 0
    key = header.whole(f"{prefix}.key_length")
    value = header.whole(f"{prefix}.value_length")
    if sliding:
        key = header.whole(f"{prefix}.key_length_swa") or key
        value = header.whole(f"{prefix}.value_length_swa") or value
    if header.whole(f"{prefix}.key_length_mla"):
        rank = header.whole(f"{prefix}.kv_lora_rank") or 0
        rotary = header.whole(f"{shape.architecture}.rope.dimension_count") or 0
        return (rank + rotary if key is None else key), 0
    return (default if key is None else key), (default if value is None else value)


def _window(header: Header, shape: _HeaderShape) -> int:
    if shape.architecture in _WINDOW_IGNORED:
        return 0
    stated = header.whole(f"{shape.architecture}.attention.sliding_window")
    if shape.architecture == "llama4" and stated != 0:
        return _LLAMA4_CHUNK  # chunked attention, which bounds the cache in the same way
    return stated or 0


def _sliding_layers(header: Header, shape: _HeaderShape) -> tuple[bool, ...]:
    """True for each layer with a sliding window; all False, which overestimates the cache, if unknown."""
    full = (False,) * shape.layers
    if not _window(header, shape):
        return full
    key = f"{shape.architecture}.attention.sliding_window_pattern"
    period, full_first = _SLIDING.get(shape.architecture, (1, False))
    if isinstance(header.values.get(key), tuple):
        return tuple(bool(flag) for flag in header.per_layer(key, shape.layers) or full)
    if shape.architecture in _SLIDING:
        stated = header.whole(key)
        period = period if stated is None else stated
    if period == 0:
        return (True,) * shape.layers
    full_at = 0 if full_first else period - 1
    return tuple(layer % period != full_at for layer in range(shape.layers))


def _cached_layers(header: Header, shape: _HeaderShape) -> list[int]:
    """Trunk layers with a separate attention cache: not recurrent, and not sharing another layer's."""
    shared = header.whole(f"{shape.architecture}.attention.shared_kv_layers") or 0
    count = max(shape.layers - shared, 0)
    if shape.architecture == "gemma3n":
        count = min(count, _GEMMA3N_CACHED_LAYERS)
    return [layer for layer in _attending_layers(header, shape) if layer < count]


def _attending_layers(header: Header, shape: _HeaderShape) -> list[int]:
    """Trunk layers with attention, that is, without recurrent ones."""
    if shape.architecture in _RECURRENT:
        return []
    recurrent = header.per_layer(f"{shape.architecture}.attention.recurrent_layers", shape.layers)
    if recurrent is None:
        interval = header.whole(f"{shape.architecture}.full_attention_interval") or 4
        if shape.architecture not in _LINEAR_BY_INTERVAL:
            interval = 1
        recurrent = tuple(int((layer + 1) % interval != 0) for layer in range(shape.layers))
    return [layer for layer in range(shape.trunk) if not recurrent[layer]]
