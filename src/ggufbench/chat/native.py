"""llama.cpp's C interface and its log.

The log is one for the whole process. Lines go to whoever listened before us, because that may be a program
that collects them; where nobody did but the binding itself, they go to stderr if a model was loaded with
`verbose`, and nowhere else. The last errors are kept for our own messages.
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
"""Levels of ggml.h; the binding's own table is off by one."""
_GPU_TYPES = (1, 2)
"""`GGML_BACKEND_DEVICE_TYPE_GPU` and `..._IGPU`."""

loading = threading.RLock()
"""Held while a model is loaded: the log has no names, and errors shall belong to the right file."""


@cache
def library() -> Any:
    """The module of llama.cpp's functions, ready for use. Raises ChatModelError where it is not installed."""
    try:
        from llama_cpp import llama_cpp as api
    except ModuleNotFoundError as error:
        if error.name != "llama_cpp":
            raise
        raise ChatModelError(
            'llama-cpp-python is not installed; `pip install "ggufbench[llamacpp,langchain]"` brings it.'
        ) from None
    api.llama_backend_init()
    return api


def has_gpu(api: Any) -> bool:
    """Whether this llama.cpp sees a device that has layers and their part of the KV cache to itself."""
    # Of the copy that libllama itself uses: the binding's own module may load a second one.
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
    """Stands between llama.cpp and whoever listened to its log."""

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
        """Receive the log from now on, and forget the errors of the past."""
        current, data = self._api.llama_log_callback(), ctypes.c_void_p()
        self._api.llama_log_get(ctypes.byref(current), ctypes.byref(data))
        if _address(current) != _address(self._take):
            self._next = None if _address(current) in self._silent else (current, data)
            self._api.llama_log_set(self._take, None)
        self.verbose = verbose
        self._errors.clear()

    def why(self) -> str:
        """The last errors, to stand in brackets in a message; empty where there are none."""
        told = dict.fromkeys(line for line in map(printable, self._errors) if line)
        return f" (llama.cpp: {'; '.join(told)})" if told else ""

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
    """The one of this process."""
    return LibraryLog(library())


def _address(callback: Any) -> int | None:
    return ctypes.cast(callback, ctypes.c_void_p).value
