"""The cache folder, files that are read without waiting, and files that are written in one step."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from ggufbench.errors import GgufbenchError
from ggufbench.text import printable

_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})", re.ASCII)
_SHOWN = 100
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


def cache_folder(env: Mapping[str, str] = os.environ) -> Path:
    """`GGUFBENCH_CACHE`, or `ggufbench` in the user's cache folder: limits, builds, environments."""
    if given := env.get("GGUFBENCH_CACHE"):
        return expanded(with_variables(given, env))
    if sys.platform != "win32" and home_folder(env) is None and not env.get("XDG_CACHE_HOME"):
        return _temporary_cache()
    from platformdirs import user_cache_path

    return user_cache_path("ggufbench", appauthor=False)


def _temporary_cache() -> Path:
    """A cache for a process without a home, as in a container: a folder that only this user can write."""
    folder = Path(tempfile.gettempdir()) / f"ggufbench-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise GgufbenchError(
            f"{folder} is not a folder of this user alone: set GGUFBENCH_CACHE to another one"
        )
    return folder


def unusable_path(error: OSError) -> str:
    """One sentence about a path that the file system refuses, with its beginning and the fix."""
    shown = printable(os.fsdecode(error.filename or ""), _SHOWN)
    if error.errno == errno.ENAMETOOLONG:
        return f"{shown} cannot be used: a part of the path is longer than 255 bytes; use a shorter name"
    return f"{shown} cannot be used: {error.strerror}; name another path or change its permissions"


def home_folder(env: Mapping[str, str] = os.environ) -> Path | None:
    """The user's home folder; None if neither the environment nor the system states one."""
    stated = env.get("USERPROFILE" if sys.platform == "win32" else "HOME")
    try:
        return Path(stated) if stated else Path.home()
    except RuntimeError:
        return None


def expanded(path: str | Path) -> Path:
    """The path with a leading `~` replaced; unchanged if there is no such home folder."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 (Path.expanduser raises an error)


def shipped_folder(name: str) -> Path:
    """The folder `bench` or `scenarios` that ggufbench ships: in the package, or in a checkout beside it."""
    package = Path(__file__).resolve().parent
    installed = package / name
    return installed if installed.is_dir() else package.parent.parent / name


def folder_from(env: Mapping[str, str], variable: str, home: Path) -> Path | None:
    """The folder that an environment variable names; None if it is unset or blank."""
    text = with_variables(env.get(variable, "").strip(), env)
    return user_path(text, home) if text else None


def with_variables(text: str, env: Mapping[str, str]) -> str:
    """The text with `$NAME` and `${NAME}` replaced, as huggingface_hub does; unknown variables stay."""
    return _VARIABLE.sub(lambda found: env.get(found[1] or found[2], found[0]), text)


def user_path(text: str, home: Path) -> Path:
    """A path from a variable or a settings file, in which `~` means `home`."""
    if text == "~" or text.startswith(("~/", "~\\")):
        return home / text[2:]
    return Path(text)


def open_regular(path: Path) -> FileIO:
    """Open a regular file for reading. Raises OSError for anything else, without waiting for it.

    Opening a FIFO waits for a writer, and opening some devices has an effect, so the path is checked first.
    It may become a FIFO meanwhile: O_NONBLOCK opens it without waiting, and the open file is checked again.
    """
    _require_regular(path.stat(), path)
    flags = os.O_RDONLY
    for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):  # which some systems do not have
        flags |= getattr(os, name, 0)
    file = FileIO(os.open(path, flags))
    try:
        _require_regular(os.fstat(file.fileno()), path)
    except OSError:
        file.close()
        raise
    return file


def read_regular(path: Path, most_bytes: int) -> bytes:
    """The content of a regular file of at most `most_bytes`. Raises OSError for anything else."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise OSError(errno.EFBIG, f"it has {size} bytes, and the limit is {most_bytes}")
        return file.read(size + 1)  # the length is known: no buffer is filled first


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Facts that change when a file is replaced or written."""

    device: int
    inode: int
    size: int
    modified_nanoseconds: int


def file_identity(path: Path) -> FileIdentity | None:
    """The identity of a regular file; None for anything else."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return FileIdentity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _require_regular(status: os.stat_result, path: Path) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder, not a regular file", str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, not a regular file", str(path))


@contextmanager
def atomic_write(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Write a file in one step: the body writes the temporary file that it is given.

    The content is on the disk before `path` appears. If the body or the disk fails, or on Ctrl-C, the
    temporary file is removed and `path` stays as it was. Without `overwrite`, an existing `path` raises
    FileExistsError. The folder is created if necessary.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_file(path) as temporary:
        yield temporary
        with temporary.open("r+b") as file:
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(path)
        else:
            _publish(temporary, path)


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """A path for a temporary file in the same folder, which is removed afterwards.

    Its name has no suffix that a search for models or records matches, and contains the process id, so that
    `remove_leftovers` can find files that no process writes any more.
    """
    temporary = path.with_name(f"{_prefix(path)}{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of `path` whose processes were killed."""
    import psutil

    pattern = re.compile(rf"{re.escape(_prefix(path))}(\d{{1,9}})\.[0-9a-f]{{8}}\.part")
    for file in path.parent.iterdir():
        found = pattern.fullmatch(file.name)
        if found and not psutil.pid_exists(int(found[1])):
            file.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    """The beginning of a temporary name: short, and without characters that llama.cpp's converter expands."""
    return f".{re.sub(r'[^A-Za-z0-9._-]+', '_', path.name)[:100]}."


def _publish(temporary: Path, path: Path) -> None:
    """Give a finished file its name; unlike a rename, a link fails if the name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise
        # The file system has no hard links.
        if path.exists():
            raise FileExistsError(path) from None
        temporary.rename(path)
