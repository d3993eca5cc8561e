"""Roofline model: physical limits of a machine; a result above a limit is a measuring error.

A token cannot be decoded without reading every weight that it is multiplied with, and a prompt cannot be
evaluated without its multiplications. `docs/limits.md` has the formulas with an example.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from ggufbench.discovery.model import AttentionShape, KvShape
from ggufbench.discovery.tables import bytes_per_element
from ggufbench.metrics import Summary
from ggufbench.records.parts import LimitResult
from ggufbench.text import decimal_size
from ggufbench.worker.job import Setting, Workload

CACHES_TO_JUDGE = 4
"""A decode rate is judged only if a token reads more than this many times the last-level cache.

Most of a smaller model can stay in the cache, which is several times as fast as the memory.
"""

PROMPT_LIMIT = 1.25
"""Highest allowed fraction of the multiply-add rate that llama.cpp reached in the calibration.

That rate is not a physical limit: another model may reach a little more. A prompt that was not computed at
all is tens of times above it.
"""


class ModelFacts(Protocol):
    """Facts about a model that the bounds need; `discovery.model.Model` provides them."""

    @property
    def file_size_bytes(self) -> int:
        """File size, summed over all shards."""

    @property
    def decode_bytes_per_token(self) -> int:
        """Weight bytes that decoding one token reads."""

    @property
    def prompt_parameters(self) -> int:
        """Weights that every token of a prompt is multiplied with."""

    @property
    def sliding_window(self) -> int:
        """Window in tokens; 0 if attention is full in every layer."""

    @property
    def kv(self) -> KvShape:
        """Elements of the KV cache for each token."""

    @property
    def attention(self) -> AttentionShape:
        """Elements that a query is multiplied with for each token it attends to."""


class Rates(Protocol):
    """Rates of a machine that the bounds need; `limits.MachineLimits` provides them."""

    @property
    def read_bytes_per_second(self) -> Mapping[int, float]:
        """Memory read bandwidth, by the number of threads."""

    @property
    def flops_per_second(self) -> Mapping[int, float]:
        """Rate of llama.cpp's matrix multiplications, by the number of threads."""

    @property
    def disk_read_bytes_per_second(self) -> float | None:
        """Disk read rate; None if it could not be measured."""

    @property
    def last_cache_bytes(self) -> int:
        """Size of the last-level processor cache."""

    @property
    def disturbance(self) -> str | None:
        """Reason why these rates may be too low; None if they were measured without interference."""


def attended_tokens(depth: int, tokens: int, window: int = 0) -> int:
    """Total number of tokens that `tokens` new tokens after `depth` old ones attend to.

    The i-th new token attends to d + i tokens, itself included, or to the last w of those if attention has a
    window: the sum of min(d + i, w) for i from 1 to n. A window of 0 means no window.
    """
    growing = tokens if not window else max(0, min(tokens, window - depth))
    return growing * depth + growing * (growing + 1) // 2 + (tokens - growing) * window


def decode_bytes(facts: ModelFacts, setting: Setting, workload: Workload) -> float:
    """Bytes that decoding one token reads: the weights, and the KV cache at the mean depth.

    For n generated tokens after d: W + (sum over layers of K and V elements x their bytes) x A(d, n) / n,
    with A of `attended_tokens`.
    """
    k, v = bytes_per_element(setting.type_k), bytes_per_element(setting.type_v)
    kv, depth, tokens = facts.kv, workload.depth, workload.generated_tokens
    full = (kv.full_k * k + kv.full_v * v) * attended_tokens(depth, tokens)
    sliding = (kv.sliding_k * k + kv.sliding_v * v) * attended_tokens(depth, tokens, facts.sliding_window)
    return facts.decode_bytes_per_token + (full + sliding) / tokens


def prompt_flops(facts: ModelFacts, workload: Workload) -> float:
    """Floating-point operations of the workload's prompt at its depth; a multiply-add counts as two.

    2 x parameters x n, and for attention 2 x (sum over layers of heads x (key + value length)) x A(d, n),
    with A of `attended_tokens`.
    """
    depth, tokens = workload.depth, workload.prompt_tokens
    attention = facts.attention.full * attended_tokens(depth, tokens)
    attention += facts.attention.sliding * attended_tokens(depth, tokens, facts.sliding_window)
    return 2.0 * facts.prompt_parameters * tokens + 2.0 * attention


