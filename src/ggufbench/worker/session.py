"""The main path of a launch, top to bottom: import, load, first decode, prompt, decode, digest, exit.

A launch that measures only the load ends after the first decode. An encoder has the phase `encode` instead of
`prompt`, and `decode` only if a decoder follows it. A scorer has only `score` after the first decode.
"""

from __future__ import annotations

import faulthandler
import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from . import bandwidth, layers, memory, protocol, vocabulary
from .callables import Callee
from .channel import Channel
from .chat import Chat
from .decode_clock import DecodeClock
from .encoder import Encoder
from .encoder_decoder import EncoderDecoder
from .engine import Engine
from .job import DIRECT, ENCODER, ENCODER_DECODER, ENGINE, LAYERS, SCORER, TRANSFORMERS, Job
from .native import Library
from .protocol import AGAIN, AnyJob, BandwidthJob, LibraryFacts, ProbeJob, TokenizeJob, decode_job
from .provider import WARMUP, Timing, WorkerProvider
from .scorer import Scorer

_ENGINES = {ENGINE: Engine, ENCODER: Encoder, ENCODER_DECODER: EncoderDecoder, SCORER: Scorer}


def main(arguments: list[str]) -> int:
    """Run the job from a file, or from the first line of stdin. Returns the exit code."""
    _end_with_parent()
    faulthandler.enable()
    by_hand = bool(arguments)
    channel = Channel.over_stdio(answered=not by_hand)
    text = Path(arguments[0]).read_text(encoding="utf-8") if by_hand else channel.first_line()
    return channel.guarded(lambda: _run(decode_job(text), channel))


def _run(job: AnyJob, channel: Channel) -> None:
    match job:
        case Job():
            _measure(job, channel)
        case ProbeJob():
            _probe(job, channel)
        case BandwidthJob():
            bandwidth.measure(job, channel)
        case TokenizeJob():
            vocabulary.serve(job, channel)


def _probe(job: ProbeJob, channel: Channel) -> None:
    """Describe the library and the devices before anything is loaded."""
    channel.enter("import")
    start = perf_counter()
    if job.provider == TRANSFORMERS:
        from . import torch_library

        facts = torch_library.describe(with_memory=True)
        _imported(facts, perf_counter() - start, [], channel)
        channel.send(protocol.Probed(facts, "", {}))
        return
    library = Library()
    errors = library.log.errors()
    _imported(library.describe(), perf_counter() - start, library.log.drain(), channel)
    if job.rpc_servers:
        channel.enter("connect")
        library.add_rpc_servers(job.rpc_servers)
    channel.send(protocol.Probed(library.describe(with_memory=True), errors, layers.missing()))


def _measure(job: Job, channel: Channel) -> None:
    launch = _LaunchPhases(job, _import_provider(job, channel), channel)
    # A collection inside a timed loop would be the harness's time, not the model's.
    gc.disable()
    launch.imported()
    launch.load()
    launch.first_decode()
    if job.provider == SCORER:
        launch.score()
    elif not job.load_only:
        launch.prompt()
        if job.provider != ENCODER:
            launch.decode()
        launch.digest()
    launch.exit()


def _import_provider(job: Job, channel: Channel) -> WorkerProvider:
    """The provider: the engine, transformers, a layer over llama.cpp, or the user's own callable."""
    channel.enter("import")
    start = perf_counter()
    if job.provider == TRANSFORMERS:
        from . import torch_library
        from .transformers import Transformers

        _imported(torch_library.describe(), perf_counter() - start, [], channel)
        return Transformers(job)
    if job.provider in DIRECT:
        library = Library()
        _imported(library.describe(), perf_counter() - start, library.log.drain(), channel)
        return _ENGINES[job.provider](library, job)
    # The library first: a module that takes over the log when it is imported must get it.
    library = Library(whole_package=True)
    clock = DecodeClock(library.api)
    callee = layers.find(job.provider) if job.provider in LAYERS else Callee.find(job.provider)
    seconds, facts = perf_counter() - start, library.describe()
    facts.versions.update(callee.versions())
    _imported(facts, seconds, library.log.drain(), channel)
    return Chat(library, job, callee, clock)


def _imported(facts: LibraryFacts, seconds: float, log: list[str], channel: Channel) -> None:
    channel.send(protocol.Imported(seconds, log, facts))


@dataclass(frozen=True, slots=True)
class _LaunchPhases:
    """The phases after the import; each one announces itself, works, and sends its measurements."""

    job: Job
    provider: WorkerProvider
    channel: Channel

    def imported(self) -> None:
        # Device memory is not queried yet: see Library.describe.
        self._send_mark("import", device_free_bytes={})

    def load(self) -> None:
        self._enter("load")
        loading = self.provider.load()
        self.channel.send(
            protocol.Loaded(
                loading.model_seconds,
                loading.context_seconds,
                loading.evidence,
                loading.placement,
                effective=self.provider.effective(),
                devices=list(self.provider.device_free_bytes()),
                log=self.provider.drain_log(),
            )
        )
        self._mark("load")

    def first_decode(self) -> None:
        self._enter("first_decode")
        self._send(self.provider.first_decode())
        self._mark("first_decode")

    def prompt(self) -> None:
        phase = "encode" if self.job.provider in (ENCODER, ENCODER_DECODER) else "prompt"
        self._repeat(phase, self.provider.prompt)

    def decode(self) -> None:
        self._repeat("decode", self.provider.decode)
        overhead = self.provider.loop_overhead()
        if overhead is not None:
            self.channel.send(protocol.Overhead(overhead))

    def score(self) -> None:
        assert isinstance(self.provider, Scorer)  # noqa: S101 (the provider of this job)
        self._enter("score")
        self.provider.serve(self.channel)
        self._mark("score")

    def digest(self) -> None:
        self._enter("digest")
        self.channel.send(protocol.Digest(self.provider.digest()))
        self._mark("digest")

    def exit(self) -> None:
        self.channel.enter("exit")
        self.provider.close()
        gc.collect()
        # Free device memory without the model, the reference for every earlier mark.
        self._mark("exit")
        self.channel.send(protocol.Done())

    def _repeat(self, phase: str, work: Callable[[int], Timing]) -> None:
        """Run a warm-up, then every repetition until the harness accepts it."""
        self._enter(phase)
        for number in (WARMUP, *range(self.job.workload.repetitions)):
            while self._send(work(number), warmup=number == WARMUP) == AGAIN:
                pass
        self._mark(phase)

    def _enter(self, phase: str) -> None:
        self.channel.enter(phase)
        memory.reset_peak()
        gc.collect()

    def _send(self, timing: Timing, *, warmup: bool = False) -> str:
        phase = self.channel.phase
        answer = self.channel.send(
            protocol.TimedSample(
                phase=phase,
                warmup=warmup,
                tokens=timing.tokens,
                seconds=sum(timing.seconds),
                token_seconds=timing.seconds if phase == "decode" else [],
                native_seconds=timing.native_seconds,
                evidence=timing.evidence,
            )
        )
        gc.collect()
        return answer

    def _mark(self, after: str) -> None:
        self._send_mark(after, self.provider.device_free_bytes())

    def _send_mark(self, after: str, device_free_bytes: dict[str, int]) -> None:
        self.channel.send(protocol.Mark(after, memory.mark(), device_free_bytes, self.provider.drain_log()))


def _end_with_parent() -> None:
    """Ask Linux to terminate this process with the harness: a killed harness leaves no model behind."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
