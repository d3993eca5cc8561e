"""Limits of this process's Linux control group and of all its parents, in versions 1 and 2.

A container, a service or a batch system sets them. A group without a limit may be inside one with a limit.
Formats: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst, and proc(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_PROC = Path("/proc/self")
_OCTAL = re.compile(r"\\([0-7]{3})")


@cache
def groups(controller: str, proc: Path) -> tuple[Path, ...]:
    """Folders of this process's group for `cpu` or `memory`, the own one first, then its parents.

    Empty without control groups. If both versions are mounted, a controller belongs to one of them.
    """
    paths = _group_paths(_read(proc / "cgroup"))
    for version in (controller, ""):
        for controllers, root, mounted in _mounts(_read(proc / "mountinfo")):
            if version in controllers.split(","):
                return tuple(_upwards(mounted, root, _path_of(paths, version)))
    return ()


def cpu_quota() -> float | None:
    """Cores that the strictest group grants; None without a quota."""
    return min(filter(None, map(_quota, groups("cpu", _PROC))), default=None)


def memory_limit_bytes() -> int | None:
    """Memory that the strictest group grants; None without a limit."""
    return min(
        (limit for folder in groups("memory", _PROC) for limit in _memory_limits(folder)), default=None
    )


def memory_left_bytes() -> int | None:
    """Memory that the groups still grant, where file cache counts as free; None without a limit."""
    return min((left for folder in groups("memory", _PROC) for left in _memory_left(folder)), default=None)


def throttled_seconds() -> float | None:
    """Time for which a quota has stopped the groups of this process; None if no group counts it.

    The kernel adds up the time of all cores, so it can be longer than the time that has passed.
    """
    counted = [seconds for folder in groups("cpu", _PROC) for seconds in _throttled(folder)]
    return sum(counted) if counted else None


def _quota(folder: Path) -> float | None:
    words = _read(folder / "cpu.max").split() or [
        _read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")
    ]
    if len(words) != 2 or not all(word.isdecimal() for word in words) or int(words[1]) == 0:
        return None  # "max" and -1 mean no limit
    return int(words[0]) / int(words[1])


def _memory_limits(folder: Path) -> Iterator[int]:
    """Limits of one group; above `memory.high` the kernel slows the group down to a crawl."""
    for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
        text = _read(folder / name).strip()
        if text.isdecimal():
            yield int(text)


def _memory_left(folder: Path) -> Iterator[int]:
    used = (_read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")).strip()
    if used.isdecimal():
        statistics = dict(line.split(maxsplit=1) for line in _lines(folder / "memory.stat"))
        # Version 1 counts the groups inside this one only in the fields with `total_`.
        cached = sum(
            int(statistics.get(f"total_{name}", statistics.get(name, "0")))
            for name in ("active_file", "inactive_file")
        )
        for limit in _memory_limits(folder):
            yield max(0, limit - int(used) + cached)


def _throttled(folder: Path) -> Iterator[float]:
    units = {"throttled_usec": 1e-6, "throttled_time": 1e-9}
    for line in _lines(folder / "cpu.stat"):
        name, value = line.split(maxsplit=1)
        if name in units and value.isdecimal():
            yield int(value) * units[name]


def _group_paths(text: str) -> dict[str, str]:
    """Path of the group by controller from `/proc/PID/cgroup`; the key of version 2 is empty."""
    paths = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers or number == "0":
            paths[controllers] = path
    return paths


def _path_of(paths: dict[str, str], controller: str) -> str:
    return next((path for names, path in paths.items() if controller in names.split(",")), "/")


def _mounts(text: str) -> Iterator[tuple[str, str, Path]]:
    """Controllers, root and folder of each hierarchy from `/proc/PID/mountinfo`; version 2 names none."""
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        root, folder = (_OCTAL.sub(lambda code: chr(int(code[1], 8)), field) for field in fields[3:5])
        yield "" if kind[0] == "cgroup2" else kind[2], root, Path(folder)


def _upwards(mounted: Path, root: str, path: str) -> Iterator[Path]:
    """The group's folder and its parents up to the mount, which is all that a container can see."""
    inside = path.removeprefix(root.rstrip("/")).strip("/")
    folder = mounted / inside
    if ".." in folder.parts or not folder.is_dir():
        folder = mounted
    while folder != mounted:
        yield folder
        folder = folder.parent
    yield mounted


def _lines(path: Path) -> list[str]:
    """Lines of a file of statistics that have a name and a value."""
    return [line for line in _read(path).splitlines() if len(line.split()) == 2]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
