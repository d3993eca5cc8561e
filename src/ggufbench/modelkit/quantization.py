"""`ggufbench quantize`: quantize a GGUF to another type with llama.cpp's own quantizer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ggufbench.discovery import Model, PlaceNotFoundError, discover
from ggufbench.modelkit import quantizer
from ggufbench.modelkit.output import check_target, orderly_end, write_model
from ggufbench.modelkit.spec import IMATRIX_TYPES, ModelError
from ggufbench.text import did_you_mean

FLOAT_TYPES = ("F32", "F16", "BF16")
TERNARY_TYPES = ("TQ1_0", "TQ2_0")
TYPES = (
    *FLOAT_TYPES, "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0",
    "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "Q2_K", "Q2_0", "Q1_0",
    *TERNARY_TYPES, "MXFP4_MOE",
)  # fmt: skip
"""Types that can be made without an importance matrix."""
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "MXFP4": "MXFP4_MOE"}
"""Short names that llama.cpp's own tool accepts."""

_HEADER_MARGIN_BYTES = 1 << 20

Progress = Callable[[float, int], None]
"""Called with the share of tensors done, 0 to 1, and the size of the finished file in bytes."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """Result of a quantization."""

    path: Path
    type: str
    source_type: str
    source_bytes: int
    file_size_bytes: int
    tensors: int
    fallbacks: int
    """Tensors that got another type, because the requested type's blocks do not divide their rows."""
    seconds: float
    notes: tuple[str, ...]
    """Notes for the user, one sentence each."""


def quantize(  # noqa: PLR0913 (one parameter for each option of the command)
    source: Path,
    out: Path,
    kind: str,
    progress: Progress = lambda _share, _total: None,
    *,
    threads: int | None = None,
    imatrix: Path | None = None,
    overwrite: bool = False,
) -> Quantized:
    """Quantize the model `source` (the first shard of several) to `kind` in the file or folder `out`.

    Raises `ModelError` if it cannot be made. A failure or interruption leaves no files.
    """
    name = check_type(kind, with_imatrix=imatrix is not None)
    quantizer.check_available(name)
    model = read_model(source)
    _check_mixture(name, model)
    target = out / f"{model.name}-{name}.gguf" if out.is_dir() else out
    _check_not_source(target, model)
    check_target(target, overwrite)
    if imatrix is not None:
        check_imatrix(imatrix)
    started = time.monotonic()
    facts = quantizer.run(
        model.path, target, name, lambda _share: None, threads=threads, imatrix=imatrix, dry_run=True
    )
    if facts.needs_imatrix and imatrix is None:
        raise ModelError(f"{name} needs an importance matrix for this model; name one with --imatrix.")
    needed = facts.size_bytes + model.file_size_bytes - model.tensor_bytes + _HEADER_MARGIN_BYTES
    with orderly_end(), write_model(target, needed) as whole:
        quantizer.run(
            model.path,
            whole,
            name,
            lambda share: progress(share, facts.size_bytes),
            threads=threads,
            imatrix=imatrix,
        )
    return Quantized(
        path=target,
        type=name,
        source_type=model.quantization,
        source_bytes=model.file_size_bytes,
        file_size_bytes=target.stat().st_size,
        tensors=facts.tensors,
        fallbacks=facts.fallbacks,
        seconds=time.monotonic() - started,
        notes=tuple(_notes(name, model, facts)),
    )


def check_type(kind: str, *, with_imatrix: bool) -> str:
    """The type's name in upper case. Raises `ModelError` if llama.cpp cannot make it."""
    text = kind.strip().upper().replace("-", "_")
    name = ALIASES.get(text, text)
    if name in IMATRIX_TYPES and not with_imatrix:
        raise ModelError(
            f"{name} has so few bits that llama.cpp makes it only with an importance matrix; name one with "
            "--imatrix, or use Q2_K, the smallest type that works without one."
        )
    if name == "NVFP4":
        raise ModelError(
            "llama.cpp can read NVFP4 but not make it; use Q4_K_M, or convert an NVFP4 checkpoint."
        )
    known = (*TYPES, *IMATRIX_TYPES)
    if name not in known:
        hint = did_you_mean(name, known) or f"; known types: {', '.join(known)}."
        raise ModelError(f"Unknown type {kind!r}{hint}")
    return name


def read_model(source: Path) -> Model:
    """The facts of the model in a file. Raises `ModelError` if it is not a model, or a folder."""
    if source.is_dir():
        raise ModelError(f"{source} is a folder; name the GGUF file, or `ggufbench convert` a checkpoint.")
    try:
        found = discover([source])
    except PlaceNotFoundError as error:
        raise ModelError(f"{error}.") from None
    if not found.models:
        reason = found.rejected[0].reason if found.rejected else "it contains no model"
        raise ModelError(f"{source} cannot be used: {reason}.")
    return found.models[0]


def check_imatrix(path: Path) -> None:
    """Raise `ModelError` if a file is not an importance matrix, in GGUF or in the older format."""
    from ggufbench.discovery.header import HeaderError, read_header
    from ggufbench.modelkit.legacy_imatrix import read_legacy_imatrix

    try:
        kind = read_header(path).text("general.type")
    except HeaderError as error:
        try:
            read_legacy_imatrix(path)
        except (OSError, ValueError):
            raise ModelError(
                f"{path} is not an importance matrix: {error}; name a file that llama-imatrix wrote."
            ) from None
        return
    if kind != "imatrix":
        raise ModelError(f"{path} is not an importance matrix: its general.type is {kind!r}.")


def _check_mixture(name: str, model: Model) -> None:
    if name == "MXFP4_MOE" and not model.experts:
        raise ModelError(
            f"MXFP4_MOE is for mixtures of experts, but {model.name} has no experts: llama.cpp would "
            "silently make Q8_0; use Q4_K_M or Q8_0."
        )


def _check_not_source(target: Path, model: Model) -> None:
    if any(target.exists() and target.samefile(shard) for shard in model.shards):
        raise ModelError(f"{target} is the source file; name another file to write.")


def _notes(name: str, model: Model, facts: quantizer.SourceFacts) -> list[str]:
    notes = []
    if model.quantization not in FLOAT_TYPES:
        notes.append(
            f"the source was already {model.quantization}, whose loss of precision stays; {name} made from "
            "F16 or BF16 is better"
        )
    if facts.fallbacks:
        notes.append(
            f"{facts.fallbacks} of {facts.tensors} tensors got a larger type, because the blocks of {name} "
            "do not divide their rows"
        )
    if name in TERNARY_TYPES:
        notes.append(f"{name} is for models trained with ternary weights; it ruins all others")
    if len(model.shards) > 1:
        notes.append(f"{len(model.shards)} parts were merged into one file")
    return notes
