"""Words and figures of the page: what comes from files is made harmless, numbers readable."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ggufbench.records.schema import Record
from ggufbench.text import escaped

if TYPE_CHECKING:
    from markupsafe import Markup

NOTHING = "\u2013"
"""A dash, where there is no value."""
TIMES = "\u00d7"


def harmless(value: object) -> object:
    """Text with everything that is not printable as its escape: controls, overrides of direction, surrogates.

    Other values pass; so do texts that were made into markup before, which have been through here.
    """
    if type(value) is str:  # first, because a page of ten thousand cases asks half a million times
        return escaped(value)
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return escaped(value)


def prose(sentence: str) -> Markup:
    """A sentence as markup: what stands between backticks is code, and nothing in it is markup."""
    from markupsafe import Markup, escape

    parts = str(harmless(sentence)).split("`")
    if len(parts) % 2 == 0:  # a backtick without a second one is only a letter
        return escape("`".join(parts))
    code = Markup("<code>{}</code>")
    tagged = (code.format(part) if n % 2 else escape(part) for n, part in enumerate(parts))
    return Markup("").join(tagged)


def times(ratio: float) -> str:
    """A ratio: 12 or 0.33, with the sign of times."""
    return f"{ratio:.0f}{TIMES}" if 100 <= ratio < 1e6 else f"{ratio:#.3g}{TIMES}"


def shell_command(words: Sequence[str]) -> str:
    """A line for a shell that gives a program exactly these words."""
    return " ".join(_quoted(word) for word in words)


def repeat_command(record: Record) -> str:
    """The line that measures a case again."""
    model = record.model
    options = {"--models": model.path, "--scenario": record.scenario, "--quant": model.quantization}
    words = [word for name, value in options.items() for word in _option(name, value)]
    return shell_command(["pytest", "bench", "--benchmark-only", *words])


def show_command(run: str, case_id: str) -> str:
    """The line that shows all of a record."""
    return shell_command(["ggufbench", "show", run, *_option("--match", case_id)])


def _option(name: str, value: str) -> list[str]:
    """A value that begins with a dash would be taken for an option."""
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def _quoted(word: str) -> str:
    if not word.isprintable():
        # What bash and zsh read as the same bytes, and what a page can show.
        escaped = "".join(_escaped(letter) for letter in word)
        return f"$'{escaped}'"
    if word.startswith("~/"):
        return "~/" + shlex.quote(word[2:])  # in quotes, the shell would not know it as home
    return shlex.quote(word)


def _escaped(letter: str) -> str:
    if letter in "\\'":
        return f"\\{letter}"
    if letter.isprintable():
        return letter
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", errors="backslashreplace"))
