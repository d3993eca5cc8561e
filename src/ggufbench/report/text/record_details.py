"""Details of records: loads, memory by part, limits, interference, changed answers and advice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from ggufbench.analysis.advice import advise, breakdown_of
from ggufbench.analysis.answer_changes import ChangedWork
from ggufbench.checks.memory import Breakdown
from ggufbench.discovery.model import Rejected
from ggufbench.metrics import METRICS
from ggufbench.outcomes import Outcome
from ggufbench.records.schema import Launch, Record, Sample
from ggufbench.report.text.names import Name
from ggufbench.report.text.phrases import PEAK_OF_PROCESS
from ggufbench.report.text.quality import domains_table, quality_document, quality_table
from ggufbench.report.text.terminal import results_table, stack, table, text
from ggufbench.text import seconds_text, size

_PART_NAMES = {
    "interpreter": "interpreter",
    "mapped": "mapped weights",
    "repacked": "repacked weights",
    "weights": "weights in memory",
    "vocabulary": "vocabulary",
    "kv": "KV cache",
    "compute": "compute buffers",
    "other": "other",
}


_MOST_DETAILED = 100
"""Most cases with tables of details: more would be thousands of lines."""


def run_summary(
    records: Sequence[Record], rejected: Sequence[Rejected], changes: Sequence[ChangedWork], width: int
) -> RenderableType:
    """The end of a run: its results, then interference, changed answers and advice."""
    return stack(
        results_table(records, rejected, width), quality_table(records), _environment(records),
        _changes(changes), _advice(records),
    )  # fmt: skip


def details(records: Sequence[Record]) -> RenderableType:
    """Details beside the results table: everything of a few records, of many only what needs action."""
    if len(records) > _MOST_DETAILED:
        left_out = (
            f"Loads, memory by part, limits and tokens of {len(records)} cases are left out; choose cases"
        )
        note = Text(f"{left_out} with --match, or use --json.", style="dim")
        return stack(
            _device_note(records), quality_table(records), note, _environment(records), _advice(records)
        )
    return stack(
        _device_note(records), quality_table(records), domains_table(records), _loads(records),
        _memory(records), _limits(records), _tokens(records), _layers(records), _environment(records),
        _advice(records),
    )  # fmt: skip


def documents(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Each record with its advice, its memory by part and the quality of its answers, for JSON."""
    return [
        {
            "record": record,
            "advice": advise(record),
            "memory": _memory_document(breakdown_of(record)),
            "quality": quality_document(record),
        }
        for record in records
    ]


def _memory_document(found: Breakdown | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "parts_bytes": found.parts,
        "expected_bytes": found.expected_bytes,
        "measured_bytes": found.measured_bytes,
        "untouched_bytes": found.untouched_bytes,
        "explained": found.explained,
    }


def _loads(records: Iterable[Record]) -> RenderableType | None:
    """The load of each launch, with the share of the file in the page cache."""
    shown = table("Loads", "Page cache", ">Load", ">First token", ">Total", "Notes")
    for record in records:
        for launch in record.launches:
            row = _load_row(launch)
            if row:
                shown.add_row(Name(record.case_id), *row)
    return shown if shown.rows else None


def _load_row(launch: Launch) -> list[Text]:
    phases = {sample.phase: sample for sample in launch.samples if sample.phase in ("load", "first_decode")}
    load, first = phases.get("load"), phases.get("first_decode")
    if load is None or launch.page_cache is None:
        return []
    share = launch.page_cache.resident_fraction
    held = launch.page_cache.state if share is None else f"{100 * share:.0f} % {launch.page_cache.state}"
    reasons = [*load.disturbed, *(first.disturbed if first else [])]
    return [
        Text(held),
        Text(seconds_text(load.seconds)),
        Text(seconds_text(first.seconds) if first else "-"),
        Text(seconds_text(load.seconds + first.seconds) if first else "-"),
        Text(", ".join([*_faults(load), *dict.fromkeys(reason.kind for reason in reasons)])),
    ]


def _faults(load: Sample) -> list[str]:
    major, minor = load.evidence.get("major_faults"), load.evidence.get("minor_faults")
    if major is None or minor is None:
        return []
    return [f"{minor:.0f} page faults" + (f", {major:.0f} from the disk" if major else "")]


def _device_note(records: Iterable[Record]) -> Text | None:
    """The meaning of the memory in the results table, if a case also took memory of a device."""
    taken = any(
        name in record.summary for record in records for name in ("device_bytes", "device_used_bytes")
    )
    return Text(PEAK_OF_PROCESS, style="dim") if taken else None


