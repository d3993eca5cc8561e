"""Write a model in one step, after checking that it may be written and fits on the disk."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ggufbench.modelkit.spec import ModelError
from ggufbench.paths import atomic_write, remove_leftovers


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
def write_model(path: Path, needed: int) -> Iterator[Path]:
    """Like `atomic_write`, for a model of about `needed` bytes. Raises `ModelError` if the disk refuses it.

    Also removes what killed processes left of earlier attempts, often gigabytes.
    """
    free = check_space(path, needed)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        with atomic_write(path) as temporary:
            yield temporary
    except OSError as error:
        reason = error.strerror or str(error)
        raise ModelError(
            f"Cannot write {path} ({needed} bytes needed, {free} were free): {reason}."
        ) from error


@contextmanager
def orderly_end() -> Iterator[None]:
    """Let SIGTERM unwind like Ctrl-C, so that temporary files are removed; exit code 143."""
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
