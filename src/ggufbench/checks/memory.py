"""Breakdown of a process's peak memory: parts from llama.cpp's log, compared with the measured peak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ggufbench.checks.native_log import is_host
from ggufbench.worker.job import DEVICE_PREFIXES

Part = Literal["interpreter", "mapped", "repacked", "weights", "vocabulary", "kv", "compute", "other"]

_REPACKED = ("CPU_REPACK", "AMX", "CPU_KLEIDIAI", "CPU_AARCH64", "CPU_RISCV64")
"""Buffers with weights reordered for certain instructions; the file has the same weights in its own order."""

PARTS: dict[Part, str] = {
    "interpreter": "Python and the library, before anything is loaded",
    "mapped": "weights in mapped pages of the file",
    "repacked": "weights copied in an order that suits the processor",
    "weights": "weights in memory of the process",
    "vocabulary": "the vocabulary, and other memory that loading takes in addition to buffers",
    "kv": "the KV cache, and the state of recurrent layers",
    "compute": "the part of the compute buffers that is used",
    "other": "output and other buffers",
}


@dataclass(frozen=True, slots=True)
class Anonymous:
    """The kernel's account of the memory that a process has written and no file backs, in bytes."""

    at_start: int
    loaded: int
    """After the load: buffers of weights and the KV cache are written, compute buffers are not."""
    at_peak: int


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Expected peak by part, and the measured peak, in bytes of the process, without other memory."""

    parts: dict[Part, int]
    measured_bytes: int
    untouched_bytes: int = 0
    """Part of the compute buffers that llama.cpp reserved and never wrote, which takes no memory."""

    @property
    def expected_bytes(self) -> int:
        """Sum of all parts."""
        return sum(self.parts.values())

    @property
    def difference_bytes(self) -> int:
        """Measured minus expected."""
        return self.measured_bytes - self.expected_bytes

    @property
    def explained(self) -> float:
        """Share of the peak that is explained, 0 to 1; an estimate too high counts like one too low."""
        return max(0.0, 1 - abs(self.difference_bytes) / self.measured_bytes)

    @property
    def duplicate_bytes(self) -> int:
        """Weights held twice: reordered in memory while the file's copy stays mapped."""
        return min(self.parts["repacked"], self.parts["mapped"])


def break_down(
    buffers: Mapping[str, Mapping[str, int]],
    interpreter_bytes: int,
    measured_bytes: int,
    mapped_bytes: tuple[int, int] = (0, 2**63),
    anonymous: Anonymous | None = None,
) -> Breakdown:
    """Divide a peak into its parts, from those buffers of `LoadLog.buffers` that are in the process.

    Buffers of Apple's GPU are in the process. `mapped_bytes` are bounds of the mapped part of the file at the
    peak: loading maps more than the buffers, and two buffers can map the same pages.

    The kernel's account separates what is reserved from what is used: llama.cpp reserves the logits of every
    token of a ubatch, and a prompt needs those of its last token. Without the account all of it counts.
    """
    parts: dict[Part, int] = dict.fromkeys(PARTS, 0)
    parts["interpreter"] = interpreter_bytes
    for kind, by_name in buffers.items():
        for name, size in by_name.items():
            if is_host(name) or name.startswith(DEVICE_PREFIXES["metal"]):
                parts[_part(kind, name)] += size
    least, most = mapped_bytes
    parts["mapped"] = min(max(parts["mapped"], least), most)
    reserved = parts["compute"]
    if anonymous is not None:
        written = parts["repacked"] + parts["weights"] + parts["kv"] + parts["other"]
        parts["vocabulary"] = max(0, anonymous.loaded - anonymous.at_start - written)
        parts["compute"] = min(reserved, max(0, anonymous.at_peak - anonymous.loaded))
    return Breakdown(parts, measured_bytes, reserved - parts["compute"])


def _part(kind: str, buffer: str) -> Part:
    if kind == "model":
        if buffer.endswith("_Mapped"):
            return "mapped"
        return "repacked" if buffer.startswith(_REPACKED) else "weights"
    known: dict[str, Part] = {
        "KV": "kv", "RS": "kv", "DSV4": "kv", "compute": "compute", "LoRA": "weights",
    }  # fmt: skip
    return known.get(kind, "other")
