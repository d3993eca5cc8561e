"""From the evidence in a record to sentences with a remedy: one small rule for each.

A rule looks at a record and returns its sentence, or None where it has nothing to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ggufbench.checks.memory import Breakdown, break_down
from ggufbench.machine.fitness import unfit
from ggufbench.outcomes import Outcome
from ggufbench.records.schema import Effective, Launch, Record
from ggufbench.text import mebibytes
from ggufbench.worker.job import ENGINE

_NOTABLE_DUPLICATE = 0.05
"""Of the file: a smaller duplicate is not worth a sentence."""
_NOTABLE_KV = 0.05
_NOTABLE_KV_BYTES = 64 * 2**20
_FEW_TOKENS = 4
"""A context this many times larger than what the workload uses is reserved for nothing."""
_NOTABLE_OVERHEAD = 0.02
_LOW_FRACTION = 0.5
_CELLS = 256
"""llama.cpp makes a KV cache in blocks of so many tokens."""


def advise(record: Record) -> list[str]:
    """What could be done about this record's numbers, most telling first; empty where all is well."""
    sentences = (rule(record) for rule in RULES)
    return [sentence for sentence in sentences if sentence is not None]


def breakdown_of(record: Record) -> Breakdown | None:
    """The memory of the first launch that measured everything; None where there is none."""
    launch = _full_launch(record)
    if launch is None or launch.effective is None or not launch.marks:
        return None
    peaks = {mark.after: mark.figures.get("peak_rss_bytes", 0) for mark in launch.marks}
    start, peak = launch.marks[0].figures.get("rss_bytes"), max(peaks.values())
    if not peak or start is None:
        return None
    # While it loads, llama.cpp maps the whole file, also where the weights end up elsewhere.
    in_loading = peaks.get("load") == peak and "mmap" in (launch.effective.load_mode or "")
    file_bytes = record.model.file_size_bytes if in_loading else 0
    return break_down(launch.effective.buffers, start, peak, file_bytes)


def _amx_crash(record: Record) -> str | None:
    crashed = record.outcome is Outcome.CRASHED and record.phase in ("first_decode", "prompt", "decode")
    if crashed and "AMX_INT8 = 1" in record.provider.system_info:
        return (
            "this llama.cpp was built with AMX, where it may crash (ggml-org/llama.cpp#20824): build it "
            "without, or set repack = false"
        )
    return None


def _unequal_answers(record: Record) -> str | None:
    digests = {launch.digest for launch in record.launches if launch.digest}
    if len(digests) > 1:
        return (
            f"the launches gave {len(digests)} different answers to one prompt: the work was not the same, "
            "so compare their speeds with care"
        )
    return None


def _duplicate(record: Record) -> str | None:
    found, size = breakdown_of(record), record.model.file_size_bytes
    if found is None or found.duplicate_bytes < _NOTABLE_DUPLICATE * size:
        return None
    now, then = found.measured_bytes / size, (found.measured_bytes - found.duplicate_bytes) / size
    return (
        f"{mebibytes(found.duplicate_bytes)} of the peak are repacked copies of weights that also stay "
        f'mapped: load_mode = "none" brings the peak from {now:.2f} to {then:.2f} times the file, and loads '
        "slower"
    )


def _flash_attention_off(record: Record) -> str | None:
    effective = _effective(record)
    if effective is None or effective.flash_attn != "off":
        return None
    if record.setting.flash_attn == "auto" and record.provider.name != ENGINE:
        return f"the prompt runs without flash attention, as provider {record.provider.name} chose"
    if record.setting.flash_attn == "auto":
        return "the prompt runs without flash attention: llama.cpp has none for this model on this device"
    return 'the prompt runs with flash attention off: try flash_attn = "on"'


def _large_context(record: Record) -> str | None:
    found, effective = breakdown_of(record), _effective(record)
    if found is None or effective is None:
        return None
    workload, kv = record.workload, found.parts["kv"]
    used = workload.depth + max(workload.prompt_tokens, workload.generated_tokens)
    needed = -(-used // _CELLS) * _CELLS
    notable = max(_NOTABLE_KV_BYTES, _NOTABLE_KV * record.model.file_size_bytes)
    if effective.n_ctx is None or kv < notable or effective.n_ctx < _FEW_TOKENS * needed:
        return None
    return (
        f"n_ctx = {effective.n_ctx} reserves {mebibytes(kv)} of KV cache, and this workload uses {used} "
        f"tokens of it: n_ctx = {needed} takes about {mebibytes(kv * needed / effective.n_ctx)}"
    )


def _threads_equal_cores(record: Record) -> str | None:
    threads, cores = record.setting.n_threads, record.machine.usable_cores
    if record.environment is None or record.setting.device != "cpu" or threads < cores or cores < 2:
        return None
    shares = [process.core_share for process in record.environment.processes]
    other = f"other processes had {100 * sum(shares):.0f} % of one" if shares else "other work wanted one"
    return (
        f"n_threads = {threads} takes every core, and {other}: threads wait for each other at every "
        f"operation, so n_threads = {cores - 1} is faster beside other work"
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
    stayed = "this system does not tell" if share is None else f"{100 * share:.0f} % of the file stayed"
    return (
        f"no cold load was measured, because {stayed} in the page cache: another process maps the file, or "
        "it lies in memory itself (tmpfs)"
    )


def _not_warm(record: Record) -> str | None:
    asked = [launch.page_cache for launch in record.launches if launch.page_cache]
    failed = [found for found in asked if found.asked == "warm" and found.state != "warm"]
    if not failed or failed[0].resident_fraction is None:
        return None
    return (
        f"only {100 * failed[0].resident_fraction:.0f} % of the file stayed in the page cache after it was "
        "read, so its load was neither cold nor warm: free memory, or measure a smaller model"
    )


def _loop_overhead(record: Record) -> str | None:
    launch, token = _full_launch(record), record.summary.get("token_p50_seconds")
    if launch is None or launch.loop_overhead_seconds is None or token is None:
        return None
    share = launch.loop_overhead_seconds / token.median
    if share < _NOTABLE_OVERHEAD:
        return None
    return (
        f"the measuring loop itself takes {100 * share:.1f} % of a token: this model is too small for its "
        "decode rate to mean much"
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
    _duplicate,
    _flash_attention_off,
    _large_context,
    _few_threads,
    _not_cold,
    _not_warm,
    _loop_overhead,
)
"""In the order in which their sentences are shown."""


def _full_launch(record: Record) -> Launch | None:
    complete = (launch for launch in record.launches if any(mark.after == "prompt" for mark in launch.marks))
    return next(complete, None)


def _effective(record: Record) -> Effective | None:
    launch = _full_launch(record)
    return launch.effective if launch else None
