"""Plausible dimensions and the tensor list of a model, from architecture and parameter count."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from ggufbench.modelkit.spec import Architecture, ModelError, size_label

Kind = Literal["embedding", "head", "tied", "weight", "expert", "router", "ones", "signs", "bias"]

EXPERTS_USED = 4
SLIDING_WINDOW = 128
TOLERANCE = 0.10

# (width, layers) of published models (TinyLlama, Llama 3 8B and 70B; Qwen3 0.6B, 4B, 14B; gpt-oss-20b), and
# guesses below the smallest; in between, the logarithms are interpolated.
_DEPTHS: dict[Architecture, tuple[tuple[int, int], ...]] = {
    "llama": ((32, 2), (256, 4), (768, 12), (2048, 22), (4096, 32), (8192, 80)),
    "qwen3": ((32, 2), (256, 4), (1024, 28), (2560, 36), (5120, 40), (8192, 64)),
    "gpt-oss": ((32, 2), (256, 4), (768, 12), (2880, 24), (8192, 48)),
}
_FF_RATIO: dict[Architecture, float] = {"llama": 2.75, "qwen3": 3.0, "gpt-oss": 1.0}
_WIDTHS = (*range(32, 256, 32), *range(256, 8193, 256))


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of one model."""

    architecture: Architecture
    vocabulary: int
    layers: int
    width: int
    """`embedding_length`."""
    ff: int
    """`feed_forward_length`; in a mixture, that of one expert."""
    heads: int
    kv_heads: int
    head_dim: int
    experts: int
    """0 in a dense model."""
    tied: bool
    """True if the embedding is also the output matrix."""


@dataclass(frozen=True, slots=True)
class TensorShape:
    """A tensor to write."""

    name: str
    dims: tuple[int, ...]
    """The row length last, as in numpy; a GGUF header has them reversed."""
    kind: Kind

    @property
    def elements(self) -> int:
        """Number of weights."""
        return math.prod(self.dims)


def tensors(shape: Shape) -> Iterator[TensorShape]:
    """Every tensor of the model, in file order."""
    matrix = (shape.vocabulary, shape.width)
    yield TensorShape("token_embd.weight", matrix, "tied" if shape.tied else "embedding")
    yield TensorShape("output_norm.weight", (shape.width,), "signs" if shape.tied else "ones")
    if not shape.tied:
        yield TensorShape("output.weight", matrix, "head")
    for index in range(shape.layers):
        for tensor in _block(shape):
            yield replace(tensor, name=f"blk.{index}.{tensor.name}")


def parameters(shape: Shape) -> int:
    """Parameter count as llama.cpp reports it: every element of every tensor."""
    embeddings = shape.vocabulary * shape.width * (1 if shape.tied else 2)
    return embeddings + shape.width + shape.layers * _block_parameters(shape)


@lru_cache(maxsize=16)
def fit_shape(architecture: Architecture, target: int, vocabulary: int, layers: int | None = None) -> Shape:
    """The most plausible shape within 10 % of `target` parameters. Raises `ModelError` without one.

    A given number of layers is kept, however unusual it is for the size.
    """
    candidates = [
        candidate
        for width in _widths(architecture)
        for candidate in _candidates(architecture, target, vocabulary, width, layers)
    ]
    within = [(shape, count) for shape, count in candidates if abs(count / target - 1) <= TOLERANCE]
    if within:
        return min(within, key=lambda pair: _oddness(pair[0], pair[1], target))[0]
    _, nearest = min(candidates, key=lambda pair: abs(math.log(pair[1] / target)))
    raise ModelError(
        f"No {architecture} shape has {size_label(target)} parameters with a vocabulary of {vocabulary} "
        f"tokens; the nearest has {size_label(nearest)}."
    )


def _block_parameters(shape: Shape) -> int:
    return sum(tensor.elements for tensor in _block(shape))


def _block(shape: Shape) -> Iterator[TensorShape]:
    """The tensors of one layer, without its prefix."""
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield TensorShape("attn_norm.weight", (shape.width,), "ones")
    yield TensorShape("attn_q.weight", (query, shape.width), "weight")
    yield TensorShape("attn_k.weight", (key, shape.width), "weight")
    yield TensorShape("attn_v.weight", (key, shape.width), "weight")
    yield TensorShape("attn_output.weight", (shape.width, query), "weight")
    if shape.experts:
        yield from _mixture(shape, query, key)
        return
    if shape.architecture == "qwen3":
        yield TensorShape("attn_q_norm.weight", (shape.head_dim,), "ones")
        yield TensorShape("attn_k_norm.weight", (shape.head_dim,), "ones")
    yield TensorShape("ffn_norm.weight", (shape.width,), "ones")
    yield TensorShape("ffn_gate.weight", (shape.ff, shape.width), "weight")
    yield TensorShape("ffn_up.weight", (shape.ff, shape.width), "weight")
    yield TensorShape("ffn_down.weight", (shape.width, shape.ff), "weight")


