"""Advice: sentences with a remedy, derived from the evidence in a record by one small rule each.

A rule takes a record and returns its sentence, or None if it does not apply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ggufbench.checks.interference import TIMED_PHASES
from ggufbench.checks.memory import Anonymous, Breakdown, break_down
from ggufbench.checks.native_log import is_host
from ggufbench.machine.fitness import unfit
from ggufbench.outcomes import Outcome
from ggufbench.records.samples import is_full
from ggufbench.records.schema import Effective, Launch, Record
from ggufbench.text import mebibytes, printable
from ggufbench.worker.job import ENGINE

_NOTABLE_DUPLICATE = 0.05
"""Minimum share of the file size; a smaller duplicate is not mentioned."""
_NOTABLE_KV = 0.05
_NOTABLE_KV_BYTES = 64 * 2**20
_OVERSIZED_CONTEXT = 4
"""A context this many times larger than the workload needs is called too large."""
_NOTABLE_LOGITS_BYTES = 64 * 2**20
_NOTABLE_OVERHEAD = 0.02
_LOW_FRACTION = 0.5
_LOCKED, _MOST_OF_WEIGHTS = "locked_bytes", 0.9
"""The figure of a memory mark, and the share of the weights from which they count as locked."""
_CELLS = 256
"""Block size of llama.cpp's KV cache, in tokens."""


def advise(record: Record) -> list[str]:
    """Advice on a record's numbers, most important first; empty if no rule applies."""
    sentences = (rule(record) for rule in RULES)
    return [sentence for sentence in sentences if sentence is not None]


def breakdown_of(record: Record) -> Breakdown | None:
    """Memory breakdown of the first launch that measured everything, or None."""
    launch = _full_launch(record)
    if launch is None or launch.effective is None or not launch.marks:
        return None
    figures = {mark.after: mark.figures for mark in launch.marks}
    # The first of equal peaks: a system may report the highest since the start.
    highest = max(figures, key=lambda phase: figures[phase].get("peak_rss_bytes", 0))
    start, peak = launch.marks[0].figures.get("rss_bytes"), figures[highest].get("peak_rss_bytes")
    if not peak or start is None:
        return None
    # During loading llama.cpp maps the whole file, even if the weights are placed elsewhere.
    in_loading = highest == "load" and "mmap" in (launch.effective.load_mode or "")
    file_bytes = record.model.file_size_bytes
    marked = (launch.marks[0].figures, figures.get("load", {}), figures[highest])
    anonymous = [found["anonymous_bytes"] for found in marked if "anonymous_bytes" in found]
    # PyTorch writes memory of other kinds.
    known = len(anonymous) == len(marked) and not record.is_baseline
    account = Anonymous(*anonymous) if known else None
    mapped = (file_bytes if in_loading else 0, file_bytes)
    return break_down(launch.effective.buffers, start, peak, mapped, account)


def _amx_crash(record: Record) -> str | None:
    crashed = record.outcome is Outcome.CRASHED and record.phase in ("first_decode", *TIMED_PHASES)
    if crashed and "AMX_INT8 = 1" in record.provider.system_info:
        return (
            "this llama.cpp was built with AMX, which can crash (ggml-org/llama.cpp#20824): build it "
            "without AMX, or set repack = false"
        )
    return None


def _unequal_answers(record: Record) -> str | None:
    digests = {launch.digest for launch in record.launches if launch.digest}
    if len(digests) > 1:
        return (
            f"the launches gave {len(digests)} different answers to the same prompt: the work differed, so "
            "compare their speeds with care"
        )
    return None


def _duplicate(record: Record) -> str | None:
    found, size = breakdown_of(record), record.model.file_size_bytes
    if found is None or found.duplicate_bytes < _NOTABLE_DUPLICATE * size:
        return None
    now, then = found.measured_bytes / size, (found.measured_bytes - found.duplicate_bytes) / size
    return (
        f"{mebibytes(found.duplicate_bytes)} of the peak are repacked copies of weights that also stay "
        f'mapped: load_mode = "none" lowers the peak from {now:.2f} to {then:.2f} times the file size, but '
        "loads more slowly"
    )


def _flash_attention_off(record: Record) -> str | None:
    effective = _effective(record)
    if effective is None or effective.flash_attn != "off":
        return None
    if record.setting.flash_attn == "auto" and record.provider.name != ENGINE:
        return f"provider {record.provider.name} chose to run the prompt without flash attention"
    if record.setting.flash_attn == "auto":
        where = effective.fused_elsewhere.get("Flash Attention")
        return "llama.cpp does not support flash attention for this model on this device" + (
            f": it would run on {where}" if where else ""
        )
    return 'the prompt runs without flash attention: try flash_attn = "on"'


def _not_locked(record: Record) -> str | None:
    """Compare the locked memory with the weights: without permission llama.cpp goes on without locking.

    It never locks repacked weights, nor those on a device.
    """
    launch = _full_launch(record)
    if launch is None or launch.effective is None or "mlock" not in record.setting.load_mode:
        return None
    buffers = launch.effective.buffers.get("model", {})
    weights = sum(buffers.get(name, 0) for name in ("CPU", "CPU_Mapped"))
    locked = [mark.figures[_LOCKED] for mark in launch.marks if _LOCKED in mark.figures]
    if not locked or max(locked) >= _MOST_OF_WEIGHTS * weights:
        return None
    return (
        f'load_mode = "{record.setting.load_mode}" locked only {mebibytes(max(locked))} of '
        f"{mebibytes(weights)} of weights in memory: raise the limit with `ulimit -l`, or "
        "in a container with `--ulimit memlock=-1`"
    )


