"""Write a synthetic GGUF: a temporary file in the target folder, renamed when complete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from ggufbench.modelkit import quantizer
from ggufbench.modelkit.blocks import tensor_bytes, tensor_data, tensor_type
from ggufbench.modelkit.metadata import add_metadata
from ggufbench.modelkit.output import check_target, write_model
from ggufbench.modelkit.shapes import Shape, fit_shape, tensors
from ggufbench.modelkit.spec import DIRECT_TYPES, REQUANTIZED_TYPES, SynthSpec
from ggufbench.modelkit.tokenizer import build_vocabulary, quiet_tokens
from ggufbench.paths import temporary_file

if TYPE_CHECKING:
    from gguf import GGUFWriter

Progress = Callable[[int, int], None]

_ALIGNMENT = 32
_HEADER_BYTES_PER_TOKEN = 48


def synthesize(
    path: Path, spec: SynthSpec, progress: Progress | None = None, *, overwrite: bool = False
) -> Path:
    """Write the model and return `path`.

    `progress` gets the bytes written, starting with 0, and the bytes to write; the total includes the
    intermediate Q8_0 file of a type that llama.cpp quantizes. Writing takes tens of megabytes of memory for
    any size. Raises `ModelError` if the file cannot be made. A failure or interruption leaves no files in the
    folder.
    """
    shape = fit_shape(spec.architecture, spec.parameters, spec.vocabulary, spec.layers)
    written = _written_type(spec)
    first, final = _file_bytes(shape, written), estimate_bytes(spec)
    needed = first if written == spec.quantization else first + final
    check_target(path, overwrite)
    if written != spec.quantization:
        quantizer.check_available(spec.quantization)
    report = progress or (lambda done, total: None)
    report(0, needed)
    with write_model(path, needed) as whole:
        if written == spec.quantization:
            _write(whole, spec, shape, written, lambda done: report(done, needed))
        else:
            with temporary_file(path) as source:
                _write(source, spec, shape, written, lambda done: report(done, needed))
                quantizer.run(
                    source,
                    whole,
                    spec.quantization,
                    lambda share: report(first + int(share * final), needed),
                )
    report(needed, needed)
    return path


def estimate_bytes(spec: SynthSpec) -> int:
    """Size of the finished file: within a few per cent for direct types, an upper estimate for others."""
    shape = fit_shape(spec.architecture, spec.parameters, spec.vocabulary, spec.layers)
    size = _file_bytes(shape, _written_type(spec))
    if spec.quantization in DIRECT_TYPES:
        return size
    # llama.cpp falls back to larger types where 256 does not divide a row.
    aligned = shape.width % 256 == 0 and shape.ff % 256 == 0
    return int(size * REQUANTIZED_TYPES[spec.quantization] / 8.5) if aligned else size


def _written_type(spec: SynthSpec) -> str:
    return spec.quantization if spec.quantization in DIRECT_TYPES else "Q8_0"


def _file_bytes(shape: Shape, quantization: str) -> int:
    data = sum(tensor_bytes(tensor, quantization) + _ALIGNMENT for tensor in tensors(shape))
    return data + 2**16 + _HEADER_BYTES_PER_TOKEN * shape.vocabulary


def _write(
    file: Path, spec: SynthSpec, shape: Shape, quantization: str, report: Callable[[int], None]
) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(file, spec.architecture)
    try:
        add_metadata(writer, spec, quantization, shape, build_vocabulary(spec.vocabulary))
        _add_tensor_infos(writer, shape, quantization)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        _write_data(cast(BinaryIO, (writer.fout or [])[0]), spec, shape, quantization, report)
    finally:
        for written in writer.fout or []:
            written.close()


def _add_tensor_infos(writer: GGUFWriter, shape: Shape, quantization: str) -> None:
    import numpy as np
    from gguf import GGMLQuantizationType

    for tensor in tensors(shape):
        kind = GGMLQuantizationType[tensor_type(tensor, quantization)]
        size = tensor_bytes(tensor, quantization)
        writer.add_tensor_info(tensor.name, tensor.dims, np.dtype(np.float32), size, raw_dtype=kind)


def _write_data(
    file: BinaryIO, spec: SynthSpec, shape: Shape, quantization: str, report: Callable[[int], None]
) -> None:
    """Write the tensors in chunks: the writer's own method needs a whole tensor in memory."""
    _pad(file)
    for tensor in tensors(shape):
        for chunk in tensor_data(tensor, quantization, spec.seed, quiet_tokens(shape.vocabulary)):
            file.write(chunk.data)
            report(file.tell())
        _pad(file)


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % _ALIGNMENT))
