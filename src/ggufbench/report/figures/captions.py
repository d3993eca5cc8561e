"""Texts of the figures: names from files, values, ratios to transformers, and how a case ended."""

from __future__ import annotations

from collections.abc import Sequence

from ggufbench.analysis.baselines import Versus
from ggufbench.analysis.wording import ending
from ggufbench.metrics import METRICS
from ggufbench.outcomes import Outcome
from ggufbench.records.schema import Record
from ggufbench.text import escaped, times

_MOST_CHARACTERS = 200
_CUT = 400


def plain(words: str) -> str:
    """A name from a file, with control characters escaped and the middle of a long name left out."""
    if len(words) > _CUT:
        words = words[: _CUT // 2] + "…" + words[-_CUT // 2 :]
    shown = escaped(words)
    if len(shown) > _MOST_CHARACTERS:
        shown = shown[: _MOST_CHARACTERS // 2] + "…" + shown[-_MOST_CHARACTERS // 2 :]
    return shown


def gain(versus: Versus, metric: str) -> float | None:
    """Speed of llama.cpp relative to transformers; for memory, the ratio of the two."""
    found = versus.ratios.get(metric)
    if found is None or found.value <= 0:
        return None
    return 1 / found.value if METRICS[metric].unit == "s" else found.value


def compared(metric: str) -> str:
    """Text between a factor and the name of a baseline."""
    return "the memory of" if METRICS[metric].unit == "bytes" else "as fast as"


def baseline_name(record: Record) -> str:
    """Short name of a transformers scenario: `bf16` for `transformers-bf16`."""
    return plain(record.scenario.removeprefix("transformers-") or record.scenario)


def beside(pairs: Sequence[Versus], metric: str) -> str:
    """Ratios of one case to its baselines: `3.2x bf16, 4.1x gguf`; empty if there are none."""
    said = []
    for versus in pairs:
        found = gain(versus, metric)
        if found is not None:
            said.append(f"{times(found)}x {baseline_name(versus.baseline)}")
    return ", ".join(said)


def summary(pairs: Sequence[Versus], metric: str) -> str:
    """Range of the ratios of all cases in one sentence; if there are none, how transformers ended."""
    gains = sorted(found for versus in pairs if (found := gain(versus, metric)) is not None)
    if not gains:
        return failures(pairs) or "No transformers baseline has a value for this."
    low, high = times(gains[0]), times(gains[-1])
    span = f"{low}x" if low == high else f"{low} to {high}x"
    how_many = f" over {len(gains):,} comparisons" if len(gains) > 1 else ""
    return f"llama.cpp {METRICS[metric].verb} {span} {compared(metric)} transformers{how_many}."


def sentences(*parts: str) -> str:
    """Join the sentences that are not empty, each once."""
    return " ".join(dict.fromkeys(part.strip() for part in parts if part.strip()))


def failures(pairs: Sequence[Versus]) -> str:
    """Sentence about the cases in which transformers gave no value; empty if there are none."""
    ended = {key: end for v in pairs if (end := failure(v.baseline)) for key in [id(v.baseline)]}
    if not ended:
        return ""
    ends = list(dict.fromkeys(ended.values()))
    more = f"; and {len(ends) - 2} more" if len(ends) > 2 else ""
    cases = "one case" if len(ended) == 1 else f"{len(ended):,} cases"
    return f"Transformers gave no value in {cases}: {'; '.join(ends[:2])}{more}."


def failure(record: Record) -> str | None:
    """Outcome of a failed case: `hung in load (no answer for 60 s)`; None if it did not fail."""
    return plain(ending(record)) if is_failed(record) else None


def is_failed(record: Record) -> bool:
    """True if the case ended without a result."""
    return record.outcome not in (Outcome.MEASURED, Outcome.ENVIRONMENT, Outcome.SKIPPED)
