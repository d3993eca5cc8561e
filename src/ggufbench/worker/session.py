"""The main path of a launch, top to bottom: import, load, first decode, prompt, decode, exit."""

from __future__ import annotations

import faulthandler
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from . import memory
from .channel import Channel
from .engine import Engine
from .job import Job
from .native import Library

PROVIDERS: dict[str, Callable[[Library, Job], Engine]] = {"engine": Engine}
"""Every code path that can be measured; each has a file of its own here."""

_WARMUP_TOKENS = 8
"""Decoded before the first timed decode: enough for graph reuse and lazily touched pages."""


def main(arguments: list[str]) -> int:
    """Run the job given as a file, or the one on the first line of stdin. Returns the exit code."""
    _end_with_parent()
    faulthandler.enable()
    by_hand = bool(arguments)
    channel = Channel.over_stdio(answered=not by_hand)
    text = Path(arguments[0]).read_text(encoding="utf-8") if by_hand else sys.stdin.readline()
    return channel.guarded(lambda: _run(json.loads(text), channel))


def _run(values: dict[str, Any], channel: Channel) -> None:
    task = {"measure": _measure, "probe": _probe}[values["task"]]
    task(values, channel)


def _probe(values: dict[str, Any], channel: Channel) -> None:
    """Which library and which devices are here, before anything is loaded."""
    library = _import_library(channel)
    servers = values.get("rpc_servers", "")
    if servers:
        channel.enter("connect")
        library.add_rpc_servers(servers)
    channel.send("probed", **library.describe())


def _measure(values: dict[str, Any], channel: Channel) -> None:
    job = Job.from_json(values)
    library = _import_library(channel)
    provider = PROVIDERS[job.provider](library, job)
    # A collection inside a timed loop would be the harness's time, not the model's.
    gc.disable()
    _load(provider, library, channel)
    channel.enter("first_decode")
    _send_sample(channel, library, provider, phase="first_decode", token_seconds=[provider.first_decode()])
    _sample_prompt(provider, library, job, channel)
    _sample_decode(provider, library, job, channel)
    channel.enter("exit")
    provider.close()
    channel.send("done")


def _import_library(channel: Channel) -> Library:
    channel.enter("import")
    start = perf_counter()
    library = Library()
    seconds = perf_counter() - start
    log = library.log.drain()
    channel.send("imported", seconds=seconds, memory=memory.mark(), log=log, **library.describe())
    return library


def _load(provider: Engine, library: Library, channel: Channel) -> None:
    before = _device_memory(library, provider)
    channel.enter("load")
    seconds = provider.load()
    after = _device_memory(library, provider)
    channel.send(
        "loaded",
        **seconds,
        effective=provider.effective(),
        memory=memory.mark(),
        device_bytes={name: max(0, before[name] - free) for name, free in after.items()},
        log=library.log.drain(),
    )


def _sample_prompt(provider: Engine, library: Library, job: Job, channel: Channel) -> None:
    channel.enter("prompt")
    for index in range(job.workload.repetitions + 1):
        gc.collect()
        seconds = provider.prompt()
        _send_sample(channel, library, provider, phase="prompt", warmup=index == 0, seconds=seconds)


def _sample_decode(provider: Engine, library: Library, job: Job, channel: Channel) -> None:
    channel.enter("decode")
    for index in range(job.workload.repetitions + 1):
        gc.collect()
        warmup = index == 0
        token_seconds = provider.decode(_WARMUP_TOKENS if warmup else None)
        _send_sample(channel, library, provider, phase="decode", warmup=warmup, token_seconds=token_seconds)


def _send_sample(channel: Channel, library: Library, provider: Engine, **fields: Any) -> None:
    channel.send(
        "sample",
        **fields,
        memory=memory.mark(),
        device_free_bytes=_device_memory(library, provider),
        log=library.log.drain(),
    )


def _device_memory(library: Library, provider: Engine) -> dict[str, int]:
    """Free bytes of each device in use."""
    return {library.device_name(device): library.device_memory(device)[0] for device in provider.devices}


def _end_with_parent() -> None:
    """Ask Linux to end this process with the harness: a killed harness leaves no model behind."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
