"""Words and figures of the page: what comes from files is made harmless, numbers readable."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ggufbench.metrics import METRICS
from ggufbench.records.schema import Record
from ggufbench.report.text.terminal import text
from ggufbench.text import rate, seconds_text, size

if TYPE_CHECKING:
    from markupsafe import Markup

NOTHING = "\u2013"
"""A dash, where there is no value."""
TIMES = "\u00d7"

METRIC_NAMES = {
    "load_seconds": "Load",
    "first_decode_seconds": "First token after loading",
    "ready_seconds": "Load and first token",
    "cold_load_seconds": "Cold load",
    "cold_first_decode_seconds": "First token after a cold load",
    "cold_ready_seconds": "Cold load and first token",
    "prompt_tokens_per_second": "Prompt",
    "decode_tokens_per_second": "Decode",
    "token_p50_seconds": "One token, median",
    "token_p95_seconds": "One token, 95 %",
    "token_p99_seconds": "One token, 99 %",
    "token_slope_seconds": "Each token longer than the last by",
    "time_to_first_token_seconds": "Time to first token",
    "token_overhead_seconds": "Added to one token",
    "overhead_slope_seconds": "Added more to each token than to the last",
    "peak_rss_bytes": "Peak memory",
    "peak_anonymous_bytes": "Peak memory without the file",
    "device_bytes": "Buffers on the device",
    "device_used_bytes": "Device memory taken",
    "peak_to_file_ratio": "Peak memory over file size",
}
"""For people; another metric keeps its own name."""


def harmless(value: object) -> object:
    """Text with everything that is not printable as its escape: controls, overrides of direction, surrogates.

    Other values pass; so do texts that were made into markup before, which have been through here.
    """
    if type(value) is str:  # first, because a page of ten thousand cases asks half a million times
        return value if value.isprintable() else text(value).plain
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return text(value).plain


def prose(sentence: str) -> Markup:
    """A sentence as markup: what stands between backticks is code, and nothing in it is markup."""
    from markupsafe import Markup, escape

    parts = str(harmless(sentence)).split("`")
    if len(parts) % 2 == 0:  # a backtick without a second one is only a letter
        return escape("`".join(parts))
    code = Markup("<code>{}</code>")
    tagged = (code.format(part) if n % 2 else escape(part) for n, part in enumerate(parts))
    return Markup("").join(tagged)


def metric_name(metric: str) -> str:
    """A metric's name for people."""
    return METRIC_NAMES.get(metric, metric)


def amount(metric: str, value: float | None) -> str:
    """A metric's value with its unit; a dash for none."""
    if value is None:
        return NOTHING
    match METRICS[metric].unit if metric in METRICS else "ratio":
        case "tokens/s":
            return rate(value)
        case "s":
            return seconds_text(value)
        case "bytes":
            return size(value)
        case _:
            return f"{value:.2f}{TIMES}"


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
