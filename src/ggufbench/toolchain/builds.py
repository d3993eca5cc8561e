"""Builds that take minutes, kept in the cache: one builder at a time, and no incomplete build is used."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ggufbench.errors import GgufbenchError
from ggufbench.paths import atomic_write
from ggufbench.processes import alone, end_group
from ggufbench.text import printable

Tell = Callable[[str], None]

_TRIES_TO_REMOVE = 5
_BETWEEN_TRIES_SECONDS = 0.2
_END_SECONDS = 5.0
_KILLED_AFTER_SECONDS = 1.0
_LOG_READ_BYTES = 256 << 10

# The guard runs between this process and a program that works for minutes. When this process ends, for
# whatever reason, the pipe on the guard's stdin closes, and the guard terminates the whole group: an
# abandoned build would take the cores from the next measurement. SIGTERM is sent first, for ninja, whose
# compilers have their own groups.
_GUARD = f"""
import os, signal, subprocess, sys, threading, time

def end_group():
    os.read(0, 1)
    ending.set()
    os.killpg(0, signal.SIGTERM)
    time.sleep({_KILLED_AFTER_SECONDS})
    os.killpg(0, signal.SIGKILL)

ending = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: None)
watcher = threading.Thread(target=end_group, daemon=True)
watcher.start()
code = subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL)
if ending.is_set():
    watcher.join()
sys.exit(code if code >= 0 else 128 - code)
"""


class BuildError(GgufbenchError):
    """It could not be built; the message is one sentence with the remedy."""


@dataclass(frozen=True, slots=True)
class BuildPlace:
    """A folder of the cache that holds one built thing."""

    folder: Path
    """Folder with the lock, the mark of a complete build, and the other files of a build."""
    content: str
    """The name of the built thing below it."""
    proof: str = "."
    """A path below the built thing; if it is missing, the thing is built again."""

    @property
    def path(self) -> Path:
        """The path of the built thing."""
        return self.folder / self.content

    @property
    def log(self) -> Path:
        """The output of the programs that built it."""
        return self.folder / "build.log"

    @property
    def scratch(self) -> Path:
        """A folder for temporary files, emptied by each build, also after one that was killed."""
        return self.folder / "tmp"

    def is_complete(self) -> bool:
        """True if an earlier build was completed, and its result still exists."""
        return self._mark.is_file() and (self.path / self.proof).exists()

    @property
    def _mark(self) -> Path:
        # Beside the content: a repository could hold a file of any name.
        return self.folder / "complete"

    def begin(self) -> None:
        """Remove the remains of an earlier build; the mark first, so that no half-removed build counts."""
        self._mark.unlink(missing_ok=True)
        for left in (self.path, self.scratch):
            _remove(left)
        self.scratch.mkdir()

    def end(self, facts: str) -> None:
        """Mark it as complete. `facts` are for people who look into the folder."""
        _remove(self.scratch)
        with atomic_write(self._mark) as temporary:
            temporary.write_text(facts + "\n", encoding="utf-8")

    def abandon(self) -> None:
        """Remove what this build has made so far; the log stays."""
        with contextlib.suppress(OSError):
            _remove(self.path)
            _remove(self.scratch)


def build_once(place: BuildPlace, build: Callable[[], str], tell: Tell) -> None:
    """Build the place, unless it is complete. A second builder waits for the first and uses its result.

    `build` returns facts to be kept beside the result. Its files are removed after an error or Ctrl-C, and
    those of a killed build by the next build. Raises BuildError.
    """
    if place.is_complete():
        return
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        with alone(
            place.folder / "lock", lambda: tell(f"another run is building {place.path}; waiting for it")
        ):
            if not place.is_complete():
                _build(place, build)
    except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
        reason = getattr(error, "strerror", None) or error
        raise BuildError(
            f"{place.folder} cannot be used: {reason}; free some space there, or set GGUFBENCH_CACHE"
        ) from None


def _build(place: BuildPlace, build: Callable[[], str]) -> None:
    place.begin()
    try:
        place.end(build())
    except BaseException:
        place.abandon()
        raise


def run_logged(command: Sequence[str], env: Mapping[str, str], log: Path, deadline_seconds: float) -> int:
    """Run a program to its end, its output in a file, and return its exit code.

    It has its own process group, which ends with this process: after Ctrl-C, after `deadline_seconds`
    (then subprocess.TimeoutExpired is raised), and if this process is killed. Raises OSError if it cannot
    be started.
    """
    guarded = sys.platform != "win32"  # which has no groups that a signal reaches
    guard = [sys.executable, "-I", "-c", _GUARD] if guarded else []
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*guard, *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            start_new_session=True,
        )
        try:
            return process.wait(deadline_seconds)
        finally:
            _have_it_ended(process)


def run_step(
    command: Sequence[str], failure: str, place: BuildPlace, env: Mapping[str, str], deadline_seconds: float
) -> None:
    """Run a program of a build: pip, or venv. Raises BuildError with `failure` and its error line."""
    # In the place, so that what a killed run leaves there is found and removed.
    variables = {**env, "TMPDIR": str(place.scratch)}
    try:
        code = run_logged(command, variables, place.log, deadline_seconds)
    except subprocess.TimeoutExpired:
        reason = f"it did not end within {deadline_seconds / 3600:.0f} hours"
    else:
        if code == 0:
            return
        reason = _telling_line(place.log) or f"exit code {code}"
    raise BuildError(f"{failure}: {reason} (the output is in {place.log})")


def log_tail(log: Path) -> str:
    """The end of what programs printed."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_READ_BYTES))
        return file.read().decode("utf-8", errors="replace")


def _telling_line(log: Path) -> str:
    """The line in which pip or venv reports the error, else the last line."""
    lines = [printable(line) for line in log_tail(log).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith("ERROR: ")]
    return (telling or lines or [""])[-1].removeprefix("ERROR: ")


def _have_it_ended(process: subprocess.Popen[bytes]) -> None:
    """Make the guard end its process group; if it does not, end the group here."""
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECONDS)
    end_group(process)


def _remove(path: Path) -> None:
    """Remove a folder if it exists. Processes of a killed build may still write into it for a moment."""
    for _ in range(_TRIES_TO_REMOVE):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(_BETWEEN_TRIES_SECONDS)
    shutil.rmtree(path)
