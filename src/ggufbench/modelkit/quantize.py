"""Quantize one GGUF: `python -m ggufbench.modelkit.quantize IN OUT TYPE THREADS`.

Writes `tensors done/tensors` lines to stdout and llama.cpp's error lines to stderr; exits with 0 or 1.
Nothing imports this module: llama_cpp stays out of the program's own process.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Callable
from typing import Any

_ERROR, _CONTINUED = 4, 5
_TENSOR_LINE = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")


class NativeLog:
    """Takes llama.cpp's lines; the numbers of the levels are ggml's (llama-cpp-python's own are one off)."""

    def __init__(self) -> None:
        self._level = 0
        self.errors: list[str] = []

    def take(self, level: int, text: str) -> None:
        """One piece of a line: an error is kept, a tensor's number goes to stdout."""
        self._level = self._level if level == _CONTINUED else level
        if self._level == _ERROR:
            self.errors.append(text)
        match = _TENSOR_LINE.match(text)
        if match is not None:
            try:
                print(f"{match[1]}/{match[2]}", flush=True)
            except BrokenPipeError:
                # Whoever asked is gone, and an exception would be dropped at the border to native code.
                os._exit(1)


def main(arguments: list[str]) -> int:
    """Quantize; 0 when the file is complete."""
    source, target, quantization, threads = arguments
    # Imported here, so that a failure is told in one line.
    try:
        from llama_cpp import llama_cpp as native
    except (ImportError, OSError, RuntimeError) as error:
        print(f"llama-cpp-python cannot be imported: {error}", file=sys.stderr)
        return 1
    log = NativeLog()
    callback = _set_log(native, log.take)
    parameters = native.llama_model_quantize_default_params()
    parameters.ftype = getattr(native, f"LLAMA_FTYPE_MOSTLY_{quantization}")
    parameters.nthread = int(threads)
    parameters.allow_requantize = True
    status = native.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(parameters))
    del callback
    if status != 0:
        print("".join(log.errors).strip() or f"llama_model_quantize returned {status}", file=sys.stderr)
    return 1 if status != 0 else 0


def _set_log(native: Any, take: Callable[[int, str], None]) -> object:
    """Route the native log to `take`; the result must be kept alive as long as native code runs."""

    def receive(level: int, text: bytes, _: object) -> None:
        take(level, text.decode("utf-8", "replace"))

    callback: object = native.llama_log_callback(receive)
    native.llama_log_set(callback, None)
    return callback


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
