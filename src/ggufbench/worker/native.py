"""llama.cpp as installed with llama-cpp-python: symbols, log, devices."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from .channel import ProviderError
from .job import DEVICE_PREFIXES, Setting, without_integrated
from .protocol import DeviceFacts, LibraryFacts
from .releases import refuse_too_old

_DEVICE_TYPES = {0: "cpu", 1: "gpu", 2: "igpu", 3: "accelerator", 4: "meta"}
_WARN, _ERROR, _CONTINUE = 3, 4, 5
"""Levels of ggml.h. The binding's own table is off by one, which hides errors when it is not verbose."""

_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_size_t
_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_backend_dev_count": (_SIZE, []),
    "ggml_backend_dev_get": (_POINTER, [_SIZE]),
    "ggml_backend_dev_name": (ctypes.c_char_p, [_POINTER]),
    "ggml_backend_dev_description": (ctypes.c_char_p, [_POINTER]),
    "ggml_backend_dev_type": (ctypes.c_int, [_POINTER]),
    "ggml_backend_dev_memory": (None, [_POINTER, ctypes.POINTER(_SIZE), ctypes.POINTER(_SIZE)]),
    "ggml_backend_register": (None, [_POINTER]),
}
_VERSION_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_commit": (ctypes.c_char_p, []),
    "ggml_version": (ctypes.c_char_p, []),
}
"""Symbols that some releases lack."""
_RPC_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_backend_rpc_add_server": (_POINTER, [ctypes.c_char_p]),
    "ggml_backend_rpc_start_server": (
        None,
        [ctypes.c_char_p, ctypes.c_char_p, _SIZE, _SIZE, ctypes.POINTER(_POINTER)],
    ),
}


class NativeLog:
    """Everything llama.cpp logs, in order. Warnings and errors also go to stderr at once.

    Lines that are only in memory are lost in a crash, and the lines that explain a crash are errors.
    """

    def __init__(self, api: Any) -> None:
        self._lines: list[tuple[int, bytes]] = []
        self._callback = api.llama_log_callback(self._take)
        api.llama_log_set(self._callback, None)

    def _take(self, level: int, text: bytes, _user_data: Any) -> None:
        self._lines.append((level, text))
        if level in (_WARN, _ERROR):
            os.write(2, text)

    def drain(self) -> list[str]:
        """Return the lines since the last call, continued lines joined."""
        lines, self._lines = self.peek(), []
        return lines

    def peek(self) -> list[str]:
        """The lines that the next `drain` will return."""
        lines: list[str] = []
        for level, raw in self._lines:
            text = _text(raw)
            if level == _CONTINUE and lines:
                lines[-1] += text
            else:
                lines.append(text)
        return [text.rstrip("\n") for text in lines if text.strip()]

    def errors(self) -> str:
        """The error lines so far in one string; empty without errors."""
        return "; ".join(_text(raw).strip() for level, raw in self._lines if level == _ERROR)


class Library:
    """The imported bindings with their ggml symbols.

    With `whole_package` it is the package as every program imports it, for code that also uses it.
    """

    def __init__(self, *, whole_package: bool = False) -> None:
        self.api: Any = import_package() if whole_package else import_bindings()
        self.version = installed_version("llama-cpp-python")
        refuse_too_old(self.api, self.version)
        self.log = NativeLog(self.api)
        self.ggml = ggml_symbols(self.api)
        self.api.llama_backend_init()

    def describe(self, *, with_memory: bool = False) -> LibraryFacts:
        """Versions, build flags and devices, as the record keeps them.

        A launch does not query device memory before the load: to answer, CUDA creates a context in the
        process. Its time and memory belong to the load, or to nothing if the model is on the processor.
        """
        return LibraryFacts(
            versions={
                "python": platform.python_version(),
                "llama-cpp-python": self.version,
                "llama.cpp": self._said_by("ggml_commit"),
                "ggml": self._said_by("ggml_version"),
            },
            system_info=_text(self.api.llama_print_system_info()).strip(),
            supports_rpc=bool(self.api.llama_supports_rpc()),
            supports_gpu_offload=bool(self.api.llama_supports_gpu_offload()),
            devices=[self._describe_device(device, with_memory) for device in self.devices()],
        )

    def _said_by(self, name: str) -> str:
        return _text(getattr(self.ggml, name)()) if hasattr(self.ggml, name) else "unknown"

    def devices(self) -> list[int]:
        """Handles of every device that the library knows now."""
        return [self.ggml.ggml_backend_dev_get(index) for index in range(self.ggml.ggml_backend_dev_count())]

    def _describe_device(self, device: int, with_memory: bool) -> DeviceFacts:
        free, total = self.device_memory(device) if with_memory else (None, None)
        return DeviceFacts(
            name=self.device_name(device),
            description=_text(self.ggml.ggml_backend_dev_description(device)),
            type=self.device_type(device),
            memory_free_bytes=free,
            memory_total_bytes=total,
        )

    def free_bytes(self, devices: Iterable[int]) -> dict[str, int]:
        """Free bytes of each of these devices, by name."""
        return {self.device_name(device): self.device_memory(device)[0] for device in devices}

    def device_name(self, device: int) -> str:
        """Name of a device, for example `CPU`, `MTL0`, `CUDA0`."""
        return _text(self.ggml.ggml_backend_dev_name(device))

    def device_type(self, device: int) -> str:
        """Type of a device, for example `cpu`, `gpu`, `igpu` (with the system's memory)."""
        return _DEVICE_TYPES.get(self.ggml.ggml_backend_dev_type(device), "unknown")

    def device_memory(self, device: int) -> tuple[int, int]:
        """Free and total bytes."""
        free, total = _SIZE(0), _SIZE(0)
        self.ggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def devices_of(self, setting: Setting) -> list[int]:
        """Handles of the devices that a setting may use, those of its RPC servers included; empty for `cpu`.

        Raises ProviderError if the setting's device is not available.
        """
        wanted = setting.device
        if wanted == "cpu":
            return []
        if wanted == "rpc":
            self.add_rpc_servers(setting.rpc_servers)
        prefixes = DEVICE_PREFIXES[wanted]
        named = [device for device in self.devices() if self.device_name(device).startswith(prefixes)]
        found = without_integrated({device: self.device_type(device) for device in named})
        if not found:
            known = ", ".join(self.device_name(device) for device in self.devices())
            raise ProviderError(f"no {wanted} device: this llama.cpp sees {known}")
        return found

    def add_rpc_servers(self, endpoints: str) -> None:
        """Register the devices of RPC servers given as `host:port,host:port`."""
        for endpoint in filter(None, endpoints.split(",")):
            registry = self.ggml.ggml_backend_rpc_add_server(endpoint.strip().encode())
            if not registry:
                raise ProviderError(f"no RPC server answers at {endpoint}")
            self.ggml.ggml_backend_register(registry)


