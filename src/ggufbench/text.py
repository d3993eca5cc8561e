"""Formatting for people: quantities, names from files, near spellings."""

from __future__ import annotations


def size(value: float) -> str:
    """Bytes for people: `424 MiB`, `11.3 GiB`."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= scale:
            number = value / scale
            return f"{number:.0f} {unit}" if number >= 100 else f"{number:.1f} {unit}"
    return f"{value:.0f} B"


def duration(seconds: float) -> str:
    """Seconds for people: `0.4 s`, `12 s`, `3 min`, `1 h 20 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def seconds_text(value: float) -> str:
    """A measured time for people, to two digits or more: `1.20 s`, `41 ms`, `3.2 µs`, `0.35 ms`."""
    amount = abs(value)
    if amount >= 0.1 or amount == 0:
        return f"{value:.2f} s"
    for unit, scale in (("ms", 1e3), ("µs", 1e6)):
        if (scaled := amount * scale) >= 0.1:
            decimals = 0 if scaled >= 10 else 1 if scaled >= 1 else 2
            return f"{value * scale:.{decimals}f} {unit}"
    return f"{value * 1e9:.1f} ns"


def rate(value: float) -> str:
    """Tokens per second for people: `19.1 t/s`, `142 t/s`."""
    return f"{value:.0f} t/s" if value >= 100 else f"{value:.1f} t/s" if value >= 1 else f"{value:.2g} t/s"