def _memory(records: Iterable[Record]) -> RenderableType | None:
    """Measured and expected peak memory, with the parts of the latter."""
    shown = table("Peak memory", ">Measured", ">Expected", ">Difference", "Expected parts")
    for record in records:
        found = breakdown_of(record)
        if found is not None:
            shown.add_row(
                Name(record.case_id),
                Text(size(found.measured_bytes)),
                Text(size(found.expected_bytes)),
                Text(f"{100 * found.difference_bytes / found.measured_bytes:+.1f} %"),
                Text(_parts(found)),
            )
    return shown if shown.rows else None


def _parts(found: Breakdown) -> str:
    parts = [f"{size(amount)} {_PART_NAMES[name]}" for name, amount in found.parts.items() if amount]
    unused = [f"{size(found.untouched_bytes)} reserved but not used"] if found.untouched_bytes else []
    return ", ".join(parts + unused)


def _limits(records: Iterable[Record]) -> RenderableType | None:
    shown = table("Machine limits", ">Share", "Explanation")
    for record in records:
        for limit in record.limits:
            shown.add_row(Name(record.case_id), Text(f"{100 * limit.fraction:.0f} %"), text(limit.sentence))
    return shown if shown.rows else None


def _tokens(records: Iterable[Record]) -> RenderableType | None:
    """The time of one token, its growth with the context, and the overhead of measuring."""
    shown = table("One token", ">Median", ">95 %", ">99 %", ">Growth", ">Overhead")
    for record in records:
        if "token_p50_seconds" in record.summary:
            shown.add_row(
                Name(record.case_id),
                *(_metric(record, f"token_p{percent}_seconds") for percent in (50, 95, 99)),
                _metric(record, "token_slope_seconds", "/token"),
                Text(_overhead(record)),
            )
    return shown if shown.rows else None


def _layers(records: Iterable[Record]) -> RenderableType | None:
    """The overhead of a chat model over llama.cpp for one token, and its growth with the context."""
    shown = table("Chat model", ">First text", ">Added per token", ">Share", ">Growth")
    for record in records:
        added, whole = (record.summary.get(f"token_{name}_seconds") for name in ("overhead", "p50"))
        if added is not None and whole is not None:
            shown.add_row(
                Name(record.case_id),
                _metric(record, "time_to_first_token_seconds"),
                _metric(record, "token_overhead_seconds"),
                Text(f"{100 * added.median / whole.median:.1f} %"),
                _metric(record, "overhead_slope_seconds", "/token"),
            )
    return shown if shown.rows else None


def _overhead(record: Record) -> str:
    overheads = [launch.loop_overhead_seconds for launch in record.launches if launch.loop_overhead_seconds]
    if not overheads:
        return "-"
    share = min(overheads) / record.summary["token_p50_seconds"].median
    return f"{min(overheads) * 1e6:.2f} µs ({100 * share:.2f} %)"


def _metric(record: Record, name: str, unit: str = "") -> Text:
    summary = record.summary.get(name)
    return Text("-" if summary is None else f"{METRICS[name].amount(summary.median)}{unit}")


def _environment(records: Iterable[Record]) -> RenderableType | None:
    """Cases with interference. If most samples had it, it is the outcome of the case."""
    shown = table("Interference", "Cause and fix")
    for record in records:
        if record.environment is not None:
            style = "yellow" if record.outcome is Outcome.ENVIRONMENT else ""
            shown.add_row(Name(record.case_id), text(record.environment.sentence, style=style))
    return shown if shown.rows else None


def _changes(changes: Sequence[ChangedWork]) -> RenderableType | None:
    shown = table("Answer changed", "Since run", "Digest", "Speed ratio, of different work")
    for change in changes:
        speeds = [f"{METRICS[name].short_label} x{ratio:.2f}" for name, ratio in change.ratios.items()]
        shown.add_row(
            Name(change.case_id),
            Name(change.earlier_run_id),
            text(f"{change.earlier_digest} -> {change.digest}"),
            Text(", ".join(speeds)),
        )
    return shown if shown.rows else None


def _advice(records: Iterable[Record]) -> RenderableType | None:
    """Each sentence once, with its case or the number of its cases."""
    by_sentence: dict[str, list[str]] = {}
    for record in records:
        for sentence in advise(record):
            by_sentence.setdefault(sentence, []).append(record.case_id)
    shown = table("Case", "Advice")
    for sentence, cases in by_sentence.items():
        shown.add_row(Name(cases[0] if len(cases) == 1 else f"{len(cases)} cases"), text(sentence))
    return shown if shown.rows else None
