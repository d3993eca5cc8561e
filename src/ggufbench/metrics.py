"""The measured quantities: unit, better direction, and the texts that reports use for each."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ggufbench.text import mebibytes, rate, seconds_text, size


@dataclass(frozen=True, slots=True)
class Metric:
    """One measured quantity."""

    name: str
    unit: Literal["s", "tokens/s", "bytes", "ratio", "share", "nats"]
    better: Literal["lower", "higher"]
    meaning: str
    label: str
    """Name for the reader: `Load and first token`."""
    column_label: str = ""
    """Name for a narrow column; if empty, `name` is used."""
    verb: str = ""
    """Verb for this time or rate: `loads`. Metrics shown next to transformers need one."""

    @property
    def short_label(self) -> str:
        """The name for a narrow column."""
        return self.column_label or self.name

    def amount(self, value: float) -> str:
        """A value with its unit: `0.19 s`, `13.0 t/s`, `1.3 GiB`, `1.04`."""
        match self.unit:
            case "s":
                return seconds_text(value)
            case "tokens/s":
                return rate(value)
            case "bytes":
                return size(value)
            case "share":
                return f"{100 * value:.1f} %"
            case "nats":
                return f"{value:.3g} nats"
            case _:
                return f"{value:.2f}"

    def exact(self, value: float) -> str:
        """A value shown with its limit, with more digits: `0.193 s`, `12052 MiB`."""
        match self.unit:
            case "s":
                return f"{value:.3g} s"
            case "bytes":
                return mebibytes(value)
            case _:
                return self.amount(value)

    def change(self, share: float) -> str:
        """A relative change that is worse above zero: `8.1 % slower`, `0.4 % smaller`."""
        timed = self.unit in ("s", "tokens/s")
        worse, better = ("slower", "faster") if timed else ("larger", "smaller")
        return f"{100 * abs(share):.1f} % {worse if share >= 0 else better}"


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "load_seconds",
            "s",
            "lower",
            "from loading the file to a context ready for tokens, file in memory",
            "Load",
            column_label="load",
        ),
        Metric(
            "first_decode_seconds",
            "s",
            "lower",
            "first token after loading; may still read weights",
            "First token after loading",
        ),
        Metric(
            "ready_seconds",
            "s",
            "lower",
            "load_seconds + first_decode_seconds",
            "Load and first token",
            column_label="load+first token",
            verb="loads",
        ),
        Metric(
            "cold_load_seconds",
            "s",
            "lower",
            "load_seconds when the file had to be read from the disk",
            "Cold load",
        ),
        Metric(
            "cold_first_decode_seconds",
            "s",
            "lower",
            "first_decode_seconds after a cold load",
            "First token after a cold load",
        ),
        Metric(
            "cold_ready_seconds",
            "s",
            "lower",
            "cold_load_seconds + cold_first_decode_seconds",
            "Cold load and first token",
            column_label="cold load",
            verb="loads from the disk",
        ),
        Metric(
            "prompt_tokens_per_second",
            "tokens/s",
            "higher",
            "prompt tokens over the time to evaluate them",
            "Prompt",
            column_label="prompt",
            verb="reads prompts",
        ),
        Metric(
            "encode_tokens_per_second",
            "tokens/s",
            "higher",
            "tokens of all sequences of a batch over the time to encode it",
            "Encode",
            column_label="encode",
            verb="encodes",
        ),
        Metric(
            "encode_seconds",
            "s",
            "lower",
            "time to encode one batch of sequences, or the text of an encoder-decoder model",
            "One batch encoded",
        ),
        Metric(
            "time_to_first_token_seconds",
            "s",
            "lower",
            "time to evaluate the prompt; for a chat model, from question to the first text of the answer",
            "Time to first token",
            column_label="first token",
            verb="begins an answer",
        ),
        Metric(
            "decode_tokens_per_second",
            "tokens/s",
            "higher",
            "generated tokens over the time they took",
            "Decode",
            column_label="decode",
            verb="answers",
        ),
        Metric(
            "token_p50_seconds",
            "s",
            "lower",
            "median time of a generated token",
            "One token, median",
            verb="gives a token",
        ),
        Metric(
            "token_p95_seconds",
            "s",
            "lower",
            "95th percentile of the time of a generated token",
            "One token, 95 %",
        ),
        Metric(
            "token_p99_seconds",
            "s",
            "lower",
            "99th percentile of the time of a generated token",
            "One token, 99 %",
        ),
        Metric(
            "token_slope_seconds",
            "s",
            "lower",
            "increase in time from one generated token to the next",
            "Each token longer than the last by",
        ),
        Metric(
            "token_overhead_seconds",
            "s",
            "lower",
            "time that a chat model adds to a generated token, beyond llama.cpp's own decoding",
            "Added to one token",
            column_label="added to a token",
        ),
        Metric(
            "overhead_slope_seconds",
            "s",
            "lower",
            "increase in a chat model's added time from one generated token to the next",
            "Added more to each token than to the last",
        ),
        Metric(
            "peak_rss_bytes",
            "bytes",
            "lower",
            "most memory of the process, mapped file pages included",
            "Peak memory",
            column_label="peak memory",
            verb="takes",
        ),
        Metric(
            "peak_anonymous_bytes",
            "bytes",
            "lower",
            "most memory without mapped file pages, at any mark",
            "Peak memory without the file",
        ),
        Metric(
            "device_bytes",
            "bytes",
            "lower",
            "buffers that llama.cpp allocated on the GPU-type devices",
            "Buffers on the device",
        ),
        Metric(
            "device_used_bytes",
            "bytes",
            "lower",
            "free memory that the model took of the GPU-type devices",
            "Device memory taken",
        ),
        Metric(
            "peak_to_file_ratio",
            "ratio",
            "lower",
            "peak_rss_bytes over the size of the file",
            "Peak memory over file size",
        ),
        Metric(
            "kl_divergence",
            "nats",
            "lower",
            "mean Kullback-Leibler divergence of a token's distribution from that of the reference",
            "Divergence from the reference",
            column_label="KL divergence",
        ),
        Metric(
            "log_probability_change",
            "nats",
            "higher",
            "mean log-probability of the text's next token, less that of the reference",
            "Change of log-probability",
        ),
        Metric(
            "top_token_agreement",
            "share",
            "higher",
            "share of tokens after which the likeliest next token is the reference's",
            "Same likeliest token",
        ),
        Metric(
            "perplexity",
            "ratio",
            "lower",
            "exp of the mean negative log-probability of the text's next token",
            "Perplexity",
        ),
    )
}
"""Every metric by name; records contain no others."""


def metric_of(name: str) -> Metric:
    """The metric of a stored document; an unknown one has its name as label, and no unit."""
    return METRICS.get(name) or Metric(name, "ratio", "lower", "", name)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` % of the values lie, by linear interpolation between order statistics.

    The same as numpy's default (Hyndman and Fan, type 7). Raises ValueError without values.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("a percentile needs at least one value")
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def slope(values: Sequence[float]) -> float:
    """Increase from one value to the next: the Theil-Sen estimate.

    It is the median of the slopes between all pairs of points (Sen 1968), which single outliers do not move.
    A long series is first reduced to the medians of 32 equal parts, which have few pairs. Raises ValueError
    for fewer than two values.
    """
    if len(values) < 2:
        raise ValueError("a slope needs at least two values")
    size = max(1, len(values) // _SLOPE_PARTS)
    parts = [values[start : start + size] for start in range(0, len(values) - size + 1, size)]
    points = [((size - 1) / 2 + size * n, statistics.median(part)) for n, part in enumerate(parts)]
    return statistics.median(
        (y2 - y1) / (x2 - x1) for n, (x1, y1) in enumerate(points) for x2, y2 in points[n + 1 :]
    )


_SLOPE_PARTS = 32


@dataclass(frozen=True, slots=True)
class Summary:
    """One metric of one case, over all samples without interference of all its launches."""

    unit: str
    better: str
    median: float
    minimum: float
    maximum: float
    samples: int
    per_launch: list[float]
    """The best sample of each launch: delays only add time, so the best sample has the least interference."""


def summarize(name: str, launches: Sequence[Sequence[float]]) -> Summary | None:
    """Summarize the samples of each launch; None without any sample."""
    metric = METRICS[name]
    values = [value for launch in launches for value in launch]
    if not values:
        return None
    best = min if metric.better == "lower" else max
    return Summary(
        unit=metric.unit,
        better=metric.better,
        median=statistics.median(values),
        minimum=min(values),
        maximum=max(values),
        samples=len(values),
        per_launch=[best(launch) for launch in launches if launch],
    )
