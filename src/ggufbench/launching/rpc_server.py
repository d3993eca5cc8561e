"""An RPC server on loopback, which makes a GPU-type device out of the processor of any machine."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable

from ggufbench.worker.channel import ProviderError
from ggufbench.worker.native import Library, device_list


def serve(port: int, threads: int, on_ready: Callable[[], None]) -> None:
    """Serve this machine's devices on 127.0.0.1 until the process ends.

    The protocol has no authentication, so other machines cannot be served. `on_ready` is called when nothing
    can fail any more. Raises ProviderError if the port is taken or llama.cpp has no RPC.
    """
    _check_port(port)
    library = Library()
    if not library.api.llama_supports_rpc():
        raise ProviderError("this llama.cpp was built without RPC; rebuild with CMAKE_ARGS=-DGGML_RPC=ON")
    devices = library.devices()
    # The call below never returns to Python, which could then not react to a signal.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    on_ready()
    endpoint = f"127.0.0.1:{port}".encode()
    library.ggml.ggml_backend_rpc_start_server(endpoint, None, threads, len(devices), device_list(devices))


def _check_port(port: int) -> None:
    try:
        with socket.create_server(("127.0.0.1", port)):
            pass
    except OSError as error:
        raise ProviderError(
            f"port {port} cannot be used: {os.strerror(error.errno or 0)}; choose another with --port"
        ) from None
    except OverflowError:
        raise ProviderError(f"invalid port {port}; choose one from 1024 to 65535 with --port") from None
