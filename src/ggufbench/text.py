"""Formatting for people: quantities, lists, text from files, similar spellings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def size(value: float) -> str:
    """Bytes in units of 1024: `424 MiB`, `11.3 GiB`."""
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= scale:
            number = value / scale
            return f"{number:.0f} {unit}" if number >= 100 else f"{number:.1f} {unit}"
    return f"{value:.0f} B"


def mebibytes(value: float) -> str:
    """Bytes to the MiB, for a value shown with its limit: `12052 MiB`."""
    return f"{value / 2**20:.0f} MiB"


def decimal_size(value: float) -> str:
    """Bytes in units of 1000, as hubs and bandwidths use them: `33.6 MB`, `4.68 GB`."""
    return f"{value / 1e9:.3g} GB" if value >= 1e9 else f"{value / 1e6:.3g} MB"


def duration(seconds: float) -> str:
    """Seconds for people: `0.4 s`, `12 s`, `3 min`, `1 h 40 min`."""
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


def times(factor: float) -> str:
    """A factor with its significant digits: `1,234`, `12`, `3.4`, `1.07`, `0.33`."""
    if factor >= 9.95:
        return f"{factor:,.0f}" if factor < 1e6 else f"{factor:,.3g}"
    return f"{factor:.1f}" if factor >= 1.995 else f"{factor:.2f}" if factor >= 0.1 else f"{factor:.2g}"


def parameters(count: int) -> str:
    """Number of a model's weights: `1.1 B`, `500 M`."""
    return f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.0f} M"


def context_tokens(count: int) -> str:
    """The length of a context in units of 1024: `32k`."""
    return f"{count // 1024}k" if count >= 1024 else str(count)


def count(number: int, one: str, several: str | None = None) -> str:
    """A number with its noun: `1 case`, `3 cases`."""
    return f"{number} {one if number == 1 else several or one + 's'}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """At most `most` of the names: `a`, `a and b`, `a, b, c and 12 more`; `none` if there are no names."""
    shown, left = list(names[:most]), len(names) - most
    if left > 0:
        shown.append(f"{left} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else "none"


def printable(text: str, most: int = 300) -> str:
    """The text on one line of at most `most` characters, each unprintable one replaced by `_`.

    For messages: control characters, format characters and lone surrogates could affect a terminal.
    """
    start = " ".join(text[: 8 * most].split())[: most + 1]
    cleaned = "".join(c if c.isprintable() else "_" for c in start)
    return cleaned if len(cleaned) <= most else cleaned[: most - 3] + "..."


def escaped(text: str, kept: str = "") -> str:
    r"""The whole text with each unprintable character, except those in `kept`, as its escape: `\x1b[31m`.

    For tables and pages: the reader sees the real content of a file.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else ascii(c)[1:-1] for c in text)


def nearest(word: str, choices: Iterable[str], most: int = 1) -> list[str]:
    """The choices most similar to the word, best first; those that begin with it come first."""
    import difflib

    names = list(choices)
    beginning = [name for name in names if len(word) > 2 and name.startswith(word)]
    close = difflib.get_close_matches(word, names, n=most, cutoff=0.5)
    return list(dict.fromkeys([*beginning, *close]))[:most]


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """End of a message about an unknown word: `; did you mean Q4_K_M?`; empty if nothing is similar."""
    return "".join(f"; did you mean {name}?" for name in nearest(word, choices))
