"""Breakdown of a process's peak memory: parts from llama.cpp's log, compared with the measured peak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ggufbench.checks.native_log import is_host
from ggufbench.worker.job import DEVICE_PREFIXES

Part = Literal["interpreter", "mapped", "repacked", "weights", "kv", "compute", "other"]

_REPACKED = ("CPU_REPACK", "AMX", "CPU_KLEIDIAI", "CPU_AARCH64", "CPU_RISCV64")
"""Buffers with weights reordered for certain instructions; the file has the same weights in its own order."""

PARTS: dict[Part, str] = {
    "interpreter": "Python and the library, before anything is loaded",
    "mapped": "weights in mapped pages of the file",
    "repacked": "weights copied in an order that suits the processor",
    "weights": "weights in memory of the process",
    "kv": "the KV cache, and the state of recurrent layers",
    "compute": "compute buffers of one ubatch",
    "other": "output and other buffers",
}


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Expected peak by part, and the measured peak, in bytes of the process, without other memory."""

    parts: dict[Part, int]
    measured_bytes: int

    @property
    def expected_bytes(self) -> int:
        """Sum of all parts."""
        return sum(self.parts.values())

    @property
    def difference_bytes(self) -> int:
        """Measured minus expected: above 0 it is unexplained, below 0 it was reserved but not touched."""
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
    mapped_bytes: int = 0,
    file_bytes: int | None = None,
) -> Breakdown:
    """Divide a peak into its parts, from those buffers of `LoadLog.buffers` that are in the process.

    Buffers of Apple's GPU are in the process. `mapped_bytes` is the mapped part of the file at the peak; the
    larger of it and the buffers counts, and at most `file_bytes`, because buffers can map the same pages.
    """
    parts: dict[Part, int] = dict.fromkeys(PARTS, 0)
    parts["interpreter"] = interpreter_bytes
    for kind, by_name in buffers.items():
        for name, size in by_name.items():
            if is_host(name) or name.startswith(DEVICE_PREFIXES["metal"]):
                parts[_part(kind, name)] += size
    parts["mapped"] = max(parts["mapped"], mapped_bytes)
    if file_bytes is not None:
        parts["mapped"] = min(parts["mapped"], file_bytes)
    return Breakdown(parts, measured_bytes)


def _part(kind: str, buffer: str) -> Part:
    if kind == "model":
        if buffer.endswith("_Mapped"):
            return "mapped"
        return "repacked" if buffer.startswith(_REPACKED) else "weights"
    known: dict[str, Part] = {
        "KV": "kv", "RS": "kv", "DSV4": "kv", "compute": "compute", "LoRA": "weights",
    }  # fmt: skip
    return known.get(kind, "other")
