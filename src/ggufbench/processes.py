"""A lock that is released when its process dies, and termination of a process group."""

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
    """Hold a lock that is released when its process dies; `on_wait` is called once if it is taken.

    Raises OSError if the file cannot be created, NotImplementedError if its file system has no locks.
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
    """Terminate a process that leads its group, and the rest of the group; then collect it."""
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
