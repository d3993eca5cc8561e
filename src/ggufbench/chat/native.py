"""llama.cpp's C interface and its log.

llama.cpp has one log per process. Lines are passed to the callback that was installed before ours, because
that may be a program that collects them. If only the binding's own callback was installed, they go to stderr
when a model was loaded with `verbose`, and nowhere otherwise. The last errors are kept for our own messages.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections import deque
from functools import cache
from typing import Any

from ggufbench.chat.errors import ChatModelError
from ggufbench.text import escaped, printable

_ERROR, _CONTINUE = 4, 5
"""Levels of ggml.h; the binding's table is off by one."""
_GPU_TYPES = (1, 2)
"""`GGML_BACKEND_DEVICE_TYPE_GPU` and `..._IGPU`."""

loading = threading.RLock()
"""Held while a model is loaded: log lines do not name the file, and errors must belong to the right one."""


@cache
def library() -> Any:
    """The module of llama.cpp's functions, initialized. Raises ChatModelError if it is not installed."""
    try:
        from llama_cpp import llama_cpp as api
    except ModuleNotFoundError as error:
        if error.name != "llama_cpp":
            raise
        raise ChatModelError(
            'llama-cpp-python is not installed; install it with pip install "ggufbench[llamacpp,langchain]".'
        ) from None
    api.llama_backend_init()
    return api


def has_gpu(api: Any) -> bool:
    """True if this llama.cpp sees a GPU that can hold layers and their part of the KV cache."""
    # Ask the copy of ggml that libllama uses: the binding's own module may load a second one.
    devices = api._lib
    devices.ggml_backend_dev_count.restype = ctypes.c_size_t
    devices.ggml_backend_dev_get.restype = ctypes.c_void_p
    devices.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    devices.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    return any(
        devices.ggml_backend_dev_type(devices.ggml_backend_dev_get(index)) in _GPU_TYPES
        for index in range(devices.ggml_backend_dev_count())
    )


class LibraryLog:
    """Log callback that forwards lines to the callback installed before it."""

    def __init__(self, api: Any) -> None:
        from llama_cpp import _logger

        self.verbose = False
        self._api = api
        self._errors: deque[str] = deque(maxlen=8)
        self._level = 0
        self._take = api.llama_log_callback(self._receive)
        self._silent = {_address(_logger.llama_log_callback), _address(self._take), None}
        self._next: tuple[Any, Any] | None = None

    def listen(self, *, verbose: bool) -> None:
        """Install the callback and forget earlier errors."""
        current, data = self._api.llama_log_callback(), ctypes.c_void_p()
        self._api.llama_log_get(ctypes.byref(current), ctypes.byref(data))
        if _address(current) != _address(self._take):
            self._next = None if _address(current) in self._silent else (current, data)
            self._api.llama_log_set(self._take, None)
        self.verbose = verbose
        self._errors.clear()

    def why(self) -> str:
        """The last errors in brackets, for a message; empty if there were no errors."""
        lines = dict.fromkeys(line for line in map(printable, self._errors) if line)
        return f" (llama.cpp: {'; '.join(lines)})" if lines else ""

    def _receive(self, level: int, text: bytes, _data: Any) -> None:
        if level != _CONTINUE:
            self._level = level
        line = (text or b"").decode("utf-8", errors="replace")
        if self._level == _ERROR:
            self._errors.append(line)
        if self._next is not None:
            self._next[0](level, text, self._next[1])
        elif self.verbose:
            sys.stderr.write(escaped(line, "\n\t"))


@cache
def log() -> LibraryLog:
    """The log of this process."""
    return LibraryLog(library())


def _address(callback: Any) -> int | None:
    return ctypes.cast(callback, ctypes.c_void_p).value
