"""Evaluation of the promised targets for load time and memory."""

from __future__ import annotations

from collections.abc import Mapping

from ggufbench.metrics import METRICS, Summary
from ggufbench.records.parts import Promise, TargetResult
from ggufbench.thresholds import Targets


def evaluate_targets(
    targets: Targets, file_size_bytes: int, summary: Mapping[str, Summary], output_bytes: int = 0
) -> list[TargetResult]:
    """Compare the medians of a record's summary with the targets.

    `output_bytes` is memory for the outputs of an encoder, in addition to what the target allows.
    """
    load, memory = targets.load, targets.memory
    slowest = max(load.small_file_seconds, file_size_bytes / load.floor_bytes_per_second)
    promised = max(load.small_file_seconds, file_size_bytes / load.promise_bytes_per_second)
    most = memory.peak_to_file_ratio * file_size_bytes + memory.allowance_bytes + output_bytes
    return [
        _evaluate("load", summary.get(_METRIC["load"]), slowest, promised),
        _evaluate("cold load", summary.get(_METRIC["cold load"]), slowest, promised),
        _evaluate("memory", summary.get(_METRIC["memory"]), most, None),
    ]


# Load time includes the first token, because weights that were not read before are read for it.
_METRIC: dict[Promise, str] = {
    "load": "ready_seconds",
    "cold load": "cold_ready_seconds",
    "memory": "peak_rss_bytes",
}


def _evaluate(name: Promise, measured: Summary | None, limit: float, promise: float | None) -> TargetResult:
    metric = _METRIC[name]
    if measured is None:
        sentence = f"{name}: {metric} was not measured"
        return TargetResult(name, "not applicable", metric, None, limit, promise, sentence)
    value, show = measured.median, METRICS[metric].exact
    met = value <= limit
    sentence = f"{name}: {show(value)}, {'within' if met else 'over'} the limit of {show(limit)}"
    if promise is not None:
        sentence += f" ({'and' if value <= promise else 'not'} within the promised {show(promise)})"
    return TargetResult(name, "met" if met else "missed", metric, value, limit, promise, sentence)
