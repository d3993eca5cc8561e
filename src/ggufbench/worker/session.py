"""The main path of a launch, top to bottom: import, load, first decode, prompt, decode, digest, exit."""

from __future__ import annotations

import faulthandler
import gc
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from . import memory
from .channel import Channel
from .engine import Engine, Timing
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
    launch = _Launch(job, library, PROVIDERS[job.provider](library, job), channel)
    # A collection inside a timed loop would be the harness's time, not the model's.
    gc.disable()
    launch.load()
    launch.first_decode()
    launch.prompt()
    launch.decode()
    launch.digest()
    launch.exit()


def _import_library(channel: Channel) -> Library:
    channel.enter("import")
    start = perf_counter()
    library = Library()
    seconds = perf_counter() - start
    log = library.log.drain()
    channel.send("imported", seconds=seconds, memory=memory.mark(), log=log, **library.describe())
    return library


@dataclass(frozen=True, slots=True)
class _Launch:
    """The phases after the import; each says that it begins, works, and sends what it measured."""

    job: Job
    library: Library
    provider: Engine
    channel: Channel

    def load(self) -> None:
        before = self._device_memory()
        self.channel.enter("load")
        seconds = self.provider.load()
        after = self._device_memory()
        self.channel.send(
            "loaded",
            **seconds,
            effective=self.provider.effective(),
            memory=memory.mark(),
            device_bytes={name: max(0, before[name] - free) for name, free in after.items()},
            log=self.library.log.drain(),
        )

    def first_decode(self) -> None:
        self.channel.enter("first_decode")
        self._send(self.provider.first_decode(), tokens=1)

    def prompt(self) -> None:
        self.channel.enter("prompt")
        for index in range(self.job.workload.repetitions + 1):
            gc.collect()
            self._send(self.provider.prompt(), tokens=self.job.workload.prompt_tokens, warmup=index == 0)

    def decode(self) -> None:
        self.channel.enter("decode")
        for index in range(self.job.workload.repetitions + 1):
            gc.collect()
            timing = self.provider.decode(_WARMUP_TOKENS if index == 0 else None)
            self._send(timing, tokens=len(timing.seconds), warmup=index == 0)

    def digest(self) -> None:
        self.channel.enter("digest")
        self.channel.send("digest", digest=self.provider.digest())

    def exit(self) -> None:
        self.channel.enter("exit")
        self.provider.close()
        self.channel.send("done")

    def _send(self, timing: Timing, *, tokens: int, warmup: bool = False) -> None:
        self.channel.send(
            "sample",
            phase=self.channel.phase,
            warmup=warmup,
            tokens=tokens,
            seconds=sum(timing.seconds),
            token_seconds=timing.seconds if self.channel.phase == "decode" else [],
            evidence=timing.evidence,
            memory=memory.mark(),
            device_free_bytes=self._device_memory(),
            log=self.library.log.drain(),
        )

    def _device_memory(self) -> dict[str, int]:
        """Free bytes of each device in use."""
        library = self.library
        return {library.device_name(d): library.device_memory(d)[0] for d in self.provider.devices}


def _end_with_parent() -> None:
    """Ask Linux to end this process with the harness: a killed harness leaves no model behind."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
