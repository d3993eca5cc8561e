"""What several rooms need of processes: a lock that a dead one lets go, and the end of a whole group."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(lock_file: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock that a dead process lets go; `on_wait` is called once where another one holds it.

    Raises OSError where the file cannot be made, NotImplementedError where its file system has no locks.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its group, and all others of the group; and collect it."""
    if sys.platform == "win32":
        _end_tree(process.pid)
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end_tree(pid: int) -> None:
    import psutil

    try:
        parent = psutil.Process(pid)
        for process in [*parent.children(recursive=True), parent]:
            process.kill()
    except psutil.NoSuchProcess:
        pass