def _mixture(shape: Shape, query: int, key: int) -> Iterator[TensorShape]:
    """The tensors of a gpt-oss layer beyond the attention matrices."""
    for name, length in (("q", query), ("k", key), ("v", key), ("output", shape.width)):
        yield TensorShape(f"attn_{name}.bias", (length,), "bias")
    yield TensorShape("attn_sinks.weight", (shape.heads,), "bias")
    yield TensorShape("post_attention_norm.weight", (shape.width,), "ones")
    yield TensorShape("ffn_gate_inp.weight", (shape.experts, shape.width), "router")
    yield TensorShape("ffn_gate_inp.bias", (shape.experts,), "bias")
    for name, rows, length in (
        ("gate", shape.ff, shape.width),
        ("up", shape.ff, shape.width),
        ("down", shape.width, shape.ff),
    ):
        yield TensorShape(f"ffn_{name}_exps.weight", (shape.experts, rows, length), "expert")
        yield TensorShape(f"ffn_{name}_exps.bias", (shape.experts, rows), "bias")


def _widths(architecture: Architecture) -> tuple[int, ...]:
    # gpt-oss-20b and 120b have rows of 2880, which 256 does not divide.
    return (*_WIDTHS, 2880) if architecture == "gpt-oss" else _WIDTHS


def _candidates(
    architecture: Architecture, target: int, vocabulary: int, width: int, layers_asked: int | None
) -> Iterator[tuple[Shape, int]]:
    """Shapes of one width and their parameters: each plausible depth, with the `ff` that meets the target."""
    bare = _bare(architecture, target, vocabulary, width)
    depth = _usual_depth(architecture, width)
    depths = range(max(1, math.ceil(depth / 3)), math.floor(depth * 3) + 1)
    fixed = _block_parameters(bare)
    slope = _block_parameters(replace(bare, ff=1)) - fixed
    for tied in (False,) if architecture == "gpt-oss" else (False, True):
        outside = vocabulary * width * (1 if tied else 2) + width
        for layers in depths if layers_asked is None else (layers_asked,):
            wish = ((target - outside) / layers - fixed) / slope
            for ff in sorted({_multiple(wish, 256), _multiple(wish, 32), width}):
                count = outside + layers * (fixed + slope * ff)
                yield replace(bare, layers=layers, ff=ff, tied=tied), count


def _bare(architecture: Architecture, target: int, vocabulary: int, width: int) -> Shape:
    """One layer without a feed-forward part."""
    heads, kv_heads, head_dim = _heads(architecture, width)
    return Shape(
        architecture=architecture,
        vocabulary=vocabulary,
        layers=1,
        width=width,
        ff=0,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        experts=_experts(target) if architecture == "gpt-oss" else 0,
        tied=False,
    )


def _oddness(shape: Shape, count: int, target: int) -> float:
    """Distance from the usual proportions; 0 is a published model of exactly this size."""
    odd = 10 * abs(math.log(count / target))
    odd += abs(math.log(shape.layers / _usual_depth(shape.architecture, shape.width)))
    odd += abs(math.log(shape.ff / shape.width / _FF_RATIO[shape.architecture]))
    # K-quants need rows of 256; without them llama.cpp falls back to larger types.
    published = shape.architecture == "gpt-oss" and shape.width == shape.ff == 2880
    if not published:
        odd += sum(2.0 for length in (shape.width, shape.ff) if length % 256)
        # Widths of large models are multiples of 512.
        odd += 0.2 if shape.width > 1024 and shape.width % 512 else 0.0
    usually_tied = shape.architecture == "qwen3" and target < 5 * 10**9
    return odd + (0.3 if shape.tied != usually_tied else 0.0)


def _usual_depth(architecture: Architecture, width: int) -> float:
    anchors = _DEPTHS[architecture]
    upper = next(index for index in range(1, len(anchors)) if width <= anchors[index][0])
    (low_width, low), (high_width, high) = anchors[upper - 1], anchors[upper]
    share = math.log(width / low_width) / math.log(high_width / low_width)
    return low * math.exp(share * math.log(high / low))


def _heads(architecture: Architecture, width: int) -> tuple[int, int, int]:
    """Number of query heads, of key/value heads, and head length."""
    if architecture == "llama":
        # llama.cpp requires heads x head length = width here.
        head_dim = 32 if width % 64 or width < 256 else 128 if width >= 4096 else 64
        heads = width // head_dim
        share = 4 if head_dim == 128 else 8
        kv_heads = next(kv for kv in range(1, heads + 1) if heads % kv == 0 and heads / kv <= share)
        return heads, kv_heads, head_dim
    if architecture == "qwen3":
        head_dim = 128 if width >= 512 else 32
        heads = 2 * width // head_dim if width <= 1024 else 8 * math.ceil(width / head_dim / 8)
        return heads, min(8, heads // 2), head_dim
    head_dim = 64 if width >= 512 else 32
    heads = 8 * max(1, round(width / 45 / 8))
    return heads, heads // 8, head_dim


def _experts(target: int) -> int:
    return 8 if target < 2 * 10**8 else 16 if target < 2 * 10**9 else 32


def _multiple(value: float, step: int) -> int:
    return max(1, round(value / step)) * step
