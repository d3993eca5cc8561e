"""Quantize one GGUF: `python -m ggufbench.modelkit.quantizer_process IN OUT TYPE THREADS`.

Writes lines to stdout: `tensors done/tensors`, finally `size BYTES` of all tensors and `fallbacks N`, and in
a `--dry-run`, which writes no file, `imatrix` if the type needs one. llama.cpp's errors go to stderr; exits
with 0 or 1. Nothing imports this module, so llama_cpp is never loaded into the main process.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ggufbench.modelkit.legacy_imatrix import read_legacy_imatrix

_ERROR, _CONTINUED = 4, 5
_TENSOR_LINE = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")
_SIZE_LINE = re.compile(r".*quant size += +([\d.]+) MiB")
_FALLBACK_LINE = re.compile(r".*WARNING: (\d+) of \d+ tensor\(s\) required fallback")
_IMATRIX_LINE = re.compile(r".*will require an imatrix")


class QuantizerLog:
    """Receives llama.cpp's log lines; levels are ggml's (llama-cpp-python's are off by one)."""

    def __init__(self, target: Path) -> None:
        self._level = 0
        self._target = target
        self.errors: list[str] = []

    def take(self, level: int, text: str) -> None:
        """Process one piece of a line: keep errors, print progress and facts to stdout."""
        self._level = self._level if level == _CONTINUED else level
        if self._level == _ERROR:
            self.errors.append(text)
        if match := _TENSOR_LINE.match(text):
            self._say(f"{match[1]}/{match[2]}")
        elif match := _SIZE_LINE.match(text):
            self._say(f"size {int(float(match[1]) * 2**20)}")
        elif match := _FALLBACK_LINE.match(text):
            self._say(f"fallbacks {match[1]}")
        elif _IMATRIX_LINE.match(text):
            self._say("imatrix")

    def _say(self, line: str) -> None:
        try:
            print(line, flush=True)
        except BrokenPipeError:
            # The parent process is gone, and native code would drop an exception.
            self._target.unlink(missing_ok=True)
            os._exit(1)


def main(arguments: list[str]) -> int:
    """Quantize; returns 0 when the file is complete."""
    options = _parse(arguments)
    # Imported here, so that a failure is reported in one line.
    try:
        from llama_cpp import llama_cpp as native
    except (ImportError, OSError, RuntimeError) as error:
        print(f"llama-cpp-python cannot be imported: {error}", file=sys.stderr)
        return 1
    log = QuantizerLog(options.target)
    callback = _set_log(native, log.take)
    parameters = native.llama_model_quantize_default_params()
    if "dry_run" not in dict(parameters._fields_):  # ctypes would take the unknown name and apply nothing
        print("this llama-cpp-python is too old to compute a size in advance; upgrade it", file=sys.stderr)
        return 1
    parameters.ftype = _file_type(native, options.type)
    parameters.nthread = options.threads
    parameters.allow_requantize = True
    parameters.dry_run = options.dry_run
    if options.imatrix is not None:
        try:
            importance = read_imatrix(options.imatrix)
        except Exception as error:  # whatever a broken file makes its reader raise
            print(f"{options.imatrix} is not a readable importance matrix: {error}", file=sys.stderr)
            return 1
        entries = _native_entries(native, importance)
        parameters.imatrix = entries
    source, target = os.fsencode(options.source), os.fsencode(options.target)
    status = native.llama_model_quantize(source, target, ctypes.byref(parameters))
    del callback
    if status != 0:
        print("".join(log.errors).strip() or f"llama_model_quantize returned {status}", file=sys.stderr)
    return 1 if status != 0 else 0


def read_imatrix(path: Path) -> dict[str, Any]:
    """The mean square of each tensor's inputs: a row of float32 for each expert, laid end to end.

    An expert that no token reached has ones, as in llama.cpp's own tool. Raises ValueError for other files.
    """
    import numpy as np
    from gguf import GGUFReader

    with path.open("rb") as file:
        is_gguf = file.read(4) == b"GGUF"
    if not is_gguf:
        return read_legacy_imatrix(path)
    found = {tensor.name: tensor.data for tensor in GGUFReader(path).tensors}
    importance = {}
    for name, sums in found.items():
        if not name.endswith(".in_sum2"):
            continue
        tensor = name.removesuffix(".in_sum2")
        counts = np.asarray(found[f"{tensor}.counts"], np.float32).reshape(-1, 1)
        rows = np.asarray(sums, np.float32).reshape(len(counts), -1)
        means = np.where(counts > 0, rows / np.maximum(counts, 1), 1)
        importance[tensor] = np.ascontiguousarray(means, np.float32).ravel()
    if not importance:
        raise ValueError("it has no tensor whose name ends in .in_sum2")
    return importance


def _native_entries(native: Any, importance: dict[str, Any]) -> Any:
    """Array for the C interface, terminated by a nameless entry; it and all values must outlive the call."""
    entries = (native.llama_model_imatrix_data * (len(importance) + 1))()
    for entry, (name, values) in zip(entries, importance.items(), strict=False):
        entry.name = name.encode()
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        entry.size = len(values)
    return entries


def _file_type(native: Any, name: str) -> int:
    prefix = "LLAMA_FTYPE_ALL_" if name == "F32" else "LLAMA_FTYPE_MOSTLY_"
    return int(getattr(native, prefix + name))


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("type")
    parser.add_argument("threads", type=int)
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--imatrix", type=Path)
    return parser.parse_args(arguments)


def _set_log(native: Any, take: Callable[[int, str], None]) -> object:
    """Route the native log to `take`; the result must be kept alive as long as native code runs."""

    def receive(level: int, text: bytes, _: object) -> None:
        take(level, text.decode("utf-8", "replace"))

    callback: object = native.llama_log_callback(receive)
    native.llama_log_set(callback, None)
    return callback


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
