"""llama.cpp beside transformers: which records are of the same model, and how their numbers compare."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ggufbench.analysis.wording import ending
from ggufbench.metrics import METRICS, percentile
from ggufbench.outcomes import Outcome
from ggufbench.records.schema import Launch, Record
from ggufbench.stats.ratios import Ratio, ratio_of, usable

COMPARED = (
    "ready_seconds",
    "cold_ready_seconds",
    "peak_rss_bytes",
    "prompt_tokens_per_second",
    "decode_tokens_per_second",
    "token_p50_seconds",
)
"""Metrics that llama.cpp and transformers both have, measured by the same clocks and marks."""

_BY_TOKEN = ("decode_tokens_per_second", "token_p50_seconds")
_MOST_BASELINES = 4
"""Of one file: with more, pairs would grow with the square of the records."""
_HAS_NUMBERS = (Outcome.MEASURED, Outcome.ENVIRONMENT)


@dataclass(frozen=True, slots=True)
class Versus:
    """One llama.cpp record beside one transformers record of the same model on the same machine."""

    record: Record
    baseline: Record
    ratios: Mapping[str, Ratio]
    """Metric to llama.cpp over transformers; only what both measured, so none where one of them broke."""
    notes: Sequence[str]
    """What is to be known beside the ratios: how a side ended, and what was not the same."""


def compare_with_baselines(records: Sequence[Record]) -> list[Versus]:
    """Every llama.cpp record with each baseline of its model, in the order of the records.

    A baseline from the GGUF belongs to the models of that identity; one from the safetensors original to
    every quantization that was made of it. Of one case the newest record counts, and of one file the newest
    baselines do, not more than 4. Cases that were skipped are left out: nothing is known of them.
    """
    current = newest(records)
    baselines: dict[Hashable, list[Record]] = {}
    for record in current:
        if record.is_baseline:
            baselines.setdefault(_subject(record), []).append(record)
    for several in baselines.values():
        several.sort(key=lambda record: record.created, reverse=True)
        del several[_MOST_BASELINES:]
        several.sort(key=lambda record: record.scenario)
    return [
        _versus(record, baseline)
        for record in current
        if not record.is_baseline
        for subject in _subjects(record)
        for baseline in baselines.get(subject, [])
    ]


def newest(records: Iterable[Record]) -> list[Record]:
    """The newest record of each case on each machine, without skipped ones, in the order they came in.

    A baseline from a safetensors original is one case, whichever quantization's record it is.
    """
    found: dict[Hashable, Record] = {}
    for record in records:
        if record.outcome is Outcome.SKIPPED:
            continue
        key: Hashable = (record.machine.fingerprint, record.case_id)
        if record.is_baseline:
            key = (record.scenario, *_subject(record))
        if key not in found or found[key].created <= record.created:
            found[key] = record
    return list(found.values())


def has_numbers(record: Record) -> bool:
    """Whether its launches came to their end; disturbed samples are in no summary."""
    return record.outcome in _HAS_NUMBERS


def memory_of(record: Record) -> list[float]:
    """Bytes at the peak of each launch: of the process, and of the devices whose memory is apart from it.

    Apple's GPU shares the memory of the process, which already counts what it maps.
    """
    peak = record.summary.get("peak_rss_bytes")
    device = record.summary.get("device_bytes") or record.summary.get("device_used_bytes")
    apart = device.median if device and record.setting.device not in ("cpu", "metal", "mps") else 0.0
    return usable(value + apart for value in peak.per_launch) if peak else []


def _subject(baseline: Record) -> tuple[str, str, str]:
    """What a baseline is of: its machine, and the GGUF or the original."""
    if baseline.setting.weights == "safetensors" and baseline.model.original:
        return baseline.machine.fingerprint, "original", baseline.model.original.path
    return baseline.machine.fingerprint, "gguf", baseline.model.identity


def _subjects(record: Record) -> Iterator[tuple[str, str, str]]:
    yield record.machine.fingerprint, "gguf", record.model.identity
    if record.model.original:
        yield record.machine.fingerprint, "original", record.model.original.path


def _versus(record: Record, baseline: Record) -> Versus:
    broken = [_ended(one) for one in (record, baseline) if not has_numbers(one)]
    if broken:
        return Versus(record, baseline, {}, broken)
    ratios = {}
    for metric in COMPARED:
        if _is_same_work(record, baseline, metric):
            ours, theirs = _values(record, baseline, metric), _values(baseline, record, metric)
            if ours and theirs:
                ratios[metric] = ratio_of(ours, theirs)
    return Versus(record, baseline, ratios, [*_differences(record, baseline), *_left_out(record, baseline)])


def _ended(record: Record) -> str:
    return f"{'transformers' if record.is_baseline else 'llama.cpp'} {ending(record)}"


def _is_same_work(record: Record, baseline: Record, metric: str) -> bool:
    ours, theirs = record.workload, baseline.workload
    if metric == "prompt_tokens_per_second":
        return (ours.prompt_tokens, ours.depth) == (theirs.prompt_tokens, theirs.depth)
    return metric not in _BY_TOKEN or ours.depth == theirs.depth


def _values(record: Record, other: Record, metric: str) -> list[float]:
    """The best of each launch; of generated tokens only those that the other side generated too."""
    tokens = min(record.workload.generated_tokens, other.workload.generated_tokens)
    if metric in _BY_TOKEN and tokens != record.workload.generated_tokens:
        best = [_first_tokens(launch, metric, tokens) for launch in record.launches]
        return usable(value for value in best if value is not None)
    summary = record.summary.get(metric)
    return usable(summary.per_launch) if summary else []


def _first_tokens(launch: Launch, metric: str, tokens: int) -> float | None:
    """A metric of generated tokens over the first ones of each sample; later ones attend to more."""
    starts = [
        sample.token_seconds[:tokens]
        for sample in launch.samples
        if sample.phase == "decode"
        and not sample.warmup
        and not sample.disturbed
        # A chunk of several tokens cannot be cut after the n-th.
        and sample.tokens == len(sample.token_seconds) >= tokens
    ]
    if metric == "token_p50_seconds":
        return min((percentile(seconds, 50) for seconds in starts), default=None)
    return max((tokens / sum(seconds) for seconds in starts if sum(seconds) > 0), default=None)


def _differences(record: Record, baseline: Record) -> Iterator[str]:
    """What was not the same on both sides, where the ratios do not say it."""
    ours, theirs = record.workload.generated_tokens, baseline.workload.generated_tokens
    if ours != theirs:
        least = min(ours, theirs)
        yield f"llama.cpp generated {ours} tokens and transformers {theirs}: the first {least} count"
    if record.setting.n_threads != baseline.setting.n_threads:
        yield f"llama.cpp had {record.setting.n_threads} threads, transformers {baseline.setting.n_threads}"
    if record.setting.device != baseline.setting.device:
        yield f"llama.cpp ran on {record.setting.device}, transformers on {baseline.setting.device}"
    if "device_bytes" in record.summary and record.setting.device != "metal":
        yield "the peak memory is that of the process: what lies on the device is not in it"
    if record.run_id != baseline.run_id:
        yield f"measured in two runs, {record.run_id} and {baseline.run_id}: not in the same hour"
    for one in (record, baseline):
        if one.environment is not None and one.outcome is Outcome.ENVIRONMENT:
            yield f"{one.case_id} was disturbed: {one.environment.sentence}"


def _left_out(record: Record, baseline: Record) -> Iterator[str]:
    """Which metrics both have and cannot be compared, because the work was another."""
    ours, theirs = record.workload, baseline.workload
    for metric in COMPARED:
        both = metric in record.summary and metric in baseline.summary
        if both and not _is_same_work(record, baseline, metric):
            prompt = f"{ours.prompt_tokens} tokens at depth {ours.depth}"
            other = f"{theirs.prompt_tokens} at depth {theirs.depth}"
            yield f"no ratio of {METRICS[metric].name}: a prompt of {prompt} is not one of {other}"


def advantage(ratio: Ratio, metric: str) -> Ratio:
    """How many times better the candidate is: the ratio where a higher value is better, else its inverse.

    Above 1 is faster, or smaller, whichever direction the metric has.
    """
    return ratio if METRICS[metric].better == "higher" else ratio.inverse()
