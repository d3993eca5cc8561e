"""Which llama.cpp an environment has, and which devices it sees: asked of a worker, never imported here."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Any

from ggufbench.launching.launcher import Interpreter, launch
from ggufbench.records.schema import Device, Outcome
from ggufbench.worker.job import DEVICE_PREFIXES, TRANSFORMERS

_DEADLINE_SECONDS = 60.0
_CONNECT_SECONDS = 2.0
PYTORCH_IMPORT_SECONDS = 180.0
"""Importing PyTorch from a cold disk takes a minute on some machines."""
_REBUILD = "pip install --force-reinstall --no-cache-dir llama-cpp-python"
_REMEDY = {
    "metal": f'on a Mac: CMAKE_ARGS="-DGGML_METAL=on" {_REBUILD}',
    "cuda": f'with an NVIDIA GPU: CMAKE_ARGS="-DGGML_CUDA=on" {_REBUILD}',
    "vulkan": f'with a Vulkan driver: CMAKE_ARGS="-DGGML_VULKAN=on" {_REBUILD}',
}

_REMEDY_OF_TORCH = {
    "mps": "on a Mac with Apple Silicon: pip install --force-reinstall torch",
    "cuda": "with an NVIDIA GPU and its driver: a PyTorch for CUDA, as pytorch.org/get-started says",
}


@dataclass(frozen=True, slots=True)
class Environment:
    """The answer of a probe; `problem` says why there is none."""

    versions: dict[str, str]
    system_info: str
    supports_rpc: bool
    devices: list[Device]
    problem: str | None = None
    library: str = "llama.cpp"
    errors: str = ""
    """What the library said was wrong when it looked for devices."""
    missing_packages: dict[str, str] = field(default_factory=dict)
    """Of each layer over llama.cpp that cannot be measured here, by the provider's name."""

    def lacks(self, device: str) -> str | None:
        """Why a setting for this device cannot run here, in one sentence; None where it can."""
        if self.problem is not None:
            return self.problem
        if device == "cpu" or self._named(device):
            return None
        if device == "rpc" and not self.supports_rpc:
            return (
                "this llama.cpp was built without RPC; rebuild llama-cpp-python with CMAKE_ARGS=-DGGML_RPC=ON"
            )
        seen = ", ".join(found.name for found in self.devices)
        # A build with that backend says itself what is wrong: to build it again would change nothing.
        why = self.errors if device in self.errors.casefold() else self._remedy(device)
        return f"no {device} device: this {self.library} sees {seen}" + (f" ({why})" if why else "")

    def lacks_layer(self, provider: str) -> str | None:
        """Why a provider cannot be measured here, in one sentence; None where nothing of it is missing."""
        packages = self.missing_packages.get(provider)
        if packages is None:
            return None
        return f"provider {provider} needs packages that are not here; `pip install {packages}`"

    def free_bytes(self, device: str) -> int | None:
        """Free memory on the devices of that kind together; None where they do not say."""
        return sum(found.memory_free_bytes or 0 for found in self._named(device)) or None

    def gpu_names(self) -> list[str]:
        """Devices that are not the processor, with what they are."""
        return [f"{found.name}: {found.description}" for found in self.devices if found.type != "cpu"]

    def _remedy(self, device: str) -> str | None:
        if self.library == TRANSFORMERS:
            return _REMEDY_OF_TORCH.get(device)
        return _REMEDY.get(device)

    def _named(self, device: str) -> list[Device]:
        prefixes = DEVICE_PREFIXES.get(device, ())
        return [found for found in self.devices if found.name.startswith(prefixes)] if prefixes else []


def probe(interpreter: Interpreter, rpc_servers: str = "") -> Environment:
    """Ask a fresh worker which library and devices are there; with servers, also for theirs. Never raises."""
    absent = _absent_server(rpc_servers)
    if absent is not None:
        return _without(f"no RPC server answers at {absent}; start one with `ggufbench rpc-server`")
    ended = launch(
        {"task": "probe", "rpc_servers": rpc_servers},
        lambda _phase: _DEADLINE_SECONDS,
        interpreter=interpreter,
    )
    answer = ended.find("probed")
    if ended.outcome is not Outcome.MEASURED or answer is None:
        return _without(_explain(ended.reason or "the worker said nothing", interpreter, rpc_servers))
    return _environment(answer)


def probe_transformers(interpreter: Interpreter) -> Environment:
    """Ask a fresh worker which PyTorch and transformers are there. Never raises."""
    ended = launch(
        {"task": "probe", "provider": TRANSFORMERS},
        lambda _phase: PYTORCH_IMPORT_SECONDS,
        interpreter=interpreter,
    )
    answer = ended.find("probed")
    if ended.outcome is Outcome.MEASURED and answer is not None:
        return _environment(answer, TRANSFORMERS)
    reason = ended.reason or "the worker said nothing"
    if "No module named" in reason:
        return _without(
            f"{interpreter.python} has no PyTorch with transformers; install them with "
            "`pip install torch transformers accelerate`"
        )
    return _without(f"transformers does not start: {reason}")


def _environment(answer: dict[str, Any], library: str = "llama.cpp") -> Environment:
    return Environment(
        library=library,
        versions=answer["versions"],
        system_info=answer["system_info"],
        supports_rpc=answer["supports_rpc"],
        devices=[Device(**device) for device in answer["devices"]],
        errors=answer.get("errors", ""),
        missing_packages=answer.get("layers", {}),
    )


def _without(problem: str) -> Environment:
    return Environment(versions={}, system_info="", supports_rpc=False, devices=[], problem=problem)


def _explain(reason: str, interpreter: Interpreter, rpc_servers: str) -> str:
    if "No module named 'llama_cpp'" in reason:
        return f"{interpreter.python} has no llama-cpp-python; install it with `pip install llama-cpp-python`"
    where = f" with the RPC server {rpc_servers}" if rpc_servers else ""
    return f"llama-cpp-python does not start{where}: {reason}"


def _absent_server(rpc_servers: str) -> str | None:
    """The first server that takes no connection; connecting is quick, and the library would abort."""
    for endpoint in filter(None, rpc_servers.split(",")):
        host, _, port = endpoint.strip().rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        except (OSError, ValueError, OverflowError):  # the last: a port above 65535
            return endpoint.strip()
    return None
