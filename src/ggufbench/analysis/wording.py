"""Numbers, names and endings in words, for sentences that are read aloud."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ggufbench.metrics import METRICS
from ggufbench.outcomes import Outcome
from ggufbench.records.schema import Record
from ggufbench.stats.ratios import Ratio

_MOST_REASON = 160
_VERBS = {
    "ready_seconds": "loads",
    "cold_ready_seconds": "loads from the disk",
    "prompt_tokens_per_second": "reads prompts",
    "decode_tokens_per_second": "answers",
    "token_p50_seconds": "gives a token",
    "time_to_first_token_seconds": "begins an answer",
}
"""What a model does, by the metric that times it."""


def verb(metric: str) -> str:
    """What is timed: `loads`, `answers`; a metric's own name where there is no word for it."""
    return _VERBS.get(metric, f"does {metric}")


def amount(metric: str, value: float) -> str:
    """A measured value with its unit: `0.193 s`, `13.0 tokens/s`, `1.27 GiB`."""
    match METRICS[metric].unit:
        case "bytes":
            return bytes_text(value)
        case "tokens/s":
            return f"{value:.0f} tokens/s" if value >= 100 else f"{value:.1f} tokens/s"
        case "s":
            return f"{value:.3g} s"
        case _:
            return f"{value:.2f}"


def bytes_text(value: float) -> str:
    """`1.27 GiB`, `424 MiB`."""
    return f"{value / 2**30:.2f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def times(factor: float) -> str:
    """A factor with as many digits as it is worth: `12`, `3.4`, `1.07`."""
    return f"{factor:.0f}" if factor >= 9.95 else f"{factor:.1f}" if factor >= 1.995 else f"{factor:.2f}"


def spread(ratio: Ratio) -> str:
    """The interval with its level: ` (3.1 to 3.6 at 97 %)`; empty where there is none to see."""
    if ratio.low is None or ratio.high is None or ratio.level is None:
        return ""
    if times(ratio.low) == times(ratio.high):
        return ""
    return f" ({times(ratio.low)} to {times(ratio.high)} at {100 * ratio.level:.0f} %)"


def count(number: int, one: str, several: str | None = None) -> str:
    """`1 case`, `3 cases`."""
    return f"{number} {one if number == 1 else several or one + 's'}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """`a`, `a and b`, `a, b, c and 12 more`."""
    shown, left = list(names[:most]), len(names) - most
    if left > 0:
        shown.append(f"{left} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else "none"


def label(record: Record) -> str:
    """The model as people call it: name and quantization."""
    return f"{record.model.name}-{record.model.quantization}"


def ending(record: Record) -> str:
    """How a case ended that was not measured: `hung in load (no answer for 60 s)`, `crashed in decode`."""
    where = f" in {record.phase}" if record.phase else ""
    signals = [launch.signal for launch in record.launches if launch.signal]
    match record.outcome:
        case Outcome.HUNG:
            deadline = re.search(r" for (\d+) s", record.reason or "")
            return f"hung{where}" + (f" (no answer for {deadline[1]} s)" if deadline else "")
        case Outcome.CRASHED:
            return f"crashed{where}" + (f" ({signals[0]})" if signals else "")
        case Outcome.OUT_OF_MEMORY:
            return f"ran out of memory{where}"
        case Outcome.SKIPPED:
            return "was skipped" + _because(record)
        case Outcome.FAILED:
            return f"failed{where}" + _because(record)
        case _:
            return "was measured"


def _because(record: Record) -> str:
    reason = (record.reason or "").strip()
    return f": {reason[:_MOST_REASON]}{'...' if len(reason) > _MOST_REASON else ''}" if reason else ""
