"""Samples of each metric, read from a launch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from ggufbench.metrics import METRICS, Summary, percentile, slope, summarize
from ggufbench.records.schema import ChunkScores, Launch, Record, Sample


def metric_samples(launch: Launch, file_size_bytes: int) -> dict[str, list[float]]:
    """Every metric's samples in one launch, without warm-ups and samples with interference."""
    if launch.chunks:
        return answer_quality(launch.chunks)
    return {**_loading(launch), **_speed(launch), **_memory(launch, file_size_bytes)}


def is_full(launch: Launch) -> bool:
    """True if it has read a prompt, or encoded a text."""
    return any(mark.after in ("prompt", "encode") for mark in launch.marks)


def summaries(launches: list[Launch], file_size_bytes: int) -> dict[str, Summary]:
    """Every metric that has samples in these launches."""
    samples = [metric_samples(launch, file_size_bytes) for launch in launches]
    if chunks := [chunk for launch in launches for chunk in launch.chunks]:
        samples = [answer_quality(chunks)]  # launches divide the text, so that each has only a part of it
    found = {name: summarize(name, [of_one.get(name, []) for of_one in samples]) for name in METRICS}
    return {name: summary for name, summary in found.items() if summary is not None}


def answer_quality(chunks: Sequence[ChunkScores]) -> dict[str, list[float]]:
    """Each metric of answers over the scored tokens of all chunks: one value."""
    tokens = sum(chunk.tokens for chunk in chunks)

    def mean(values: Iterable[float]) -> float:
        return math.fsum(v * chunk.tokens for v, chunk in zip(values, chunks, strict=True)) / tokens

    likelihood = mean(chunk.log_probability for chunk in chunks)
    before = mean(chunk.reference_log_probability for chunk in chunks)
    changed = sum(chunk.other_likeliest_tokens for chunk in chunks)
    return {
        "kl_divergence": [mean(chunk.kl_divergence for chunk in chunks)],
        "log_probability_change": [likelihood - before],
        "top_token_agreement": [1 - changed / tokens],
        "perplexity": [math.exp(-likelihood)] if likelihood > -_LEAST_LIKELIHOOD else [],
    }


_LEAST_LIKELIHOOD = 700.0
"""exp() of more overflows a float."""


def rates_of(records: Iterable[Record]) -> list[str]:
    """Rates that these records can have, in reading order."""
    found = {name for record in records for name in record.rates}
    return [name for name in ("prompt", "encode", "decode") if name in found]


def _loading(launch: Launch) -> dict[str, list[float]]:
    """Samples of cold and warm loads, which are separate metrics; any other load gives no sample."""
    if launch.page_cache is None or launch.page_cache.state == "partial":
        return {}
    prefix = "cold_" if launch.page_cache.state == "cold" else ""
    load = [sample.seconds for sample in _counted(launch, "load")]
    first = [sample.seconds for sample in _counted(launch, "first_decode")]
    return {
        f"{prefix}load_seconds": load,
        f"{prefix}first_decode_seconds": first,
        f"{prefix}ready_seconds": [load[0] + first[0]] if load and first else [],
    }


def _speed(launch: Launch) -> dict[str, list[float]]:
    decode = _counted(launch, "decode")
    several = [sample.token_seconds for sample in decode if len(sample.token_seconds) > 1]
    prompt, encode = _counted(launch, "prompt"), _counted(launch, "encode")
    return {
        "encode_tokens_per_second": [s.tokens / s.seconds for s in encode if s.seconds],
        "encode_seconds": [s.seconds for s in encode],
        "prompt_tokens_per_second": [s.tokens / s.seconds for s in prompt if s.seconds],
        "time_to_first_token_seconds": [s.seconds for s in prompt],
        "decode_tokens_per_second": [s.tokens / s.seconds for s in decode if s.seconds],
        **{
            f"token_p{percent}_seconds": [
                percentile(s.token_seconds, percent) for s in decode if s.token_seconds
            ]
            for percent in (50, 95, 99)
        },
        "token_slope_seconds": [slope(seconds) for seconds in several],
        **_overhead([overheads for sample in decode if (overheads := _overheads(sample))]),
    }


def _overhead(samples: list[list[float]]) -> dict[str, list[float]]:
    """Time that a chat model adds to llama.cpp's own work, from the overheads of each sample's tokens."""
    return {
        "token_overhead_seconds": [statistics.median(overheads) for overheads in samples],
        "overhead_slope_seconds": [slope(overheads) for overheads in samples if len(overheads) > 1],
    }


def _overheads(sample: Sample) -> list[float]:
    """Each token's time beyond llama.cpp's; empty if that is unknown."""
    if len(sample.native_seconds) != len(sample.token_seconds):
        return []
    return [whole - native for whole, native in zip(sample.token_seconds, sample.native_seconds, strict=True)]


def _memory(launch: Launch, file_size_bytes: int) -> dict[str, list[float]]:
    """Memory of a launch that has read a text: compute buffers are not touched earlier."""
    if not is_full(launch):
        return {}
    peaks = [mark.figures["peak_rss_bytes"] for mark in launch.marks if "peak_rss_bytes" in mark.figures]
    anonymous = [m.figures["anonymous_bytes"] for m in launch.marks if "anonymous_bytes" in m.figures]
    return {
        "peak_rss_bytes": [max(peaks)] if peaks else [],
        "peak_anonymous_bytes": [max(anonymous)] if anonymous else [],
        "device_bytes": [launch.device_bytes] if launch.device_bytes else [],
        "device_used_bytes": _device_used(launch),
        "peak_to_file_ratio": [max(peaks) / file_size_bytes] if peaks and file_size_bytes else [],
    }


def _device_used(launch: Launch) -> list[float]:
    """Maximum device memory in use at a mark, relative to the free memory without the model.

    The reference is the mark after the exit; in documents before version 4, after the import.
    """
    free = {m.after: sum(m.device_free_bytes.values()) for m in launch.marks if m.device_free_bytes}
    without = free.get("exit", free.get("import", 0))
    return [without - min(free.values())] if free and without > min(free.values()) else []


def _counted(launch: Launch, phase: str) -> list[Sample]:
    return [s for s in launch.samples if s.phase == phase and not s.warmup and not s.disturbed]