def encode_flops(facts: ModelFacts, workload: Workload) -> float:
    """Floating-point operations of one encoded sequence, in which each token attends to every other one.

    As `prompt_flops`, with n attended tokens for each of the n. With a window w it is at least w / 2.
    """
    tokens, window = workload.prompt_tokens, facts.sliding_window
    attended = min(tokens, window // 2) if window else tokens
    attention = tokens * (facts.attention.full * tokens + facts.attention.sliding * attended)
    return 2.0 * facts.prompt_parameters * tokens + 2.0 * attention


def rate_at(rates: Mapping[int, float], threads: int) -> float | None:
    """Highest rate that this many threads can reach; None if nothing was measured.

    If that number was not measured, the next larger one is used (the bound is then too high, never too low),
    or the largest one for more threads than were measured.
    """
    if not rates:
        return None
    covering = min((count for count in rates if count >= threads), default=max(rates))
    return max(rate for count, rate in rates.items() if count <= covering)


def evaluate_limits(
    facts: ModelFacts, setting: Setting, workload: Workload, summary: Mapping[str, Summary], machine: Rates
) -> list[LimitResult]:
    """Compare the measured metrics with the machine's limits, which apply to the device `cpu` only."""
    if setting.device != "cpu":
        return []
    results = (
        _decode(facts, setting, workload, summary, machine),
        _reading("prompt", prompt_flops(facts, workload), facts, setting, workload, summary, machine),
        _reading("encode", encode_flops(facts, workload), facts, setting, workload, summary, machine),
        _load(facts, summary, machine),
    )
    return [result for result in results if result is not None]


def measuring_error(results: Sequence[LimitResult]) -> str | None:
    """Measuring error as a sentence, if a result is above its limit; None if every result is possible."""
    for result in results:
        if result.judged and result.highest_fraction > result.limit:
            return (
                f"measuring error: {result.name} reached {_percent(result.highest_fraction)} of the limit of "
                f"this machine ({result.bound:.4g} tokens/s), so not all of the work was done or timed; "
                "run `ggufbench doctor --refresh` if the machine has changed"
            )
    return None


def _decode(
    facts: ModelFacts, setting: Setting, workload: Workload, summary: Mapping[str, Summary], machine: Rates
) -> LimitResult | None:
    measured = summary.get("decode_tokens_per_second")
    rate = rate_at(machine.read_bytes_per_second, setting.n_threads)
    if measured is None or rate is None:
        return None
    needed = decode_bytes(facts, setting, workload)
    if needed <= 0:
        return None
    cache = machine.last_cache_bytes
    fits = needed <= CACHES_TO_JUDGE * cache
    reason = machine.disturbance
    if fits:
        reason = (
            f"{decimal_size(needed)} can be read partly from the last-level cache of {decimal_size(cache)}"
        )
    how = f"reading {decimal_size(needed)} for each token at {decimal_size(rate)}/s"
    # Weights that are still in the cache from the previous token need not be read again.
    limit = 1.0 if fits else needed / (needed - cache)
    return _rate("decode", measured, rate / needed, how, limit, reason)


def _reading(  # noqa: PLR0913, PLR0917 (the parts of one result)
    name: Literal["prompt", "encode"], flops: float, facts: ModelFacts, setting: Setting, workload: Workload,
    summary: Mapping[str, Summary], machine: Rates,
) -> LimitResult | None:  # fmt: skip
    measured = summary.get(f"{name}_tokens_per_second")
    rate = rate_at(machine.flops_per_second, setting.n_threads_batch)
    needed = flops / workload.prompt_tokens
    if measured is None or rate is None or facts.prompt_parameters <= 0:
        return None
    how = f"{needed / 1e9:.3g} GFLOP for each token at {rate / 1e9:.3g} GFLOP/s"
    return _rate(name, measured, rate / needed, how, PROMPT_LIMIT, machine.disturbance)


def _rate(  # noqa: PLR0913, PLR0917 (the parts of one result)
    name: Literal["decode", "prompt", "encode"], measured: Summary, bound: float, how: str, limit: float,
    reason: str | None,
) -> LimitResult:  # fmt: skip
    fraction = measured.median / bound
    sentence = (
        f"{name}: {measured.median:.4g} tokens/s is {_percent(fraction)} of {bound:.4g} tokens/s, from {how}"
    )
    if reason is not None:
        sentence += f" (not judged: {reason})"
    return LimitResult(
        name=name,
        metric=f"{name}_tokens_per_second",
        measured=measured.median,
        bound=bound,
        fraction=fraction,
        highest_fraction=measured.maximum / bound,
        limit=limit,
        judged=reason is None,
        sentence=sentence,
    )


def _load(facts: ModelFacts, summary: Mapping[str, Summary], machine: Rates) -> LimitResult | None:
    measured, rate = summary.get("cold_load_seconds"), machine.disk_read_bytes_per_second
    if measured is None or not rate or measured.minimum <= 0:
        return None
    bound = facts.file_size_bytes / rate
    fraction = bound / measured.median
    sentence = (
        f"load: {measured.median:.3g} s from a cold file is {_percent(fraction)} of the speed of reading "
        f"{decimal_size(facts.file_size_bytes)} at {decimal_size(rate)}/s (not judged: the model may "
        "be on another disk)"
    )
    return LimitResult(
        name="load",
        metric="cold_load_seconds",
        measured=measured.median,
        bound=bound,
        fraction=fraction,
        highest_fraction=bound / measured.minimum,
        limit=1.0,
        judged=False,
        sentence=sentence,
    )


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %"
