"""Whether something else had the machine while a sample was taken, judged from the kernel's counters.

The rules look at what a sample's own threads suffered first, and at the rest of the machine second: a
neighbour on another core takes memory bandwidth, cache and clock rate even where it takes no turn from us.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ggufbench.records.parts import Disturbance, Kind
from ggufbench.thresholds import Tolerance

_ONE_TURN_SECONDS = 0.005
"""One turn of the scheduler; less says nothing about a sample of some milliseconds."""
_TICKS_OF_DOUBT = 0.02
"""Seconds for each core: /proc/stat counts in ticks of 10 ms and may be one off at either end."""
_MOST_IDLE = 0.10
"""Where the kernel does not count waiting: what the sample's threads may lack of their full time."""


_REMEDY: dict[Kind, str] = {
    "waiting": "end other work, or leave it a core with a lower n_threads",
    "other work": "end other work and measure again",
    "stolen": "use another machine or another hour: the host is shared",
    "disk": "free memory, or measure a smaller model: the file does not stay in memory",
    "heat": "let the machine cool down, and see that air reaches it",
}


class Busy(Protocol):
    """A process and its share of one core."""

    @property
    def name(self) -> str:
        """Of its program."""

    @property
    def core_share(self) -> float:
        """1 is a whole core."""


@dataclass(frozen=True, slots=True)
class Judge:
    """The rules for the samples of one case."""

    device: str
    threads: int
    cores: int
    """Logical cores of the machine."""
    tolerance: Tolerance

    def reasons(self, evidence: Mapping[str, float], phase: str) -> list[Disturbance]:
        """The reasons against one sample; none where it counts.

        What other processes did is only held against a sample of the processor: on a GPU the work is
        elsewhere. With an RPC server waiting is not either: on this machine, server and worker wait for each
        other's turns. Loading may read the disk.
        """
        wall = evidence.get("wall_seconds", 0.0)
        if wall <= 0:
            return []
        allowed, on_cpu = self.tolerance, self.device == "cpu"
        stolen, faults = evidence.get("machine_steal_seconds", 0.0), evidence.get("major_faults", 0.0)
        found = [
            self._waiting(evidence, wall),
            self._share("stolen", stolen, wall, allowed.most_stolen),
            self._share("other work", _other_work(evidence), wall, allowed.most_other_work)
            if on_cpu
            else None,
            _count("disk", faults, allowed.most_disk_reads) if phase in ("prompt", "decode") else None,
            _count("heat", evidence.get("throttle_count", 0.0), 0),
        ]
        return [reason for reason in found if reason is not None]

    def _waiting(self, evidence: Mapping[str, float], wall: float) -> Disturbance | None:
        waited, most = evidence.get("waiting_seconds"), self.tolerance.most_waiting
        if self.device == "rpc":
            return None
        if waited is not None:
            share = min(1.0, waited / wall)  # of all threads together, and of turns that began earlier
            return Disturbance("waiting", share) if waited > _ONE_TURN_SECONDS and share > most else None
        if self.device != "cpu":
            return None
        # llama.cpp's threads spin where they wait for each other, so all of their time is processor time.
        full = wall * self.threads
        missing = full - evidence.get("cpu_seconds", full)
        is_long = missing > _TICKS_OF_DOUBT and missing / full > max(most, _MOST_IDLE)
        return Disturbance("waiting", missing / full) if is_long else None

    def _share(self, kind: Kind, seconds: float, wall: float, most: float) -> Disturbance | None:
        total, doubt = wall * max(1, self.cores), _TICKS_OF_DOUBT * max(1, self.cores)
        sure = min(1.0, (seconds - doubt) / total)
        return Disturbance(kind, min(1.0, seconds / total)) if sure > most else None


def is_environment(disturbed: int, judged: int) -> bool:
    """Whether so many samples were disturbed that the case says more of the machine than of the model."""
    return 2 * disturbed > judged


def main_reason(reasons: Iterable[Sequence[Disturbance]]) -> Disturbance | None:
    """The most frequent kind of reason, with the middle one of its shares; None where there is no reason."""
    listed = [reason for of_one_sample in reasons for reason in of_one_sample]
    if not listed:
        return None
    kind, _ = Counter(reason.kind for reason in listed).most_common(1)[0]
    shares = sorted(reason.share for reason in listed if reason.kind == kind)
    return Disturbance(kind, shares[len(shares) // 2])


def environment_sentence(disturbed: int, judged: int, reason: Disturbance, processes: Sequence[Busy]) -> str:
    """How many samples were disturbed, by what, and what to do about it."""
    who = [f"{process.name} had {100 * process.core_share:.0f} % of a core" for process in processes[:2]]
    named = f" ({', '.join(who)})" if who and reason.kind in ("waiting", "other work") else ""
    return f"{disturbed} of {judged} samples were disturbed: {reason.sentence}{named}; {_REMEDY[reason.kind]}"


def _other_work(evidence: Mapping[str, float]) -> float:
    return evidence.get("machine_busy_seconds", 0.0) - evidence.get("cpu_seconds", 0.0)


def _count(kind: Kind, count: float, most: int) -> Disturbance | None:
    return Disturbance(kind, count) if count > most else None
