"""Start a worker, enforce its timeouts and report how it ended.

The parent starts the process, answers its events and otherwise sleeps: while the worker's clocks run, the
harness does no work.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar, cast

from ggufbench.outcomes import Outcome
from ggufbench.processes import end_group, wait_awake
from ggufbench.worker.protocol import (
    GO,
    AnyJob,
    Done,
    Error,
    Event,
    Phase,
    Probed,
    ProtocolError,
    decode_event,
    encode,
)

WORKER_ENTRY = Path(__file__).resolve().parents[1] / "worker" / "__main__.py"

_KEPT_VARIABLES = (
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "APPDATA",
    "LOCALAPPDATA", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH",
)  # fmt: skip
_COMPUTE_PREFIXES = ("GGML_", "LLAMA_", "OMP_", "CUDA_", "VK_", "MTL_", "METAL_", "HIP_", "ROCR_")
_STDERR_KEPT_BYTES = 16 * 1024
_EXIT_GRACE_SECONDS = 10.0
_PIPE_GRACE_SECONDS = 1.0
_NO_MEMORY = re.compile(
    r"\b(?:(?:unable|failed) to allocate|can't allocate memory|out of memory|MemoryError|bad_alloc)\b",
    re.IGNORECASE,
)
"""Messages of llama.cpp, CUDA, PyTorch and Python when the system or a device refuses a buffer."""
_CRASH_MARKS = ("GGML_ASSERT", "GGML_ABORT", "Error: ", "CUDA error: ", "ROCm error: ", "what(): ")
"""Parts of the line that explains a crash; the last one is an uncaught exception in C++."""


Answering = Callable[[Event, int], str]
"""Takes an event and the worker's process id; returns the answer that lets the worker continue."""

_E = TypeVar("_E", bound=Event)


class LaunchRefusedError(Exception):
    """The worker did something that was not requested, or cannot continue; the message becomes the reason."""


class PhaseTimeouts(Protocol):
    """Timeout for the next event of a phase."""

    def __call__(self, phase: str) -> float:
        """Seconds until a worker in this phase counts as hung."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python that runs the worker, whose environment is measured, and the file that it runs."""

    python: Path = field(default_factory=lambda: Path(sys.executable))
    entry: Path = field(default_factory=lambda: WORKER_ENTRY)
    import_path: tuple[Path, ...] = ()
    """Folders at the start of the worker's import path, such as a checkout whose provider is measured."""

    def variables(self) -> dict[str, str]:
        """Environment variables that its process needs."""
        folders = os.pathsep.join(map(str, self.import_path))
        return {"PYTHONPATH": folders, "PYTHONDONTWRITEBYTECODE": "1"} if folders else {}


@dataclass(frozen=True)
class Ended:
    """End of one worker, and everything that it had sent by then."""

    outcome: Outcome
    events: list[Event]
    wall_seconds: float
    phase: str | None = None
    reason: str | None = None
    signal: str | None = None
    stderr: str = ""

    def all(self, kind: type[_E]) -> list[_E]:
        """All events of that type, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    def find(self, kind: type[_E]) -> _E | None:
        """The first event of that type."""
        return next(iter(self.all(kind)), None)


def worker_environment(extra: Mapping[str, str], env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The clean environment of a worker: basic variables, those that control the library, and `extra`."""
    kept = {key: env[key] for key in _KEPT_VARIABLES if key in env}
    return {**kept, **compute_variables(env), "GGML_NO_BACKTRACE": "1", **extra}


def compute_variables(env: Mapping[str, str]) -> dict[str, str]:
    """The variables that change how the library computes; the record keeps them."""
    return {key: value for key, value in env.items() if key.startswith(_COMPUTE_PREFIXES)}


def launch(
    job: AnyJob,
    deadlines: PhaseTimeouts,
    *,
    interpreter: Interpreter | None = None,
    env: Mapping[str, str] | None = None,
    answer: Answering = lambda _event, _pid: GO,
) -> Ended:
    """Run one job in a fresh process group and wait for its end.

    `answer(event, pid)` is called for each event, and the worker waits for the returned answer. If it raises
    LaunchRefusedError, or if a line is not an event, the worker ends as `failed`. In every case, including
    Ctrl-C, no process of the group is left.
    """
    chosen = interpreter or Interpreter()
    with tempfile.TemporaryFile() as stderr:
        try:
            worker = _Worker(chosen, worker_environment({**chosen.variables(), **(env or {})}), stderr)
        except OSError as error:
            reason = f"{chosen.python} cannot be started: {error.strerror}"
            return Ended(Outcome.FAILED, [], 0.0, "start", reason)
        try:
            return worker.converse(job, deadlines, answer)
        finally:
            worker.end()


