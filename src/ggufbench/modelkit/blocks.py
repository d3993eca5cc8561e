"""Random weights, written directly as blocks of their type; nothing is quantized here.

A block is a scale and some packed integers. The integers are random bytes; the scale gives the weights the
standard deviation 1/sqrt(row length), which keeps activations near 1 from layer to layer. Its sign is random,
as in real files: the integers of Q4_0 lie around -0.5, and a constant sign would add up to a large common
term.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufbench.modelkit.shapes import TensorShape

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Bytes = npt.NDArray[np.uint8]

CHUNK_BYTES = 4 * 2**20
"""Enough for a fast write, small enough to stay in the cache between filling and writing."""

QUIET_DAMPING = 16
"""Rows of quiet tokens are divided by this, so that greedy decoding never selects one of them."""


@dataclass(frozen=True, slots=True)
class Packing:
    """Packing of weights: `elements` in `size` bytes; `fill(blocks, deviation)` sets the scales."""

    elements: int
    size: int
    fill: Callable[[Bytes, float], None]


def tensor_type(tensor: TensorShape, quantization: str) -> str:
    """Type of one tensor in a file of this quantization, as llama.cpp's quantizer chooses it."""
    if tensor.kind in ("ones", "signs", "bias", "router"):
        return "F32"
    if quantization == "MXFP4":
        return "MXFP4" if tensor.kind == "expert" else "Q8_0"
    if quantization == "Q4_0" and tensor.kind in ("head", "tied"):
        return "Q6_K" if tensor.dims[-1] % 256 == 0 else "Q8_0"
    return quantization


def tensor_bytes(tensor: TensorShape, quantization: str) -> int:
    """Size of the tensor's data in the file, without padding."""
    packing = PACKINGS[tensor_type(tensor, quantization)]
    return tensor.elements // packing.elements * packing.size


def tensor_data(tensor: TensorShape, quantization: str, seed: int, quiet: Sequence[range]) -> Iterator[Bytes]:
    """The tensor's bytes in chunks of at most `CHUNK_BYTES`.

    They depend only on the seed, the tensor's name, shape and type and, for the embedding and the output
    matrix, on the `quiet` rows, which are damped. The ranges are in order.
    """
    import numpy as np

    packing = PACKINGS[tensor_type(tensor, quantization)]
    if tensor.kind == "ones":
        yield np.ones(tensor.elements, dtype="<f4").view(np.uint8)
        return
    source = np.random.SFC64(np.random.SeedSequence([seed, zlib.crc32(tensor.name.encode())]))
    if tensor.kind == "signs":
        yield _signs(source, tensor.elements)
        return
    # An embedding comparable to what the layers add makes the output follow the tokens: with a small one,
    # greedy decoding repeats one token and a digest of it carries no information.
    deviation = {"bias": 0.02, "embedding": 1.0, "tied": 1.0}.get(tensor.kind, 1 / math.sqrt(tensor.dims[-1]))
    if tensor.kind not in ("embedding", "tied", "head"):
        yield from _blocks(source, packing, tensor.elements, deviation)
        return
    for rows, damping in _parts(tensor.elements // tensor.dims[-1], quiet):
        yield from _blocks(source, packing, len(rows) * tensor.dims[-1], deviation / damping)


def _parts(rows: int, quiet: Sequence[range]) -> Iterator[tuple[range, int]]:
    """Ranges that cover all rows in order, each with its damping."""
    begin = 0
    for damped in quiet:
        yield range(begin, damped.start), 1
        yield damped, QUIET_DAMPING
        begin = damped.stop
    yield range(begin, rows), 1


def _blocks(source: np.random.SFC64, packing: Packing, elements: int, deviation: float) -> Iterator[Bytes]:
    left, most = elements // packing.elements, CHUNK_BYTES // packing.size
    while left:
        count = min(left, most)
        blocks = _random_bytes(source, count * packing.size).reshape(count, packing.size)
        packing.fill(blocks, deviation)
        yield blocks
        left -= count


def _signs(source: np.random.SFC64, count: int) -> Bytes:
    """+-1/sqrt(n): the output norm of a model whose embedding is also its output matrix.

    The size scales logits back to a deviation of 1; without the signs the most likely next token would always
    be the last one, which the final state resembles most.
    """
    import numpy as np

    negative = _random_bytes(source, count) & 1
    return ((1 - 2 * negative.astype("<f4")) / np.float32(math.sqrt(count))).view(np.uint8)


def _random_bytes(source: np.random.SFC64, count: int) -> Bytes:
    import numpy as np

    # Raw words, because numpy guarantees the same raw words in every version but not the same distributions.
    words: npt.NDArray[np.uint64] = source.random_raw(-(-count // 8))
    return words.astype("<u8", copy=False).view(np.uint8)[:count]


def _set_scale(blocks: Bytes, start: int, scale: float) -> None:
    """Set the float16 at `start` of every block to `scale`, with the sign of the random bits there."""
    import numpy as np

    field = blocks[:, start : start + 2].view("<u2")
    field &= 0x8000
    field |= int(np.float16(scale).view(np.uint16))


def _fill_f32(blocks: Bytes, deviation: float) -> None:
    """Uniform values from the upper 24 bits of each random word."""
    import numpy as np

    steps = blocks.view("<u4") >> np.uint32(8)
    half_width = deviation * math.sqrt(3)
    values = steps.astype("<f4") * np.float32(half_width * 2.0**-23) - np.float32(half_width)
    blocks[...] = values.view(np.uint8)


def _fill_f16(blocks: Bytes, deviation: float) -> None:
    """Random sign and mantissa, fixed exponent e: uniform over [2^e, 2^(e+1)), deviation 1.5275 x 2^e."""
    exponent = round(math.log2(deviation / math.sqrt(7 / 3)))
    bits = blocks.view("<u2")
    bits &= 0x83FF
    bits |= (exponent + 15) << 10


def _fill_q8_0(blocks: Bytes, deviation: float) -> None:
    import numpy as np

    values = blocks[:, 2:].view(np.int8)
    # A real Q8_0 never has -128, and kernels that take absolute values in 8 bits may rely on that.
    np.maximum(values, np.int8(-127), out=values)
    _set_scale(blocks, 0, deviation / 73.6)


def _fill_q4_0(blocks: Bytes, deviation: float) -> None:
    _set_scale(blocks, 0, deviation / 4.64)


def _fill_q6_k(blocks: Bytes, deviation: float) -> None:
    """128 + 64 bytes of 6-bit integers around -0.5, 16 signed scales of 64, one float16 scale for all."""
    scales = blocks[:, 192:208]
    scales &= 0x80
    scales |= 0x40
    _set_scale(blocks, 208, deviation / (18.5 * 64))


def _fill_mxfp4(blocks: Bytes, deviation: float) -> None:
    """One exponent byte e for 2^(e - 128), and 4-bit values of 0, 1, 2, 3, 4, 6, 8, 12 with a sign."""
    blocks[:, 0] = 128 + round(math.log2(deviation / 5.85))


PACKINGS = {
    "F32": Packing(1, 4, _fill_f32),
    "F16": Packing(1, 2, _fill_f16),
    "Q8_0": Packing(32, 34, _fill_q8_0),
    "Q4_0": Packing(32, 18, _fill_q4_0),
    "Q6_K": Packing(256, 210, _fill_q6_k),
    "MXFP4": Packing(32, 17, _fill_mxfp4),
}
