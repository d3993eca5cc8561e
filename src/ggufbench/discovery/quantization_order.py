"""Default order of quantizations, used for downloads and for files on this machine."""

from __future__ import annotations

import re

from ggufbench.discovery.names import unprefixed

_CLASSES = (re.compile(r"I?Q4"), re.compile("Q5"), re.compile("Q8"))

_USUAL = (
    "Q4_K_M", "Q4_K_S", "Q4_K", "IQ4_XS", "IQ4_NL", "Q4_1", "Q4_0",
    "Q5_K_M", "Q5_K_S", "Q5_K", "Q5_1", "Q5_0",
    "Q8_0",
    "Q6_K", "MXFP4", "NVFP4", "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS",
    "Q2", "IQ2", "BF16", "F16", "F32",
)  # fmt: skip
"""The best compromise between quality and memory first."""


def class_of(quantization: str) -> int:
    """Class in the documented order: 0 for Q4 and IQ4, 1 for Q5, 2 for Q8, 3 for all others."""
    plain = unprefixed(quantization)
    return next((n for n, one in enumerate(_CLASSES) if one.match(plain)), len(_CLASSES))


def place_of(quantization: str) -> float:
    """Position within its class; a name that only starts with an entry comes just after that entry."""
    plain = unprefixed(quantization)
    if plain in _USUAL:
        return _USUAL.index(plain)
    return next((n + 0.5 for n, one in enumerate(_USUAL) if plain.startswith(one)), len(_USUAL))
