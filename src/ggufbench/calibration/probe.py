"""Probe of an environment: its llama.cpp and the devices, as reported by a worker; never imported here."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict

from ggufbench.launching.launcher import Interpreter, launch
from ggufbench.machine.devices import AvailableDevices
from ggufbench.machine.parts import Device
from ggufbench.outcomes import Outcome
from ggufbench.worker.job import TRANSFORMERS
from ggufbench.worker.protocol import Probed, ProbeJob

_DEADLINE_SECONDS = 60.0
_CONNECT_SECONDS = 2.0
PYTORCH_IMPORT_SECONDS = 180.0
"""Importing PyTorch from a cold disk takes a minute on some machines."""


def probe(interpreter: Interpreter, rpc_servers: str = "") -> AvailableDevices:
    """Library and devices of an environment and of the RPC servers, from a fresh worker. Never raises."""
    absent = _absent_server(rpc_servers)
    if absent is not None:
        return _without(f"no RPC server answers at {absent}; start one with `ggufbench rpc-server`")
    ended = launch(
        ProbeJob(rpc_servers=rpc_servers),
        lambda _phase: _DEADLINE_SECONDS,
        interpreter=interpreter,
    )
    answer = ended.find(Probed)
    if ended.outcome is not Outcome.MEASURED or answer is None:
        return _without(_explain(ended.reason or "the worker sent no answer", interpreter, rpc_servers))
    return _environment(answer)


def probe_transformers(interpreter: Interpreter) -> AvailableDevices:
    """PyTorch and transformers of an environment, from a fresh worker. Never raises."""
    ended = launch(
        ProbeJob(TRANSFORMERS),
        lambda _phase: PYTORCH_IMPORT_SECONDS,
        interpreter=interpreter,
    )
    answer = ended.find(Probed)
    if ended.outcome is Outcome.MEASURED and answer is not None:
        return _environment(answer, TRANSFORMERS)
    reason = ended.reason or "the worker sent no answer"
    if "No module named" in reason:
        return _without(
            f"{interpreter.python} has no PyTorch with transformers; install them with "
            "`pip install torch transformers accelerate`"
        )
    return _without(f"transformers does not start: {reason}")


def _environment(answer: Probed, library: str = "llama.cpp") -> AvailableDevices:
    facts = answer.library
    return AvailableDevices(
        library=library,
        versions=facts.versions,
        system_info=facts.system_info,
        supports_rpc=facts.supports_rpc,
        devices=[Device(**asdict(device)) for device in facts.devices],
        errors=answer.errors,
        missing_packages=answer.missing_packages,
    )


def _without(problem: str) -> AvailableDevices:
    return AvailableDevices(versions={}, system_info="", supports_rpc=False, devices=[], problem=problem)


def _explain(reason: str, interpreter: Interpreter, rpc_servers: str) -> str:
    if "No module named 'llama_cpp'" in reason:
        hint = " (workers do not get PYTHONPATH)" if os.environ.get("PYTHONPATH") else ""
        return (
            f"{interpreter.python} has no llama-cpp-python{hint}; "
            "install it with `pip install llama-cpp-python`"
        )
    where = f" with the RPC server {rpc_servers}" if rpc_servers else ""
    return f"llama-cpp-python does not start{where}: {reason}"


def _absent_server(rpc_servers: str) -> str | None:
    """The first server that refuses a connection. This test is quick, and the library would abort."""
    for endpoint in filter(None, rpc_servers.split(",")):
        host, _, port = endpoint.strip().rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        except (OSError, ValueError, OverflowError):  # the last: a port above 65535
            return endpoint.strip()
    return None
