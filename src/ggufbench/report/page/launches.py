"""Launches, samples and native logs of a record as text."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ggufbench.records.schema import Launch, Record, Sample
from ggufbench.report.text.phrases import NOTHING
from ggufbench.text import rate, seconds_text, size

_MOST_LINE = 400


@dataclass(frozen=True, slots=True)
class LogView:
    """Log of the libraries in one launch."""

    title: str
    lines: Sequence[str]
    left_out: int
    """Number of lines in the middle that are left out."""


def launch_line(number: int, launch: Launch, reading: str) -> tuple[str, ...]:
    """A launch as a table row; `reading` is the phase that reads a text."""
    how = "load only" if launch.load_only else "all"
    peaks = [mark.figures.get("peak_rss_bytes", 0) for mark in launch.marks]
    ending = str(launch.outcome) + (f" ({launch.signal})" if launch.signal else "")
    ending += f" in {launch.phase}" if launch.phase else ""
    return (
        str(number),
        how,
        _held(launch),
        _median_seconds(launch, "load"),
        _median_seconds(launch, "first_decode"),
        _median_rate(launch, reading),
        _median_rate(launch, "decode"),
        size(max(peaks)) if any(peaks) else NOTHING,
        launch.digest or NOTHING,
        f"{ending}: {launch.reason}" if launch.reason else ending,
    )


def _held(launch: Launch) -> str:
    if launch.page_cache is None:
        return NOTHING
    share = launch.page_cache.resident_fraction
    state = str(launch.page_cache.state)
    return state if share is None else f"{state}, {100 * share:.0f} % in memory"


def _median_seconds(launch: Launch, phase: str) -> str:
    found = [sample.seconds for sample in _timed(launch, phase)]
    return seconds_text(statistics.median(found)) if found else NOTHING


def _median_rate(launch: Launch, phase: str) -> str:
    found = [sample.tokens / sample.seconds for sample in _timed(launch, phase) if sample.seconds]
    return rate(statistics.median(found)) if found else NOTHING


def _timed(launch: Launch, phase: str) -> Iterable[Sample]:
    return (s for s in launch.samples if s.phase == phase and not s.warmup and not s.disturbed)


def sample_line(launch: int, sample: Sample) -> tuple[str, ...]:
    """A sample as a table row."""
    speed = rate(sample.tokens / sample.seconds) if sample.tokens > 1 and sample.seconds else NOTHING
    why = ["warm-up"] if sample.warmup else []
    why += [disturbance.sentence for disturbance in sample.disturbed]
    return (
        str(launch),
        sample.phase,
        seconds_text(sample.seconds),
        str(sample.tokens),
        speed,
        f"no: {'; '.join(why)}" if why else "yes",
    )


def logs_of(record: Record, budget: int) -> list[LogView]:
    """Logs of the launches; of a long log, the beginning and the end."""
    logs = []
    for number, launch in enumerate(record.launches, 1):
        for what, lines in (("llama.cpp", launch.log), ("stderr", launch.stderr.splitlines())):
            if lines and budget > 0:
                log = _cut(f"{what}, launch {number}", lines, budget)
                budget -= sum(map(len, log.lines))
                logs.append(log)
    return logs


def _cut(title: str, lines: Sequence[str], budget: int) -> LogView:
    """Keep as many whole lines as fit, a third of them from the end, where errors are."""
    short = [line if len(line) <= _MOST_LINE else line[:_MOST_LINE] + " …" for line in lines]
    if sum(map(len, short)) <= budget:
        return LogView(title, [line.replace("\t", "    ").rstrip("\n") for line in short], 0)
    head = _first(short, 2 * budget // 3)
    tail = _first(short[len(head) :][::-1], budget // 3)[::-1]
    left = len(short) - len(head) - len(tail)
    marker = [f"… {left} lines left out …"] if left else []
    return LogView(title, [line.replace("\t", "    ").rstrip("\n") for line in [*head, *marker, *tail]], left)


def _first(lines: Sequence[str], budget: int) -> list[str]:
    kept: list[str] = []
    for line in lines:
        budget -= len(line) + 1
        if budget < 0:
            break
        kept.append(line)
    return kept
