"""Write a large file whole or not at all: under a temporary name beside it, renamed when it is complete."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ggufbench.modelkit.spec import ModelError


def check_target(path: Path, overwrite: bool) -> None:
    """`ModelError` where a GGUF of this name may not be written."""
    if path.suffix != ".gguf":
        raise ModelError(f"{path} must end in .gguf, or nothing would find the model.")
    if path.is_dir():
        raise ModelError(f"{path} is a folder; name the file to write.")
    if path.exists() and not overwrite:
        raise ModelError(f"{path} exists already; ask for overwriting, or name another file.")


def check_space(path: Path, needed: int) -> int:
    """Free bytes where the file will lie; `ModelError` where it would not fit or may not be written."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise ModelError(f"Cannot write {path} ({needed} bytes needed): {folder} is not a folder.")
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ModelError(
            f"Cannot write {path} ({needed} bytes needed, {free} free): no permission to write in {folder}."
        )
    if free < needed:
        raise ModelError(f"Cannot write {path}: {needed} bytes are needed and {free} are free.")
    return free


@contextmanager
def part(path: Path, suffix: str = "part") -> Iterator[Path]:
    """A temporary name beside `path` that no search for models matches; gone afterwards.

    What a killed process left under such a name is removed as well.
    """
    _sweep(path, suffix)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{suffix}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def settle(temporary: Path) -> None:
    """Wait for the disk: a measurement that follows must not share it with our pages."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def orderly_end() -> Iterator[None]:
    """Meanwhile SIGTERM unwinds like Ctrl-C does, so that temporary files are removed; exit code 143."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _sweep(path: Path, suffix: str) -> None:
    import psutil

    left = re.compile(rf"\.{re.escape(path.name)}\.(\d{{1,9}})\.{re.escape(suffix)}")
    for file in path.parent.iterdir():
        found = left.fullmatch(file.name)
        if found and not psutil.pid_exists(int(found[1])):
            file.unlink(missing_ok=True)
