"""Interference with a sample by other processes, a CPU quota, the hypervisor, the disk or heat.

The rules read kernel counters and check first how long the sample's own threads waited, and then the rest
of the machine: a process on another core takes memory bandwidth, cache and clock rate even if it never delays
one of these threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ggufbench.records.parts import Disturbance, Kind
from ggufbench.thresholds import Tolerance

TIMED_PHASES = ("prompt", "encode", "decode")
"""Phases whose samples measure computing: they read no file, and are repeated after interference."""

_ONE_TURN_SECONDS = 0.005
"""One time slice of the scheduler; a shorter wait does not count against a sample of a few milliseconds."""
_TICKS_OF_DOUBT = 0.02
"""Seconds of uncertainty per core: /proc/stat counts ticks of 10 ms and may be off by one at either end."""
_MOST_IDLE = 0.10
"""If the kernel does not count waiting: maximum share of their time that the sample's threads may lack."""


_REMEDY: dict[Kind, str] = {
    "waiting": "end other work, or lower n_threads to leave it a core",
    "other work": "end other work and measure again",
    "stolen": "measure at another time or on another machine, because the host is shared",
    "disk": "free memory, or measure a smaller model: the file does not stay in memory",
    "throttled": "raise the CPU quota of the container or service, or lower n_threads",
    "heat": "let the machine cool down, and check its ventilation",
}


class Busy(Protocol):
    """A process and its share of one core."""

    @property
    def name(self) -> str:
        """Name of its program."""

    @property
    def core_share(self) -> float:
        """Share of a core; 1 is a whole core."""


@dataclass(frozen=True, slots=True)
class Judge:
    """Interference rules for the samples of one case."""

    device: str
    threads: int
    cores: int
    """Logical cores of the machine."""
    tolerance: Tolerance

    def reasons(self, evidence: Mapping[str, float], phase: str) -> list[Disturbance]:
        """Reasons why one sample does not count; empty if it counts.

        Other processes matter only for a sample on the CPU, because on a GPU the work runs elsewhere. With an
        RPC server waiting does not matter either, because a server on this machine and the worker wait for
        each other. Loading may read the disk.
        """
        wall = evidence.get("wall_seconds", 0.0)
        if wall <= 0:
            return []
        allowed, on_cpu = self.tolerance, self.device == "cpu"
        stolen, faults = evidence.get("machine_steal_seconds", 0.0), evidence.get("major_faults", 0.0)
        throttled = _throttled(evidence, wall, allowed.most_waiting)
        found = [
            throttled or self._waiting(evidence, wall),  # a stopped thread also waits for a processor
            self._share("stolen", stolen, wall, allowed.most_stolen),
            self._share("other work", _other_work(evidence), wall, allowed.most_other_work)
            if on_cpu
            else None,
            _count("disk", faults, allowed.most_disk_reads) if phase in TIMED_PHASES else None,
            _count("heat", evidence.get("throttle_count", 0.0), 0),
        ]
        return [reason for reason in found if reason is not None]

    def _waiting(self, evidence: Mapping[str, float], wall: float) -> Disturbance | None:
        waited, most = evidence.get("waiting_seconds"), self.tolerance.most_waiting
        if self.device == "rpc":
            return None
        if waited is not None:
            share = min(1.0, waited / wall)  # sum over all threads, including waits that began earlier
            return Disturbance("waiting", share) if waited > _ONE_TURN_SECONDS and share > most else None
        if self.device != "cpu":
            return None
        # llama.cpp's threads spin while they wait for each other, so all of their time is CPU time.
        full = wall * self.threads
        missing = full - evidence.get("cpu_seconds", full)
        is_long = missing > _TICKS_OF_DOUBT and missing / full > max(most, _MOST_IDLE)
        return Disturbance("waiting", missing / full) if is_long else None

    def _share(self, kind: Kind, seconds: float, wall: float, most: float) -> Disturbance | None:
        total, doubt = wall * max(1, self.cores), _TICKS_OF_DOUBT * max(1, self.cores)
        sure = min(1.0, (seconds - doubt) / total)
        return Disturbance(kind, min(1.0, seconds / total)) if sure > most else None


def is_environment(disturbed: int, judged: int) -> bool:
    """True if more than half of the samples had interference, so the case does not describe the model."""
    return 2 * disturbed > judged


def main_reason(reasons: Iterable[Sequence[Disturbance]]) -> Disturbance | None:
    """The most frequent kind of reason, with the median of its shares; None without reasons."""
    listed = [reason for of_one_sample in reasons for reason in of_one_sample]
    if not listed:
        return None
    kind, _ = Counter(reason.kind for reason in listed).most_common(1)[0]
    shares = sorted(reason.share for reason in listed if reason.kind == kind)
    return Disturbance(kind, shares[len(shares) // 2])


def environment_sentence(disturbed: int, judged: int, reason: Disturbance, processes: Sequence[Busy]) -> str:
    """Number of samples with interference, its main reason, and the remedy."""
    busy = [f"{process.name} used {100 * process.core_share:.0f} % of a core" for process in processes[:2]]
    named = f" ({', '.join(busy)})" if busy and reason.kind in ("waiting", "other work") else ""
    return (
        f"{disturbed} of {judged} samples had interference: {reason.sentence}{named}; {_REMEDY[reason.kind]}"
    )


def _other_work(evidence: Mapping[str, float]) -> float:
    return evidence.get("machine_busy_seconds", 0.0) - evidence.get("cpu_seconds", 0.0)


def _throttled(evidence: Mapping[str, float], wall: float, most: float) -> Disturbance | None:
    """The share of the time in which a quota stopped the process; the kernel adds it up over the cores."""
    share = min(1.0, evidence.get("throttled_seconds", 0.0) / wall)
    return Disturbance("throttled", share) if share > most else None


def _count(kind: Kind, count: float, most: int) -> Disturbance | None:
    return Disturbance(kind, count) if count > most else None
