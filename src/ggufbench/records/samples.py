"""The samples of each metric, read out of a launch."""

from __future__ import annotations

from ggufbench.analysis.metrics import percentile
from ggufbench.records.schema import Launch


def metric_samples(launch: Launch, file_size_bytes: int) -> dict[str, list[float]]:
    """Every metric's samples in one launch; warm-ups are left out."""
    timed = [sample for sample in launch.samples if not sample.warmup]
    first = [sample.seconds for sample in timed if sample.phase == "first_decode"]
    load = (
        [launch.model_seconds + launch.context_seconds]
        if launch.model_seconds and launch.context_seconds
        else []
    )
    peaks = [mark.figures["peak_rss_bytes"] for mark in launch.marks if "peak_rss_bytes" in mark.figures]
    anonymous = [
        mark.figures["anonymous_bytes"] for mark in launch.marks if "anonymous_bytes" in mark.figures
    ]
    decode = [sample for sample in timed if sample.phase == "decode"]
    samples: dict[str, list[float]] = {
        "load_seconds": load,
        "first_decode_seconds": first,
        "ready_seconds": [load[0] + first[0]] if load and first else [],
        "prompt_tokens_per_second": [s.tokens / s.seconds for s in timed if s.phase == "prompt"],
        "decode_tokens_per_second": [s.tokens / s.seconds for s in decode],
        "peak_rss_bytes": [max(peaks)] if peaks else [],
        "peak_anonymous_bytes": [max(anonymous)] if anonymous else [],
        "device_bytes": [launch.device_bytes] if launch.device_bytes else [],
        "peak_to_file_ratio": [max(peaks) / file_size_bytes] if peaks else [],
    }
    for percent in (50, 95, 99):
        samples[f"token_p{percent}_seconds"] = [percentile(s.token_seconds, percent) for s in decode]
    return samples
