"""Check that a program is a Python that can run a worker."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from threading import Thread
from typing import BinaryIO, cast

from ggufbench.launching.launcher import worker_environment
from ggufbench.processes import end_group
from ggufbench.toolchain.builds import BuildError

_OLDEST_PYTHON = (3, 10)
"""Oldest Python of the worker, which uses dataclasses with slots and itertools.pairwise."""
_ANSWER_SECONDS = 20.0
_ANSWER_GRACE_SECONDS = 1.0
_ANSWER_BYTES = 64
_VERSION = "import sys; sys.stdout.write('Python %d.%d.' % tuple(sys.version_info[:2]))"
_ANSWER = re.compile(rb"Python (\d{1,3})\.(\d{1,3})\.")


def check_python(python: Path) -> None:
    """Check the version of a Python, in the environment of a worker. Raises BuildError."""
    answer = _answer_of(python)
    found = _ANSWER.fullmatch(answer)
    if found is None:
        said = repr(answer[:40])[1:] if answer else "nothing"
        raise BuildError(
            f"{python} is not a working Python: it printed {said} as its version; give an interpreter"
        )
    version = (int(found[1]), int(found[2]))
    if version < _OLDEST_PYTHON:
        needed = ".".join(map(str, _OLDEST_PYTHON))
        raise BuildError(
            f"{python} is Python {version[0]}.{version[1]}, and a worker needs {needed}; "
            "give a newer interpreter"
        )


def _answer_of(python: Path) -> bytes:
    """The first bytes that it prints before the timeout; it may be any program of that name."""
    try:
        process = subprocess.Popen(
            [str(python), "-c", _VERSION],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=worker_environment({}),
            start_new_session=True,
        )
    except OSError as error:
        raise BuildError(f"{python} cannot be started: {error.strerror}; give an interpreter") from None
    said: list[bytes] = []
    stdout = cast("BinaryIO", process.stdout)
    # In a thread: a process that left its group can keep the pipe open.
    reader = Thread(target=lambda: said.append(stdout.read(_ANSWER_BYTES)), daemon=True)
    reader.start()
    try:
        reader.join(_ANSWER_SECONDS)
    finally:
        end_group(process)
    reader.join(_ANSWER_GRACE_SECONDS)
    if not reader.is_alive():
        stdout.close()
    return b"".join(said)