class _Worker:
    """One running worker process."""

    def __init__(self, interpreter: Interpreter, env: Mapping[str, str], stderr: BinaryIO) -> None:
        self._stderr = stderr
        self._started = time.monotonic()
        self._oom_kills = _oom_kills()
        self._events: list[Event] = []
        self._phase = "start"
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._process = subprocess.Popen(
            [str(interpreter.python), str(interpreter.entry)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=dict(env),
            start_new_session=True,
        )
        self._stdin = cast("BinaryIO", self._process.stdin)
        self._stdout = cast("BinaryIO", self._process.stdout)
        # Only a thread can wait for a pipe with a timeout on every system; it sleeps in the read.
        self._reader = threading.Thread(target=self._read_lines, daemon=True)
        self._reader.start()

    def converse(self, job: AnyJob, deadlines: PhaseTimeouts, answer: Answering) -> Ended:
        self._say(encode(job))
        while True:
            line = wait_awake(self._next_line, deadlines(self._phase))
            if line is None:
                return self._hung(deadlines(self._phase))
            if not line:
                return self._ended()
            if not line.endswith(b"\n"):
                continue  # it died while writing; the end of the pipe follows
            try:
                event = decode_event(line)
                self._events.append(event)
                self._phase = event.phase if isinstance(event, Phase) else self._phase
                self._say(answer(event, self._process.pid))
            except ProtocolError as error:
                reason = f"it printed {line[:80]!r} instead of an event: {error}"
                return self._result(Outcome.FAILED, reason=reason)
            except LaunchRefusedError as refusal:
                return self._result(Outcome.FAILED, reason=str(refusal))

    def end(self) -> None:
        """Terminate the whole process group, collect the process, and close its pipes."""
        end_group(self._process)
        with contextlib.suppress(OSError):  # a line that it did not read
            self._stdin.close()
        # A process that left the group may keep the pipe open; then it stays open here, too.
        self._reader.join(_PIPE_GRACE_SECONDS)
        if not self._reader.is_alive():
            self._stdout.close()

    def _next_line(self, seconds: float) -> bytes | None:
        try:
            return self._lines.get(timeout=seconds)
        except queue.Empty:
            return None

    def _read_lines(self) -> None:
        for line in self._stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # it has ended; the reader will notice
            self._stdin.write(line.encode() + b"\n")
            self._stdin.flush()

    def _hung(self, seconds: float) -> Ended:
        reason = f"no answer in {self._phase} for {seconds:.0f} s"
        return self._result(Outcome.HUNG, reason=reason)

    def _ended(self) -> Ended:
        """The worker closed its pipe: after its last event, or because it died."""
        try:
            code = self._process.wait(_EXIT_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return self._hung(_EXIT_GRACE_SECONDS)
        error = next((event for event in self._events if isinstance(event, Error)), None)
        if error is not None:
            usual = Outcome.NO_ANSWER if error.no_answer else Outcome.FAILED
            return self._result(_outcome(error.message, usual), reason=error.message)
        if code < 0:
            return self._killed(-code)
        if code > 0 or not self._is_complete():
            reason = self._last_words() or f"it ended in {self._phase} with exit code {code}"
            return self._result(Outcome.FAILED, reason=reason)
        return self._result(Outcome.MEASURED)

    def _is_complete(self) -> bool:
        return bool(self._events) and isinstance(self._events[-1], Done | Probed)

    def _killed(self, number: int) -> Ended:
        name = _signal_name(number)
        if name == "SIGKILL" and _oom_kills() > self._oom_kills:
            reason = f"the kernel killed it in {self._phase}, because memory ran out"
            return self._result(Outcome.OUT_OF_MEMORY, reason=reason, signal_name=name)
        reason = f"crashed ({name}) in {self._phase}"
        if words := self._last_words():
            reason += f": {words}"
        return self._result(_outcome(words, Outcome.CRASHED), reason=reason, signal_name=name)

    def _result(
        self,
        outcome: Outcome,
        *,
        reason: str | None = None,
        signal_name: str | None = None,
    ) -> Ended:
        return Ended(
            outcome=outcome,
            events=self._events,
            wall_seconds=time.monotonic() - self._started,
            phase=None if outcome is Outcome.MEASURED else self._phase,
            reason=reason,
            signal=signal_name,
            stderr=self._stderr_tail(),
        )

    def _stderr_tail(self) -> str:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _STDERR_KEPT_BYTES))
        return self._stderr.read().decode("utf-8", errors="replace")

    def _last_words(self) -> str:
        """The line that explains the end, if the library or Python printed one."""
        lines = [line.strip() for line in self._stderr_tail().splitlines() if line.strip()]
        explaining = [line for line in lines if any(mark in line for mark in _CRASH_MARKS)]
        return explaining[-1] if explaining else ""


def _outcome(words: str, otherwise: Outcome) -> Outcome:
    """The outcome from the worker's last message: a full device is the same failure as a full machine."""
    return Outcome.OUT_OF_MEMORY if _NO_MEMORY.search(words) else otherwise


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _oom_kills() -> int:
    """Number of processes that the kernel of this machine has killed for lack of memory; 0 if unknown."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