def _large_context(record: Record) -> str | None:
    found, effective = breakdown_of(record), _effective(record)
    if found is None or effective is None:
        return None
    workload, kv = record.workload, found.parts["kv"]
    used = workload.depth + max(workload.sequences * workload.prompt_tokens, workload.generated_tokens)
    needed = -(-used // _CELLS) * _CELLS
    notable = max(_NOTABLE_KV_BYTES, _NOTABLE_KV * record.model.file_size_bytes)
    if effective.n_ctx is None or kv < notable or effective.n_ctx < _OVERSIZED_CONTEXT * needed:
        return None
    return (
        f"n_ctx = {effective.n_ctx} reserves {mebibytes(kv)} of KV cache, but this workload uses only {used} "
        f"tokens: n_ctx = {needed} needs about {mebibytes(kv * needed / effective.n_ctx)}"
    )


def _unused_logits(record: Record) -> str | None:
    """On a processor these are reserved and never written, so only memory of a device is wasted."""
    effective = _effective(record)
    if effective is None or effective.n_ubatch is None:
        return None
    # The output buffer holds one row of logits for each sequence, and there is one sequence.
    row = sum(effective.buffers.get("output", {}).values())
    unused = (effective.n_ubatch - 1) * row
    devices = {name: held for name, held in effective.buffers.get("compute", {}).items() if not is_host(name)}
    largest = max(devices, key=lambda name: devices[name], default="")
    if unused < _NOTABLE_LOGITS_BYTES or devices.get(largest, 0) < unused:
        return None
    return (
        f"the compute buffer on {printable(largest)} reserves {mebibytes(unused)} for logits that are never "
        f"computed, because only the last of {effective.n_ubatch} tokens of a ubatch needs them: a smaller "
        "n_ubatch saves them in proportion, and n_outputs_max = 1 in the parameters of the context saves all"
    )


def _threads_equal_cores(record: Record) -> str | None:
    threads, cores = record.setting.n_threads, record.machine.usable_cores
    if record.environment is None or record.setting.device != "cpu" or threads < cores or cores < 2:
        return None
    shares = [process.core_share for process in record.environment.processes]
    other = f"other processes used {100 * sum(shares):.0f} % of one" if shares else "other work needed one"
    return (
        f"n_threads = {threads} uses every core, while {other}: threads wait for each other at every "
        f"operation, so n_threads = {cores - 1} is faster while other work runs"
    )


def _few_threads(record: Record) -> str | None:
    threads, cores = record.setting.n_threads, record.machine.physical_cores
    decode = next((limit for limit in record.limits if limit.name == "decode" and limit.judged), None)
    if decode is None or decode.fraction >= _LOW_FRACTION or threads >= cores - 1:
        return None
    return (
        f"decode uses {100 * decode.fraction:.0f} % of the memory bandwidth with {threads} of {cores} cores: "
        "raise n_threads"
    )


def _not_cold(record: Record) -> str | None:
    asked = [launch.page_cache for launch in record.launches if launch.page_cache]
    failed = [found for found in asked if found.asked == "cold" and found.state != "cold"]
    if not failed:
        return None
    share = failed[0].resident_fraction
    if share is None:
        return "no cold load was measured, because this system does not report what is in the page cache"
    return (
        f"no cold load was measured, because {100 * share:.0f} % of the file stayed in the page cache: "
        "another process maps the file, or its file system is in memory (tmpfs)"
    )


def _not_warm(record: Record) -> str | None:
    asked = [launch.page_cache for launch in record.launches if launch.page_cache]
    failed = [found for found in asked if found.asked == "warm" and found.state != "warm"]
    if not failed or failed[0].resident_fraction is None:
        return None
    return (
        f"only {100 * failed[0].resident_fraction:.0f} % of the file stayed in the page cache after it was "
        "read, so the load was neither cold nor warm: free memory, or measure a smaller model"
    )


def _loop_overhead(record: Record) -> str | None:
    launch, token = _full_launch(record), record.summary.get("token_p50_seconds")
    if launch is None or launch.loop_overhead_seconds is None or token is None:
        return None
    share = launch.loop_overhead_seconds / token.median
    if share < _NOTABLE_OVERHEAD:
        return None
    return (
        f"the measuring loop takes {100 * share:.1f} % of the time of a token: this model is too small for "
        "a meaningful decode rate"
    )


def _unfit_machine(record: Record) -> str | None:
    for launch in record.launches:
        for conditions in launch.conditions:
            for problem, remedy in unfit(conditions):
                return f"{problem}: {remedy}"
    return None


RULES: Sequence[Callable[[Record], str | None]] = (
    _amx_crash,
    _unequal_answers,
    _unfit_machine,
    _threads_equal_cores,
    _not_locked,
    _duplicate,
    _flash_attention_off,
    _large_context,
    _unused_logits,
    _few_threads,
    _not_cold,
    _not_warm,
    _loop_overhead,
)
"""Rules in the order in which their sentences are shown."""


def _full_launch(record: Record) -> Launch | None:
    return next(filter(is_full, record.launches), None)


def _effective(record: Record) -> Effective | None:
    launch = _full_launch(record)
    return launch.effective if launch else None
