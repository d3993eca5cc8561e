"""The part of a file in the page cache, and how to drop it or read all of it in, without root."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ggufbench.paths import open_regular

_WINDOW_BYTES = 2**30
_READ_BYTES = 2**22
_MS_INVALIDATE = 2  # the same number on Linux and macOS
_LOWEST_BIT = bytes(value & 1 for value in range(256))


def resident_fraction(paths: Sequence[Path]) -> float | None:
    """The fraction of these files, 0 to 1, that is in the page cache; None if this system does not report it.

    Linux reports it only for files that the user owns or may write; for others it claims that everything is
    there.
    """
    if not hasattr(mmap, "PROT_READ") or not all(map(_is_reported, paths)):
        return None
    resident = pages = 0
    try:
        for path in paths:
            for found, asked in _counts(path):
                resident, pages = resident + found, pages + asked
    except OSError:
        return None
    return resident / pages if pages else None


def drop(paths: Sequence[Path]) -> None:
    """Ask the system to drop the pages of these files.

    It keeps pages that another process maps, and all of them on a file system in memory (tmpfs): check
    `resident_fraction` afterwards.
    """
    for path in paths:
        with contextlib.suppress(OSError):
            _drop_one(path)


def read_once(paths: Sequence[Path], progress: Callable[[int], None] = lambda _done: None) -> None:
    """Read these files from start to end, so that they are in the page cache if they fit.

    `progress` gets the number of bytes read so far. Raises OSError.
    """
    buffer, done = bytearray(_READ_BYTES), 0
    for path in paths:
        with open_regular(path) as file:
            while count := file.readinto(buffer):
                done += count
                progress(done)


def _is_reported(path: Path) -> bool:
    if sys.platform != "linux":
        return True
    with contextlib.suppress(OSError):
        return os.access(path, os.W_OK) or path.stat().st_uid == os.geteuid()
    return False


def _drop_one(path: Path) -> None:
    if hasattr(os, "posix_fadvise"):
        with open_regular(path) as file:
            os.fdatasync(file.fileno())  # pages that are not yet on the disk would stay
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    elif sys.platform == "darwin":
        for address, length in _windows(path):
            _libc().msync(ctypes.c_void_p(address), ctypes.c_size_t(length), _MS_INVALIDATE)


def _counts(path: Path) -> Iterator[tuple[int, int]]:
    """Resident pages and total pages of each window of the file."""
    for address, length in _windows(path):
        pages = -(-length // mmap.PAGESIZE)
        resident = ctypes.create_string_buffer(pages)
        if _libc().mincore(ctypes.c_void_p(address), ctypes.c_size_t(length), resident) != 0:
            raise OSError(ctypes.get_errno(), "mincore")
        yield resident.raw.translate(_LOWEST_BIT).count(1), pages


def _windows(path: Path) -> Iterator[tuple[int, int]]:
    """Address and length of each part of the file, mapped while it is checked and never read."""
    libc = _libc()
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        for start in range(0, size, _WINDOW_BYTES):
            length = min(_WINDOW_BYTES, size - start)
            address = libc.mmap(
                None, length, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), ctypes.c_longlong(start)
            )
            if address in (None, ctypes.c_void_p(-1).value):
                raise OSError(ctypes.get_errno(), "mmap")
            try:
                yield address, length
            finally:
                libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(length))


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_longlong,
    ]  # fmt: skip
    return libc
