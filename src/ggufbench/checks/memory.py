"""What a process's peak memory is made of: the parts that llama.cpp's log names, beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ggufbench.checks.native_log import is_host

Part = Literal["interpreter", "mapped", "repacked", "weights", "kv", "compute", "other"]

_REPACKED = ("CPU_REPACK", "AMX", "CPU_KLEIDIAI")
"""Buffers of weights in an order for some instructions. The file holds the same weights in its own order."""

PARTS: dict[Part, str] = {
    "interpreter": "Python and the library, before anything is loaded",
    "mapped": "weights in mapped pages of the file",
    "repacked": "weights copied into an order of the processor's own",
    "weights": "weights in memory of the process",
    "kv": "the KV cache, and the state of recurrent layers",
    "compute": "compute buffers of one ubatch",
    "other": "output and other buffers",
}


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The expected peak by part, and the measured one. Bytes of the process, not of a GPU-type device."""

    parts: dict[Part, int]
    measured_bytes: int

    @property
    def expected_bytes(self) -> int:
        """All parts together."""
        return sum(self.parts.values())

    @property
    def difference_bytes(self) -> int:
        """Measured less expected: what no part explains, or, below 0, what was reserved and not touched."""
        return self.measured_bytes - self.expected_bytes

    @property
    def explained(self) -> float:
        """The part of the peak that is accounted for, 0 to 1; too much expected counts like too little."""
        return max(0.0, 1 - abs(self.difference_bytes) / self.measured_bytes)

    @property
    def duplicate_bytes(self) -> int:
        """Weights that are held twice: reordered in memory while their original stays mapped."""
        return min(self.parts["repacked"], self.parts["mapped"])


def break_down(
    buffers: Mapping[str, Mapping[str, int]],
    interpreter_bytes: int,
    measured_bytes: int,
    mapped_bytes: int = 0,
) -> Breakdown:
    """The parts of a peak: `buffers` as in `LoadLog.buffers`, of which those on the host count.

    `mapped_bytes` is what was mapped of the file at the peak, where that is more than the buffers say.
    """
    parts: dict[Part, int] = dict.fromkeys(PARTS, 0)
    parts["interpreter"] = interpreter_bytes
    for kind, by_name in buffers.items():
        for name, size in by_name.items():
            if is_host(name):
                parts[_part(kind, name)] += size
    parts["mapped"] = max(parts["mapped"], mapped_bytes)
    return Breakdown(parts, measured_bytes)


def _part(kind: str, buffer: str) -> Part:
    if kind == "model":
        if buffer.endswith("_Mapped"):
            return "mapped"
        return "repacked" if buffer.startswith(_REPACKED) else "weights"
    known: dict[str, Part] = {"KV": "kv", "RS": "kv", "compute": "compute"}
    return known.get(kind, "other")
