"""Comparison of llama.cpp with transformers: records of the same model, and the ratios of their metrics."""

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
"""Maximum baselines of one file; without it, pairs would grow with the square of the records."""
_HAS_NUMBERS = (Outcome.MEASURED, Outcome.ENVIRONMENT)


@dataclass(frozen=True, slots=True)
class Versus:
    """A llama.cpp record and a transformers record of the same model on the same machine."""

    record: Record
    baseline: Record
    ratios: Mapping[str, Ratio]
    """llama.cpp over transformers, by metric measured on both sides; empty if one side broke."""
    notes: Sequence[str]
    """Caveats of the ratios: how a side ended, and what differed."""


def compare_with_baselines(records: Sequence[Record]) -> list[Versus]:
    """Pair every llama.cpp record with each baseline of its model, in the order of the records.

    A baseline from the GGUF belongs to the models with that identity, one from the original checkpoint to
    every quantization made from it. The newest record of each case is used, and at most the 4 newest
    baselines of each file. Skipped cases are left out because they have no result.
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
    """Newest record of each case on each machine, without skipped ones, in the order of the input.

    A baseline from an original checkpoint is one case, regardless of the quantization that names it.
    """
    found: dict[Hashable, Record] = {}
    for record in records:
        if record.outcome is Outcome.SKIPPED:
            continue
        key: Hashable = (record.machine.fingerprint, record.model.identity, record.scenario)
        if record.is_baseline:
            key = (record.scenario, *_subject(record))
        if key not in found or found[key].created <= record.created:
            found[key] = record
    return list(found.values())


def has_numbers(record: Record) -> bool:
    """True if the launches completed; samples with interference are in no summary."""
    return record.outcome in _HAS_NUMBERS


def memory_of(record: Record) -> list[float]:
    """Peak bytes of each launch: of the process, plus devices with separate memory.

    Apple's GPU shares the memory of the process, which already counts what the GPU maps.
    """
    peak = record.summary.get("peak_rss_bytes")
    device = record.summary.get("device_bytes") or record.summary.get("device_used_bytes")
    apart = device.median if device and record.setting.device not in ("cpu", "metal", "mps") else 0.0
    return usable(value + apart for value in peak.per_launch) if peak else []


def _subject(baseline: Record) -> tuple[str, str, str]:
    """Subject of a baseline: its machine, and the GGUF or the original checkpoint."""
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
    """Best value of each launch, over only as many generated tokens as both sides generated."""
    tokens = min(record.workload.generated_tokens, other.workload.generated_tokens)
    if metric in _BY_TOKEN and tokens != record.workload.generated_tokens:
        best = [_first_tokens(launch, metric, tokens) for launch in record.launches]
        return usable(value for value in best if value is not None)
    summary = record.summary.get(metric)
    return usable(summary.per_launch) if summary else []


def _first_tokens(launch: Launch, metric: str, tokens: int) -> float | None:
    """A per-token metric over the first tokens of each sample; later tokens attend to more."""
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
    """Differences between the two sides that the ratios do not show."""
    ours, theirs = record.workload.generated_tokens, baseline.workload.generated_tokens
    if ours != theirs:
        least = min(ours, theirs)
        yield f"llama.cpp generated {ours} tokens and transformers {theirs}: the first {least} are compared"
    if record.setting.n_threads != baseline.setting.n_threads:
        yield f"llama.cpp had {record.setting.n_threads} threads, transformers {baseline.setting.n_threads}"
    if record.setting.device != baseline.setting.device:
        yield f"llama.cpp ran on {record.setting.device}, transformers on {baseline.setting.device}"
    if "device_bytes" in record.summary and record.setting.device != "metal":
        yield "the peak memory is that of the process, without device memory"
    if record.run_id != baseline.run_id:
        yield f"measured in two runs, {record.run_id} and {baseline.run_id}, at different times"
    for one in (record, baseline):
        if one.environment is not None and one.outcome is Outcome.ENVIRONMENT:
            yield f"{one.case_id} had interference: {one.environment.sentence}"


def _left_out(record: Record, baseline: Record) -> Iterator[str]:
    """Metrics that both sides have but that cannot be compared, because the work differed."""
    ours, theirs = record.workload, baseline.workload
    for metric in COMPARED:
        both = metric in record.summary and metric in baseline.summary
        if both and not _is_same_work(record, baseline, metric):
            prompt = f"{ours.prompt_tokens} tokens at depth {ours.depth}"
            other = f"{theirs.prompt_tokens} at depth {theirs.depth}"
            yield f"no ratio of {METRICS[metric].name}: the prompts differ ({prompt}, and {other})"


def advantage(ratio: Ratio, metric: str) -> Ratio:
    """How many times better the candidate is: the ratio if a higher value is better, else its inverse.

    Above 1 means faster or smaller, regardless of the metric's direction.
    """
    return ratio if METRICS[metric].better == "higher" else ratio.inverse()
