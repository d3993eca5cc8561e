"""What can be asked for: architecture, size, quantization; and the sentences for what cannot."""

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
"""Made by llama.cpp from Q8_0; an upper guess of the bits per weight of a file, for the free-space check."""

IMATRIX_TYPES = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S")
"""llama.cpp makes these only with an importance matrix, which random weights do not have."""

VOCABULARY_RANGE = (512, 262_144)

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMBG]?)", re.IGNORECASE | re.ASCII)


class ModelError(GgufbenchError):
    """A model that cannot be made, or fetched; the message is one sentence for the user."""


@dataclass(frozen=True, slots=True)
class SynthSpec:
    """A synthetic model. Two equal specs give files with equal bytes.

    Raises `ModelError` for a value that no file can be made of.
    """

    architecture: Architecture
    parameters: int
    """Target count; the file's own count is within 10 % of it."""
    quantization: str
    """As users write it, in any case: `Q8_0`, `q4_k_m`, `MXFP4`."""
    vocabulary: int = 32_000
    """Tokens, control tokens included."""
    context: int = 32_768
    """Tokens that the model claims to be trained for."""
    seed: int = 0
    layers: int | None = None
    """None for the usual number; with fewer the same parameters make a wider model."""
    name: str | None = None
    """`general.name`; "synthetic llama 1.1B" and the like when None."""

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
            raise ModelError(f"{self.layers} layers is not between 1 and 1024.")
        if self.parameters < 1:
            raise ModelError(f"{self.parameters} parameters is not a size; an example is 1100000000.")

    @property
    def title(self) -> str:
        """What `general.name` says."""
        return self.name or f"synthetic {self.architecture} {size_label(self.parameters)}"


def check_quantization(quantization: str, architecture: str) -> str:
    """The type's name in capitals, when a model of this architecture can be made of it; else `ModelError`."""
    if architecture not in get_args(Architecture):
        known = ", ".join(get_args(Architecture))
        raise ModelError(f"Unknown architecture {architecture!r}; known are {known}.")
    name = quantization.strip().upper()
    if name in IMATRIX_TYPES:
        raise ModelError(
            f"{name} needs an importance matrix, which random weights do not have; the smallest type is Q2_K."
        )
    if name == "MXFP4" and architecture != "gpt-oss":
        raise ModelError(f"MXFP4 is a type for experts and {architecture} has none; ask for gpt-oss or Q4_0.")
    known_types = (*DIRECT_TYPES, *REQUANTIZED_TYPES)
    if name not in known_types:
        near = did_you_mean(name, known_types)
        raise ModelError(f"Unknown quantization {quantization!r}{near}; known are {', '.join(known_types)}.")
    return name


def parse_size(text: str) -> int:
    """Parameters from `1.1B`, `110M`, `500K`, `2G` (the same as B) or a plain whole number."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ModelError(f"{text!r} is not a number of parameters; an example is 1.1B.")
    number, unit = match.groups()
    if not unit and "." in number:
        raise ModelError(f"{text!r} needs a unit K, M or B; an example is 1.1B.")
    # An integer stays exact: a float has 53 bits only.
    parameters = int(number) if not unit else round(float(number) * _UNITS[unit.upper()])
    if parameters < 1:
        raise ModelError(f"{text!r} is not a positive number of parameters; an example is 1.1B.")
    return parameters


def size_label(parameters: int) -> str:
    """Three significant digits with a unit: 1_100_048_384 -> `1.1B`."""
    for unit, value in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if parameters >= 0.9995 * value:
            return f"{float(f'{parameters / value:.3g}'):g}{unit}"
    return str(parameters)