def import_bindings() -> Any:
    """The module `llama_cpp.llama_cpp`, which is llama.cpp's C interface, without the package around it.

    The package imports numpy, and with numpy in the process llama.cpp decodes about 2 % slower; the same was
    seen with llama-bench's own code. Raises ModuleNotFoundError like the import statement.
    """
    found = importlib.util.find_spec("llama_cpp")
    if found is None or found.submodule_search_locations is None:
        raise ModuleNotFoundError("No module named 'llama_cpp'", name="llama_cpp")
    package = ModuleType("llama_cpp")
    package.__path__, package.__spec__ = list(found.submodule_search_locations), found
    sys.modules["llama_cpp"] = package
    return importlib.import_module("llama_cpp.llama_cpp")


def import_package() -> Any:
    """The same module from the whole package, for code that imports `llama_cpp` itself.

    Raises ModuleNotFoundError like the import statement.
    """
    importlib.import_module("llama_cpp")
    return importlib.import_module("llama_cpp.llama_cpp")


def installed_version(distribution: str) -> str:
    """The version of an installed package, or `unknown`."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # imported from a folder without being installed
        return "unknown"


class _ThreadpoolParams(ctypes.Structure):
    """`struct ggml_threadpool_params` of ggml.h."""

    _fields_ = [
        ("cpumask", ctypes.c_bool * 512),
        ("n_threads", ctypes.c_int),
        ("priority", ctypes.c_int),
        ("poll", ctypes.c_uint32),
        ("strict_cpu", ctypes.c_bool),
        ("paused", ctypes.c_bool),
    ]


def attach_threadpool(library: Any, context: Any, threads: int) -> Any:
    """Give a context its own threads that persist between tokens, as llama-bench does.

    Without them a build without OpenMP starts and ends threads for each token. Returns the pool, to be freed
    after the context with `ggml_threadpool_free`; None if this build does not export the functions.
    """
    if not all(hasattr(library, name) for name in _THREADPOOL_PROTOTYPES):
        return None
    for name, (result, arguments) in _THREADPOOL_PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    params = _ThreadpoolParams()
    library.ggml_threadpool_params_init(ctypes.byref(params), threads)
    pool = library.ggml_threadpool_new(ctypes.byref(params))
    if pool:
        library.llama_attach_threadpool(context, pool, None)
    return pool


_THREADPOOL_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "ggml_threadpool_params_init": (None, [ctypes.POINTER(_ThreadpoolParams), ctypes.c_int]),
    "ggml_threadpool_new": (_POINTER, [ctypes.POINTER(_ThreadpoolParams)]),
    "ggml_threadpool_free": (None, [_POINTER]),
    "llama_attach_threadpool": (None, [_POINTER, _POINTER, _POINTER]),
}


def ggml_symbols(api: Any) -> Any:
    """The ggml functions of the copy that libllama itself uses.

    Opening libggml by its path, as the binding's `_ggml` module does, can load a second copy with its own
    device registry: devices registered there look real and compute nothing.
    """
    library = api._lib
    versions = {name: types for name, types in _VERSION_PROTOTYPES.items() if hasattr(library, name)}
    prototypes = {**_PROTOTYPES, **versions, **(_RPC_PROTOTYPES if api.llama_supports_rpc() else {})}
    for name, (result, arguments) in prototypes.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def device_list(handles: Iterable[int]) -> Any:
    """The `ggml_backend_dev_t *` list for a model's parameters; the caller keeps it alive."""
    listed = [*handles, None]
    return (ctypes.c_void_p * len(listed))(*listed)


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", errors="replace")
