"""What llama.cpp says it did, read from its log: layers and buffers by device, load mode, flash attention.

"offloaded N/N layers to GPU" is not read: it repeats the request, also where every layer went to the CPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

# Each is matched from the start of a line, where the name of llama.cpp's function stands: further on may be a
# name or a template out of the model's file, which can hold any of these sentences.
_LAYER = re.compile(r"load_tensors: layer {1,3}(\d{1,9}) assigned to device (\S+?),", re.ASCII)
_BUFFER = re.compile(
    r"\w+: +(\S+) +(model|KV|compute|output|RS) buffer size = +(\d{1,12}\.\d{1,4}) MiB", re.ASCII
)
_LOAD_MODE = re.compile(r"load_tensors: loading model tensors.{0,60}\(load_mode = ([\w+]+)\)", re.ASCII)
# Releases before the load mode had a switch for each way; locking is not in their log.
_LOAD_SWITCHES = re.compile(
    r"load_tensors: loading model tensors.{0,60}\(mmap = (\w+), direct_io = (\w+)\)", re.ASCII
)
_FLASH_AUTO = re.compile(
    r"\w+: Flash Attention (?:was auto, set to )?(enabled|disabled|not supported, set to disabled)", re.ASCII
)
_FLASH_ASKED = re.compile(r"\w+: flash_attn += (\w+)", re.ASCII)
_KV_TYPES = re.compile(r"\w+: size = [^K]{0,99}K \((\w+)\): [^V]{0,99}V \((\w+)\):", re.ASCII)
_HOST_BUFFERS = re.compile(r"^(CPU|AMX|BLAS|\w+_Host$)")
_MIB = 1024 * 1024


@dataclass(frozen=True)
class LoadLog:
    """The facts of one load."""

    layers: dict[str, int] = field(default_factory=dict)
    """Device name to the number of layers on it; the output layer counts as one."""
    buffers: dict[str, dict[str, int]] = field(default_factory=dict)
    """Kind (`model`, `KV`, `compute`, `output`) to buffer name (`CPU_Mapped`, `MTL0`) to bytes."""
    load_mode: str | None = None
    flash_attn: str | None = None
    """`on` or `off`, as it was resolved."""
    type_k: str | None = None
    type_v: str | None = None

    @property
    def device_bytes(self) -> int:
        """Bytes in buffers that are not the processor's memory."""
        return sum(size for kind in self.buffers.values() for name, size in kind.items() if not is_host(name))


def parse_load_log(lines: Iterable[str]) -> LoadLog:
    """Read the facts from the log lines of loading a model and creating its context."""
    layers: dict[int, str] = {}
    buffers: dict[str, dict[str, int]] = {}
    found: dict[str, str] = {}
    for line in lines:
        if match := _LAYER.match(line):
            layers[int(match[1])] = match[2]
        elif match := _BUFFER.match(line):
            kind = buffers.setdefault(match[2], {})
            kind[match[1]] = kind.get(match[1], 0) + round(float(match[3]) * _MIB)
        else:
            _read_facts(line, found)
    return LoadLog(layers=_count(layers.values()), buffers=buffers, **found)


def offload_problem(log: LoadLog, device: str, n_gpu_layers: int, devices: Iterable[str]) -> str | None:
    """Why a load that asked for a device did not get it, in one sentence; None where it did.

    `devices` are the names that the setting may use (`RPC0`); a CPU setting may use none.
    """
    allowed = set(devices)
    total = sum(log.layers.values())
    on_device = sum(count for name, count in log.layers.items() if name in allowed)
    elsewhere = ", ".join(
        sorted(f"{count} on {name}" for name, count in log.layers.items() if name not in allowed)
    )
    if device == "cpu":
        return _cpu_problem(log)
    if total == 0:
        return f"the log does not say where the layers are, so nothing proves that {device} was used"
    wanted = total if n_gpu_layers < 0 else min(n_gpu_layers, total)
    if on_device < wanted:
        return f"asked for {device}, but {on_device} of {wanted} layers are there ({elsewhere})"
    if wanted and all(is_host(name) for name in log.buffers.get("model", {})):
        return f"asked for {device}, but no weights were allocated there"
    return None


def _cpu_problem(log: LoadLog) -> str | None:
    layers = sorted(name for name in log.layers if name != "CPU")
    if layers:
        return f"a CPU scenario put layers on {', '.join(layers)}"
    buffers = sorted({name for kind in log.buffers.values() for name in kind if not is_host(name)})
    return f"a CPU scenario has buffers on {', '.join(buffers)}" if buffers else None


def is_host(buffer: str) -> bool:
    """Whether a buffer of that name lies in the processor's memory."""
    return _HOST_BUFFERS.match(buffer) is not None


def _read_facts(line: str, found: dict[str, str]) -> None:
    if match := _LOAD_MODE.match(line):
        found["load_mode"] = match[1]
    elif match := _LOAD_SWITCHES.match(line):
        found["load_mode"] = "dio" if match[2] == "true" else "mmap" if match[1] == "true" else "none"
    elif match := _FLASH_AUTO.match(line):
        found["flash_attn"] = "on" if match[1] == "enabled" else "off"
    elif match := _FLASH_ASKED.match(line):
        known = {"enabled": "on", "disabled": "off"}
        if match[1] in known:
            found["flash_attn"] = known[match[1]]
    elif match := _KV_TYPES.match(line):
        found["type_k"], found["type_v"] = match[1], match[2]


def _count(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts
