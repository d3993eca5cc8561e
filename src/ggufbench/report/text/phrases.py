"""Text of the page: escaped text from files, ratios, and commands to copy."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ggufbench.records.schema import Record
from ggufbench.text import escaped

if TYPE_CHECKING:
    from markupsafe import Markup

NOTHING = "\u2013"
"""The dash for a missing value."""
TIMES = "\u00d7"

PEAK_OF_PROCESS = "Peak memory: of the process alone, without its devices."
MEMORY_IN_TOTAL = "Memory: peak of the process and of its devices."
"""Both values occur on the page and the terminal, always with these words."""


def harmless(value: object) -> object:
    """Text with control characters, direction overrides and surrogates escaped.

    Other values are returned unchanged, and so is markup, which was escaped when it was made.
    """
    if type(value) is str:  # first, because a page of ten thousand cases calls this half a million times
        return escaped(value)
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return escaped(value)


def prose(sentence: str) -> Markup:
    """A sentence as HTML, in which text between backticks is code."""
    from markupsafe import Markup, escape

    parts = str(harmless(sentence)).split("`")
    if len(parts) % 2 == 0:  # an unpaired backtick is an ordinary character
        return escape("`".join(parts))
    code = Markup("<code>{}</code>")
    tagged = (code.format(part) if n % 2 else escape(part) for n, part in enumerate(parts))
    return Markup("").join(tagged)


def times(ratio: float) -> str:
    """A ratio with three digits or more and a multiplication sign."""
    return f"{ratio:.0f}{TIMES}" if 100 <= ratio < 1e6 else f"{ratio:#.3g}{TIMES}"


def shell_command(words: Sequence[str]) -> str:
    """A shell command with exactly these arguments."""
    return " ".join(_quoted(word) for word in words)


def repeat_command(record: Record) -> str:
    """The command that measures a case again."""
    model = record.model
    options = {"--models": model.path, "--scenario": record.scenario, "--quant": model.quantization}
    words = [word for name, value in options.items() for word in _option(name, value)]
    return shell_command(["ggufbench", "run", *words])


def show_command(run: str, case_id: str) -> str:
    """The command that shows all of a record."""
    return shell_command(["ggufbench", "show", run, *_option("--match", case_id)])


def _option(name: str, value: str) -> list[str]:
    """An option with its value; a value that begins with a dash needs an equals sign."""
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def _quoted(word: str) -> str:
    if not word.isprintable():
        # The form that bash and zsh read as the same bytes, and that a page can show.
        escaped = "".join(_escaped(letter) for letter in word)
        return f"$'{escaped}'"
    if word.startswith("~/"):
        return "~/" + shlex.quote(word[2:])  # the shell does not expand a quoted ~
    return shlex.quote(word)


def _escaped(letter: str) -> str:
    if letter in "\\'":
        return f"\\{letter}"
    if letter.isprintable():
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", errors="backslashreplace"))
