"""Memory of this process from the kernel's accounting, read at phase marks, never while a clock runs.

`ru_maxrss` is not used on Linux: a child's value starts at its parent's peak. VmHWM starts with the process.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

_ROLLUP = "/proc/self/smaps_rollup"
_RUSAGE_INFO_V4 = 4
# <sys/resource.h>, struct rusage_info_v4: a 16-byte uuid, then unsigned 64-bit fields; these are the indexes
# of the fields that are read.
_WIRED_SIZE, _RESIDENT_SIZE, _PHYS_FOOTPRINT, _LIFETIME_MAX_FOOTPRINT = 5, 6, 7, 28


def mark() -> dict[str, int]:
    """Memory in bytes and page faults so far; figures that this system does not provide are left out.

    Linux: `rss_bytes`, `peak_rss_bytes` (VmHWM, since the last `reset_peak`), `anonymous_bytes`,
    `file_bytes`, `shared_bytes`, `locked_bytes` (cannot be swapped out or dropped), and `pss_bytes`, which
    counts only this process's share of a shared page.
    macOS: `rss_bytes`, `footprint_bytes`, `peak_footprint_bytes`, `wired_bytes`, `peak_rss_bytes`.
    """
    if sys.platform == "darwin":
        figures = _read_darwin()
    elif Path("/proc/self/status").exists():
        figures = {**parse_status(_read("/proc/self/status")), **parse_rollup(_read(_ROLLUP))}
    else:
        figures = {}
    return {**figures, **_page_faults()}


def reset_peak() -> None:
    """Restart the peak at the current resident size, so that each phase has its own peak (Linux).

    If the kernel does not allow it, the peak continues from the start of the process; the highest of all
    phases is the same either way.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def parse_status(text: str) -> dict[str, int]:
    """Bytes from the text of `/proc/PID/status`, whose sizes are in KiB."""
    names = {
        "VmRSS": "rss_bytes",
        "VmHWM": "peak_rss_bytes",
        "RssAnon": "anonymous_bytes",
        "RssFile": "file_bytes",
        "RssShmem": "shared_bytes",
        "VmLck": "locked_bytes",
    }
    return _kibibytes(text, names)


def parse_rollup(text: str) -> dict[str, int]:
    """Bytes from the text of `/proc/PID/smaps_rollup`, whose sizes are in KiB."""
    return _kibibytes(text, {"Pss": "pss_bytes"})


def _kibibytes(text: str, names: Mapping[str, str]) -> dict[str, int]:
    figures = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        words = value.split()
        if key in names and words and words[0].isdecimal():
            figures[names[key]] = int(words[0]) * 1024
    return figures


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def parse_rusage_info(buffer: bytes) -> dict[str, int]:
    """Bytes from the `rusage_info_v4` structure that macOS fills (little endian)."""
    fields = struct.unpack_from("<29Q", buffer, 16)
    return {
        "wired_bytes": fields[_WIRED_SIZE],
        "rss_bytes": fields[_RESIDENT_SIZE],
        "footprint_bytes": fields[_PHYS_FOOTPRINT],
        "peak_footprint_bytes": fields[_LIFETIME_MAX_FOOTPRINT],
    }


def _read_darwin() -> dict[str, int]:
    libproc = ctypes.CDLL("/usr/lib/libproc.dylib")
    buffer = ctypes.create_string_buffer(512)
    if libproc.proc_pid_rusage(os.getpid(), _RUSAGE_INFO_V4, buffer) != 0:
        return {}
    import resource

    figures = parse_rusage_info(buffer.raw)
    # On macOS this is in bytes, and starts with the process.
    figures["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return figures


def _page_faults() -> dict[str, int]:
    try:
        import resource
    except ImportError:  # Windows
        return {}
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"major_faults": usage.ru_majflt, "minor_faults": usage.ru_minflt}
