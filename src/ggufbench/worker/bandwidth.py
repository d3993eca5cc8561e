"""Memory read bandwidth of this machine: a token is never decoded faster than its weights can be read.

Two functions of the C library read a buffer that is larger than any cache: `memchr` searches for a byte that
does not occur, `memcmp` compares two equal halves. Both use the widest registers of the processor and neither
holds Python's lock. Which is faster depends on the machine, so the faster one counts.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Barrier
from time import perf_counter, thread_time

from .channel import Channel, ProviderError
from .protocol import Bandwidth, BandwidthJob, Done

_CALM_ROUNDS = 6
_ROUND_SECONDS = 0.08
"""Long compared with the time in which the threads start one after the other."""
_CALM_SHARE = 0.95
"""Minimum share of the cores' time; a round in which other processes took more does not count as calm."""

_FILLED_WITH, _NOT_THERE = 1, 2

Kernel = Callable[[int, int], bool]
"""Read all bytes of (address, length); False if the read stopped before the end."""


def measure(job: BandwidthJob, channel: Channel) -> None:
    """Send the rate for each number of threads."""
    channel.enter("bandwidth")
    for threads in job.threads:
        channel.send(Bandwidth(threads, *best_rate(threads, job.total_bytes, job.rounds)))
    channel.send(Done())


def best_rate(threads: int, total_bytes: int, rounds: int) -> tuple[float, bool]:
    """Bytes per second that the threads read together, in the best of several rounds of the faster kernel.

    The second value is True if at least one round of each kernel was calm. Raises ProviderError if the memory
    cannot be allocated.
    """
    length = max(mmap.PAGESIZE, total_bytes // threads // mmap.PAGESIZE * mmap.PAGESIZE)
    try:
        regions = [mmap.mmap(-1, length) for _ in range(threads)]
    except (OSError, ValueError) as error:
        raise ProviderError(f"{total_bytes} bytes of memory cannot be allocated: {error}") from None
    addresses = [ctypes.addressof(ctypes.c_char.from_buffer(region)) for region in regions]
    barrier = Barrier(threads)
    with ThreadPoolExecutor(threads) as pool:
        team = _Team(pool, barrier, addresses, length)
        team.run(_fill, 1)
        found = [team.best(kernel, rounds) for kernel in _kernels()]
    return max(rate for rate, _ in found), all(calm for _, calm in found)


@dataclass(frozen=True, slots=True)
class _Team:
    """Threads that each read their own part of the memory, all at the same time."""

    pool: ThreadPoolExecutor
    barrier: Barrier
    addresses: list[int]
    length: int

    def best(self, kernel: Kernel, rounds: int) -> tuple[float, bool]:
        """Highest rate, and whether a round was calm; stops early after enough calm rounds."""
        passes = max(1, round(_ROUND_SECONDS / self.run(kernel, 1)[0]))
        read = passes * self.length * len(self.addresses)
        rate, calm = 0.0, 0
        for _ in range(rounds):
            seconds, core_share = self.run(kernel, passes)
            rate, calm = max(rate, read / seconds), calm + (core_share >= _CALM_SHARE)
            if calm == _CALM_ROUNDS:
                break
        return rate, calm > 0

    def run(self, kernel: Kernel, passes: int) -> tuple[float, float]:
        """Seconds from the first thread's start to the last one's end, and the share of the cores it used.

        The share is of each thread's own span: on a fast core a thread ends earlier than on a slow one.
        """
        spans = list(self.pool.map(lambda address: self._read(kernel, address, passes), self.addresses))
        seconds = max(stop for _, stop, _ in spans) - min(start for start, _, _ in spans)
        return seconds, sum(busy for *_, busy in spans) / sum(stop - start for start, stop, _ in spans)

    def _read(self, kernel: Kernel, address: int, passes: int) -> tuple[float, float, float]:
        """Start, end and CPU seconds of one thread."""
        self.barrier.wait()
        start, busy = perf_counter(), thread_time()
        whole = [kernel(address, self.length) for _ in range(passes)]
        busy, stop = thread_time() - busy, perf_counter()
        if not all(whole):
            raise ProviderError("a read of the memory ended early, so its speed is unknown")
        return start, stop, busy


def _fill(address: int, length: int) -> bool:
    """Write to every page: unwritten pages all map to one page of zeros, which stays in the cache."""
    ctypes.memset(address, _FILLED_WITH, length)
    return True


def _kernels() -> list[Kernel]:
    libc = ctypes.CDLL(None)
    libc.memchr.restype, libc.memcmp.restype = ctypes.c_void_p, ctypes.c_int
    libc.memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]

    def search(address: int, length: int) -> bool:
        return libc.memchr(address, _NOT_THERE, length) is None

    def compare(address: int, length: int) -> bool:
        return bool(libc.memcmp(address, address + length // 2, length // 2) == 0)

    return [search, compare]
