"""Write a model atomically, after checking permissions and disk space."""

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
    """Raise `ModelError` if a GGUF must not be written to this path."""
    if path.suffix != ".gguf":
        raise ModelError(f"{path} must end in .gguf, because programs find models by that suffix.")
    if path.is_dir():
        raise ModelError(f"{path} is a folder; name the file to write.")
    if path.exists() and not overwrite:
        raise ModelError(f"{path} exists already; overwrite it explicitly, or name another file.")


def check_space(path: Path, needed: int) -> int:
    """Free bytes in the target folder. Raises `ModelError` if the file does not fit or is not permitted."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise ModelError(f"Cannot write {path} ({needed} bytes needed): {folder} is not a folder.")
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ModelError(
            f"Cannot write {path} ({needed} bytes needed, {free} free): no permission to write in {folder}."
        )
    if free < needed:
        raise ModelError(f"Cannot write {path}: {needed} bytes are needed but only {free} are free.")
    return free


@contextmanager
def write_model(path: Path, needed: int) -> Iterator[Path]:
    """Like `atomic_write`, for a model of about `needed` bytes. Raises `ModelError` if writing fails.

    Also removes the leftovers of earlier killed attempts, often gigabytes.
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
    """Unwind on SIGTERM as on Ctrl-C, so that temporary files are removed; exit code 143."""
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
