"""A lock that is released when its process dies, signals that end a run, and the end of a process group."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

_T = TypeVar("_T")

_OVERSLEPT_SECONDS = 2.0
"""A wait that takes this much longer than requested was not a wait: this process did not run."""
_POLL_SECONDS = 0.5
"""Time between two looks at a lock: a look more often would disturb the run that is measuring."""
_PIPE_GRACE_SECONDS = 1.0
_TAIL_BYTES = 2**16
_LATE_SECONDS = 0.5
"""Time to read what is in a pipe already; reading takes milliseconds, also on a busy machine."""


@contextmanager
def alone(lock_file: Path, on_wait: Callable[[], None], seconds: float | None = None) -> Iterator[None]:
    """Hold a lock that is released when its process dies; `on_wait` is called once if it is taken.

    Raises TimeoutError if it is still taken after `seconds`, another OSError if the file cannot be created,
    NotImplementedError if its file system has no locks.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        try:
            lock.acquire(timeout=-1 if seconds is None else max(0.0, seconds), poll_interval=_POLL_SECONDS)
        except Timeout:
            raise TimeoutError(f"{lock_file} is taken") from None
    try:
        yield
    finally:
        lock.release()


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, handled as Ctrl-C: what was measured until then is kept. Its text is the name."""


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Raise Terminated at the first SIGTERM or SIGHUP; further ones are ignored while the results are stored.

    A signal that is ignored already stays ignored, as `nohup` requires. Only the main thread can do this; in
    another one nothing changes.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}
        before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}

    def end(number: int, _frame: object) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        raise Terminated(signal.Signals(number).name)

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def cause(interrupt: KeyboardInterrupt) -> str:
    """`Ctrl-C`, or the name of the signal that ended the run in the same way."""
    return str(interrupt) if isinstance(interrupt, Terminated) else "Ctrl-C"


def wait_awake(attempt: Callable[[float], _T | None], seconds: float) -> _T | None:
    """The result of `attempt(seconds)`, with a timeout that counts only while this process can run.

    If this process was stopped, or the machine suspended, longer than the timeout, the other process may have
    been suspended as well, and its answer may already be in the pipe: the timeout begins again. The last,
    short attempt reads an answer that arrived together with the timeout.
    """
    while True:
        started = time.monotonic()
        result = attempt(seconds)
        if result is not None:
            return result
        if time.monotonic() - started < seconds + _OVERSLEPT_SECONDS:
            return attempt(_LATE_SECONDS)


@dataclass(frozen=True, slots=True)
class Finished:
    """End of a program, and what it printed."""

    code: int
    """Exit code; negative for a signal."""
    output: str
    errors: str
    """The end of its standard error."""


class OutputTooLongError(subprocess.SubprocessError):
    """A program printed more than was allowed and was terminated."""


def run_program(
    command: Sequence[str | Path],
    seconds: float,
    *,
    env: Mapping[str, str] | None = None,
    most_bytes: int = 2**20,
) -> Finished:
    """Run a program to its end, in its own process group, which never outlives this call.

    Memory is bounded: more than `most_bytes` of output raise OutputTooLongError, and of its standard error
    only the end is kept. Raises OSError if it cannot be started, subprocess.TimeoutExpired after `seconds`.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=None if env is None else dict(env),
        start_new_session=True,
    )
    output, errors = _Reader(process.stdout, most_bytes + 1), _Reader(process.stderr, None)
    try:
        if wait_awake(output.wait, seconds) is None:
            raise subprocess.TimeoutExpired(list(command), seconds)
        if len(output.content) > most_bytes:
            raise OutputTooLongError(f"it printed more than {most_bytes} bytes")
        process.wait(seconds)
    finally:
        end_group(process)
        output.close()
        errors.close()
    return Finished(process.returncode, output.text, errors.text)


class _Reader:
    """Reads a pipe in a thread, because a process that left its group can keep the pipe open."""

    def __init__(self, stream: IO[bytes] | None, most: int | None) -> None:
        assert stream is not None  # noqa: S101 (opened as a pipe)
        self._stream, self._most = stream, most
        self.content = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", errors="replace")

    def wait(self, seconds: float) -> bool | None:
        """True when it has read everything, or as much as allowed; None after the timeout."""
        self._thread.join(seconds)
        return None if self._thread.is_alive() else True

    def close(self) -> None:
        """Close the pipe, unless a process still holds it open."""
        if self.wait(_PIPE_GRACE_SECONDS):
            self._stream.close()

    def _read(self) -> None:
        if self._most is not None:
            self.content = self._stream.read(self._most)
            return
        while part := self._stream.read1(_TAIL_BYTES):  # type: ignore[attr-defined]
            self.content = (self.content + part)[-_TAIL_BYTES:]


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
