"""Formatting of ratios, names and outcomes for sentences."""

from __future__ import annotations

import re

from ggufbench.outcomes import Outcome
from ggufbench.records.schema import Record
from ggufbench.stats.ratios import Ratio
from ggufbench.text import count, times

_MOST_REASON = 160


def spread(ratio: Ratio) -> str:
    """Confidence interval with its level: ` (3.1 to 3.6 at 97 %)`; empty if missing or too narrow to show."""
    if ratio.low is None or ratio.high is None or ratio.level is None:
        return ""
    if times(ratio.low) == times(ratio.high):
        return ""
    return f" ({times(ratio.low)} to {times(ratio.high)} at {100 * ratio.level:.0f} %)"


def label(record: Record) -> str:
    """Display name of the model: name and quantization."""
    return f"{record.model.name}-{record.model.quantization}"


def work(record: Record) -> str:
    """Work of each repetition: `512 prompt and 128 generated tokens`, `8 sequences of 256 tokens`."""
    workload = record.workload
    if not record.rates:
        return f"texts in chunks of {workload.prompt_tokens} tokens"
    reading = record.rates[0].replace("encode", "encoded")
    if "decode" not in record.rates:
        return f"{count(workload.sequences, 'sequence')} of {workload.prompt_tokens} tokens"
    return f"{workload.prompt_tokens} {reading} and {workload.generated_tokens} generated tokens"


def ending(record: Record) -> str:
    """How a case ended, for example `hung in load (no answer for 60 s)` or `crashed in decode`."""
    where = f" in {record.phase}" if record.phase else ""
    signals = [
        launch.signal for launch in record.launches if launch.signal and launch.outcome is record.outcome
    ]
    match record.outcome:
        case Outcome.HUNG:
            timeout = re.search(r" for (\d+) s", record.reason or "")
            return f"hung{where}" + (f" (no answer for {timeout[1]} s)" if timeout else "")
        case Outcome.CRASHED:
            return f"crashed{where}" + (f" ({signals[0]})" if signals else "")
        case Outcome.OUT_OF_MEMORY:
            return f"ran out of memory{where}"
        case Outcome.SKIPPED:
            return "was skipped" + _because(record)
        case Outcome.FAILED | Outcome.NO_ANSWER:
            how = "failed" if record.outcome is Outcome.FAILED else "had no answer to time"
            return f"{how}{where}" + _because(record)
        case _:
            return "was measured"


def _because(record: Record) -> str:
    reason = (record.reason or "").strip()
    return f": {reason[:_MOST_REASON]}{'...' if len(reason) > _MOST_REASON else ''}" if reason else ""
