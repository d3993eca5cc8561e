"""The lock of the machine: of several runs started by one user, only one measures at a time."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from ggufbench.errors import GgufbenchError
from ggufbench.exit_codes import ExitCode
from ggufbench.paths import cache_folder, read_regular
from ggufbench.processes import alone
from ggufbench.text import duration, printable

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_NOTE_BYTES = 4096
_COMMAND_CHARACTERS = 80


class MachineLockError(GgufbenchError):
    """The lock cannot be used; the message names its path and the fix."""


class MachineBusyError(GgufbenchError):
    """Another run measured until the time budget ended."""

    exit_code: ClassVar[ExitCode] = ExitCode.NOTHING_MEASURED


@contextmanager
def one_at_a_time(on_wait: Callable[[str], None], seconds: float | None = None) -> Iterator[None]:
    """Hold the lock of this machine, which is released when this process dies.

    If another run holds it, `on_wait` is called once, with a sentence that names that run. Raises
    MachineBusyError if it still holds the lock after `seconds`, MachineLockError if the lock is unusable.
    """
    path = _lock_file()
    note = path.with_suffix(".json")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(alone(path, lambda: on_wait(f"waiting for {_holder(note)}"), seconds))
        except TimeoutError:
            waited = duration(seconds or 0)
            raise MachineBusyError(
                f"{_holder(note)}; the time budget ended after {waited} of waiting for it"
            ) from None
        except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
            raise _unusable(path, getattr(error, "strerror", None) or str(error)) from None
        _write_note(note)
        stack.callback(_remove_note, note)
        yield


def _lock_file(env: Mapping[str, str] = os.environ) -> Path:
    """Path of the lock, in a folder that only this user can write to. Raises MachineLockError."""
    folder = _own_base(env) / "lock"
    # The cache folder may be on a disk that several machines share.
    host = re.sub(r"[^A-Za-z0-9-]+", "_", platform.node())[:60]
    path = folder / f"measuring-{host}.lock"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_own(folder, stat.S_ISDIR, "a folder")
        if os.path.lexists(path):
            _require_own(path, stat.S_ISREG, "a regular file")
    except OSError as error:
        raise _unusable(folder, error.strerror or str(error)) from None
    return path


def _own_base(env: Mapping[str, str]) -> Path:
    """XDG_RUNTIME_DIR, which exists once for each user of a machine, or else the cache folder."""
    given = env.get("XDG_RUNTIME_DIR")
    if given:
        with contextlib.suppress(OSError, ValueError):
            _require_own(Path(given), stat.S_ISDIR, "a folder")
            return Path(given) / "ggufbench"
    return cache_folder(env)


def _require_own(path: Path, is_kind: Callable[[int], bool], kind: str) -> None:
    """Raise OSError unless the path itself, not a link to it, is of that kind and of this user alone."""
    status = path.lstat()
    if not is_kind(status.st_mode):
        raise OSError(0, f"{path.name} is not {kind}")
    if sys.platform == "win32":
        return
    if status.st_uid != os.geteuid():
        raise OSError(0, f"{path.name} belongs to another user")
    if status.st_mode & _OTHERS_MAY_WRITE:
        raise OSError(0, f"other users may write to {path.name}")


def _unusable(path: Path, reason: str) -> MachineLockError:
    return MachineLockError(
        f"the lock at {printable(str(path))} cannot be used: {printable(reason)}; remove it, or set "
        "GGUFBENCH_CACHE to a folder of your own"
    )


def _write_note(note: Path) -> None:
    """Describe this run for the others; without the note, only its name is missing in their message."""
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    since = datetime.now().astimezone().isoformat(timespec="minutes")
    text = json.dumps({"pid": os.getpid(), "since": since, "command": command[:_COMMAND_CHARACTERS]})
    _remove_note(note)
    with contextlib.suppress(OSError), open(os.open(note, _NEW_FILE, 0o600), "w") as file:  # noqa: PTH123
        file.write(text)


_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


def _remove_note(note: Path) -> None:
    with contextlib.suppress(OSError):
        note.unlink(missing_ok=True)


def _holder(note: Path) -> str:
    """The run that holds the lock, from its note: process, start and command."""
    try:
        found = json.loads(read_regular(note, _NOTE_BYTES))
        pid, since, command = int(found["pid"]), str(found["since"]), str(found["command"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "another run, which is measuring"
    state = "is stopped" if _is_stopped(pid) else "is measuring"
    shown = printable(command, _COMMAND_CHARACTERS)
    return f"process {pid} (`{shown}`), which {state} since {printable(since, 40)}"


def _is_stopped(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except (psutil.Error, ValueError, OverflowError):
        return False
