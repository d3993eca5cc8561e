"""Parser for llama.cpp's load log: layers and buffers by device, load mode, flash attention.

"offloaded N/N layers to GPU" is not read, because it repeats the request even if every layer is on the CPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

# Each pattern matches from the start of a line, which is the name of llama.cpp's function. The rest of a line
# may contain a name or a template from the model's file, which may contain any of these sentences.
_LAYER = re.compile(
    r"load_tensors: layer {1,3}(\d{1,9}) assigned to device (\S{1,200}?)(?:, is_swa|,? *$)", re.ASCII
)
_BUFFER = re.compile(
    r"\w+: +(\S+) +(model|KV|compute|output|RS|LoRA|DSV4)(?: \w{1,20} state)? buffer size = +"
    r"(\d{1,12}[.,]\d{1,4}) MiB",  # a comma if the process uses such a locale
    re.ASCII,
)
# One number for both, or one for a prompt and one for decoding; earlier releases had a line of its own.
_SPLITS = re.compile(
    r"\w+: graph(?: \([^)]{0,60}\))?: nodes = [\d /]{1,30}, splits = (\d{1,6})(?: / (\d{1,6}))?", re.ASCII
)
_OLDER_SPLITS = re.compile(
    r"\w+: graph splits = (\d{1,6})(?: \(with bs=\d{1,9}\), (\d{1,6}) \(with bs=1\))?", re.ASCII
)
_ELSEWHERE = re.compile(
    r"\w+: layer \d{1,9} is assigned to device \S{1,200} but ([\w ]{1,60}) is assigned to device (\S{1,200})",
    re.ASCII,
)
_LOAD_MODE = re.compile(r"load_tensors: loading model tensors.{0,60}\(load_mode = ([\w+]+)\)", re.ASCII)
# Releases before the load mode had a switch for each mode; their log does not mention locking.
_LOAD_SWITCHES = re.compile(
    r"load_tensors: loading model tensors.{0,60}\(mmap = (\w+), direct_io = (\w+)\)", re.ASCII
)
_FLASH_AUTO = re.compile(
    r"\w+: Flash Attention (?:was auto, set to )?(enabled|disabled|not supported, set to disabled)", re.ASCII
)
_FLASH_ASKED = re.compile(r"\w+: flash_attn += (\w+)", re.ASCII)
_KV_TYPES = re.compile(r"\w+: size = [^K]{0,99}K \((\w+)\): [^V]{0,99}V \((\w+)\):", re.ASCII)
_HOST_BUFFERS = re.compile(r"^(CPU|AMX|BLAS|\w+_(Host|HOST)$)")
_META = re.compile(r"Meta\((\S{1,200})\)")
"""A device that divides each tensor between others, for example `Meta(CUDA0,CUDA1)`."""
_MAPPED = "_Mapped"
_MIB = 1024 * 1024


@dataclass(frozen=True)
class LoadLog:
    """Facts about one load."""

    layers: dict[str, int] = field(default_factory=dict)
    """Number of layers by device name; the output layer counts as one."""
    buffers: dict[str, dict[str, int]] = field(default_factory=dict)
    """Bytes by kind (`model`, `KV`, `RS`, `DSV4`, `LoRA`, `compute`, `output`) and buffer name (`CPU_Mapped`,
    `MTL0`).
    """
    load_mode: str | None = None
    flash_attn: str | None = None
    """`on` or `off`, after `auto` was resolved."""
    type_k: str | None = None
    type_v: str | None = None
    graph_splits: int | None = None
    """Parts of the computation between which the device changes; the larger number of prompt and decode."""
    fused_elsewhere: dict[str, str] = field(default_factory=dict)
    """Fused operations that run on another device than their layer, with that device."""

    def device_bytes(self, tensor_bytes: int) -> int:
        """Bytes in buffers outside host memory, for a model with weights of that size.

        A mapped buffer is the span of the file from its first to its last tensor, which may contain most
        tensors of other layers, so at most the share of the device's layers counts.
        """
        return sum(
            min(size, self._most_mapped(name, tensor_bytes)) if name.endswith(_MAPPED) else size
            for kind in self.buffers.values()
            for name, size in kind.items()
            if not is_host(name)
        )

    def _most_mapped(self, buffer: str, tensor_bytes: int) -> int:
        total = sum(self.layers.values())
        layers = self.layers.get(buffer.removesuffix(_MAPPED), total)
        return round(tensor_bytes * layers / total) if total else tensor_bytes


def parse_load_log(lines: Iterable[str]) -> LoadLog:
    """Read the facts from the log lines of loading a model and creating its context."""
    layers: dict[int, str] = {}
    buffers: dict[str, dict[str, int]] = {}
    found: dict[str, str] = {}
    splits: list[int] = []
    elsewhere: dict[str, str] = {}
    for line in lines:
        if match := _LAYER.match(line):
            layers[int(match[1])] = match[2]
        elif match := _BUFFER.match(line):
            kind = buffers.setdefault(match[2], {})
            kind[match[1]] = kind.get(match[1], 0) + round(float(match[3].replace(",", ".")) * _MIB)
        elif match := _SPLITS.match(line) or _OLDER_SPLITS.match(line):
            splits.extend(int(number) for number in match.groups() if number)
        elif match := _ELSEWHERE.match(line):
            elsewhere[match[1]] = match[2]
        else:
            _read_facts(line, found)
    return LoadLog(
        layers=_count(layers.values()),
        buffers=buffers,
        graph_splits=max(splits, default=None),
        fused_elsewhere=elsewhere,
        **found,
    )


def offload_problem(log: LoadLog, device: str, n_gpu_layers: int, devices: Iterable[str]) -> str | None:
    """Reason why a load did not use the requested device, as a sentence; None if it did.

    `devices` are the names that the setting may use (`RPC0`); a CPU setting may not use any.
    """
    allowed = set(devices)
    total = sum(log.layers.values())
    on_device = sum(count for name, count in log.layers.items() if _is_one_of(name, allowed))
    elsewhere = ", ".join(
        sorted(f"{count} on {name}" for name, count in log.layers.items() if not _is_one_of(name, allowed))
    )
    if device == "cpu":
        return _cpu_problem(log)
    if total == 0:
        return (
            f"llama.cpp's log does not name the devices of the layers, so the use of {device} is not proved"
        )
    wanted = total if n_gpu_layers < 0 else min(n_gpu_layers, total)
    if on_device < wanted:
        return f"{device} was requested, but only {on_device} of {wanted} layers are on it ({elsewhere})"
    if wanted and all(is_host(name) for name in log.buffers.get("model", {})):
        return f"{device} was requested, but no weights were allocated on it"
    return _divided(log, device) if wanted == total else None


def _divided(log: LoadLog, device: str) -> str | None:
    """Reason why a full offload computes much elsewhere; None if it does not, or if the log cannot show it.

    A full offload has a split for the input on the CPU and at most two for each device. A device that accepts
    layers but not their operations has some for each layer. A KV cache on the host has them, too, as asked.
    """
    devices = sum(len(_members(name)) for name in log.layers)
    caches = [name for kind in ("KV", "RS", "DSV4") for name in log.buffers.get(kind, {})]
    if log.graph_splits is None or any(map(is_host, caches)) or log.graph_splits <= 2 * devices + 1:
        return None
    named = [f"{operation} on {where}" for operation, where in sorted(log.fused_elsewhere.items())]
    where = f" ({', '.join(named)})" if named else ""
    return (
        f"{device} has every layer, but its graph has {log.graph_splits} splits, so part of each layer is "
        f"computed on another device{where}; use another type_k, type_v or flash_attn, or set n_gpu_layers = "
        f"{sum(log.layers.values()) - 1} to measure it as a partial offload"
    )


def _members(name: str) -> list[str]:
    match = _META.fullmatch(name)
    return match[1].split(",") if match else [name]


def _is_one_of(name: str, allowed: set[str]) -> bool:
    return set(_members(name)) <= allowed


def _cpu_problem(log: LoadLog) -> str | None:
    layers = sorted(name for name in log.layers if name != "CPU")
    if layers:
        return f"a CPU scenario put layers on {', '.join(layers)}"
    buffers = sorted({name for kind in log.buffers.values() for name in kind if not is_host(name)})
    return f"a CPU scenario has buffers on {', '.join(buffers)}" if buffers else None


def is_host(buffer: str) -> bool:
    """True if a buffer with this name is in host memory."""
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
