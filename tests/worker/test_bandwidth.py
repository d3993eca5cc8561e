"""Calm of the memory bandwidth measurement on cores of different speed."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from ggufbench.worker.bandwidth import _Team

SLOW, FAST = 1, 2


def work(address: int, _length: int) -> bool:
    """Compute for a time that depends on the thread, as on a fast core and on an efficiency core."""
    end = time.thread_time() + (0.004 if address == SLOW else 0.0)
    while time.thread_time() < end:
        pass
    return True


def test_a_thread_that_ends_early_is_not_interference():
    with ThreadPoolExecutor(2) as pool:
        rounds = [_Team(pool, Barrier(2), [SLOW, FAST], 0).run(work, 1) for _ in range(50)]
    assert min(seconds for seconds, _ in rounds) >= 0.004
    assert max(share for _, share in rounds) > 0.7, "of both cores until the slow thread ends it is 0.5"
