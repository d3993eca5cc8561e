"""Specification of a synthetic model: architecture, size, quantization, and its validation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from ggufbench.errors import GgufbenchError
from ggufbench.text import did_you_mean

Architecture = Literal["llama", "qwen3", "gpt-oss"]

DIRECT_TYPES = ("F16", "Q8_0", "Q4_0", "MXFP4")
"""Written as random blocks."""

REQUANTIZED_TYPES = {
    "Q2_K": 3.5,
    "Q3_K_S": 4.0,
    "Q3_K_M": 4.5,
    "Q3_K_L": 5.0,
    "Q4_1": 5.5,
    "Q4_K_S": 5.0,
    "Q4_K_M": 5.5,
    "Q5_0": 6.0,
    "Q5_1": 6.5,
    "Q5_K_S": 6.0,
    "Q5_K_M": 6.5,
    "Q6_K": 7.0,
    "IQ4_NL": 5.5,
    "IQ4_XS": 5.0,
}
"""Made by llama.cpp from Q8_0; values are upper estimates of bits per weight, for the free-space check."""

IMATRIX_TYPES = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S")
"""llama.cpp makes these only with an importance matrix, which random weights do not have."""

VOCABULARY_RANGE = (512, 262_144)

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMBG]?)", re.IGNORECASE | re.ASCII)


class ModelError(GgufbenchError):
    """A model cannot be made or downloaded. The message is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class SynthSpec:
    """Specification of a synthetic model. Equal specs produce files with equal bytes.

    Raises `ModelError` for an invalid value.
    """

    architecture: Architecture
    parameters: int
    """Target count; the count of the file is within 10 % of it."""
    quantization: str
    """Type name, in upper or lower case: `Q8_0`, `q4_k_m`, `MXFP4`."""
    vocabulary: int = 32_000
    """Number of tokens, including control tokens."""
    context: int = 32_768
    """Context length in tokens that the metadata states as trained."""
    seed: int = 0
    layers: int | None = None
    """None for the usual number; fewer layers give a wider model with the same parameters."""
    name: str | None = None
    """`general.name`; None: a name such as "synthetic llama 1.1B"."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantization", check_quantization(self.quantization, self.architecture))
        low, high = VOCABULARY_RANGE
        if not low <= self.vocabulary <= high:
            raise ModelError(f"A vocabulary of {self.vocabulary} tokens is not between {low} and {high}.")
        if not 32 <= self.context < 2**31:
            raise ModelError(f"A context of {self.context} tokens is not between 32 and {2**31 - 1}.")
        if not 0 <= self.seed < 2**32:
            raise ModelError(f"The seed {self.seed} is not between 0 and {2**32 - 1}.")
        if self.layers is not None and not 1 <= self.layers <= 1024:
            raise ModelError(f"The number of layers {self.layers} is not between 1 and 1024.")
        if self.parameters < 1:
            raise ModelError(
                f"The number of parameters {self.parameters} must be at least 1; an example is 1100000000."
            )

    @property
    def title(self) -> str:
        """Value of `general.name`."""
        return self.name or f"synthetic {self.architecture} {size_label(self.parameters)}"


def check_quantization(quantization: str, architecture: str) -> str:
    """The type's name in upper case. Raises `ModelError` if this architecture cannot have that type."""
    if architecture not in get_args(Architecture):
        known = ", ".join(get_args(Architecture))
        raise ModelError(f"Unknown architecture {architecture!r}; known architectures: {known}.")
    name = quantization.strip().upper()
    if name in IMATRIX_TYPES:
        raise ModelError(
            f"{name} needs an importance matrix, which random weights lack; the smallest usable type is Q2_K."
        )
    if name == "MXFP4" and architecture != "gpt-oss":
        raise ModelError(f"MXFP4 is a type for experts, and {architecture} has none; use gpt-oss or Q4_0.")
    known_types = (*DIRECT_TYPES, *REQUANTIZED_TYPES)
    if name not in known_types:
        near = did_you_mean(name, known_types)
        raise ModelError(
            f"Unknown quantization {quantization!r}{near}; known types: {', '.join(known_types)}."
        )
    return name


def parse_size(text: str) -> int:
    """Parse a parameter count: `1.1B`, `110M`, `500K`, `2G` (the same as B) or a plain integer."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ModelError(f"{text!r} is not a number of parameters; an example is 1.1B.")
    number, unit = match.groups()
    if not unit and "." in number:
        raise ModelError(f"{text!r} needs a unit K, M or B; an example is 1.1B.")
    # An integer stays exact: a float has only 53 bits.
    parameters = int(number) if not unit else round(float(number) * _UNITS[unit.upper()])
    if parameters < 1:
        raise ModelError(f"{text!r} is not a positive number of parameters; an example is 1.1B.")
    return parameters


def size_label(parameters: int) -> str:
    """Parameter count with three significant digits and a unit: 1_100_048_384 -> `1.1B`."""
    for unit, value in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if parameters >= 0.9995 * value:
            return f"{float(f'{parameters / value:.3g}'):g}{unit}"
    return str(parameters)
