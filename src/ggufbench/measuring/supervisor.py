"""Supervision of one launch: prepare the file before it loads, and judge each sample as it arrives.

All of it happens while the worker waits for an answer, so no work of the harness runs next to a clock.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

from ggufbench.checks.cache_state import WARM_AT_LEAST, cache_state
from ggufbench.checks.interference import TIMED_PHASES, Judge
from ggufbench.checks.native_log import LoadLog, offload_problem, parse_load_log
from ggufbench.launching.launcher import Ended, Interpreter, LaunchRefusedError, PhaseTimeouts, launch
from ggufbench.machine import page_cache
from ggufbench.machine.conditions import busiest_processes, read_conditions
from ggufbench.machine.parts import BusyProcess, Conditions
from ggufbench.outcomes import Outcome
from ggufbench.planning.plan import Case
from ggufbench.processes import cause
from ggufbench.quality.conversation import Conversation
from ggufbench.records.parts import CacheState
from ggufbench.records.schema import ChunkScores, PageCache, Sample
from ggufbench.worker import protocol
from ggufbench.worker.protocol import AGAIN, GO

SEED = 1
"""Seed of the random tokens, the same in every run: they decide which experts of a mixture are used."""

_PREPARING = "reading the file into memory"
_LOOK_AROUND_SECONDS = 0.5

Observer = Callable[["LaunchSupervisor | None"], None]
"""Called with the supervisor of a launch at the start of each phase, and with None at the end of a case."""


@dataclass(slots=True)
class LaunchSupervisor:
    """Supervise one launch of a case, and collect its events."""

    case: Case
    judge: Judge
    observer: Observer
    number: int = 1
    """Number of the launch in the case, from 1, including cold launches."""
    asked: CacheState = "warm"
    """Required page cache state of the file at the start of loading: `cold` or `warm`."""
    load_only: bool = False
    scoring: Conversation[list[ChunkScores]] | Conversation[None] | None = None
    """The requests to a scorer; None for a launch that is timed."""
    disturbed: int = 0
    """Number of samples of the case with interference so far."""
    processes: list[BusyProcess] | None = None
    """The busiest other processes when a sample of the case first had interference."""

    phase: str = "start"
    pid: int = 0
    interrupt: KeyboardInterrupt | None = None
    """Ctrl-C, SIGTERM or SIGHUP during the launch."""
    ended: Ended = field(init=False)
    conditions: list[Conditions] = field(default_factory=list)
    """Conditions before and after the launch."""
    page_cache: PageCache | None = None
    imported: protocol.Imported | None = None
    loaded: protocol.Loaded | None = None
    log: LoadLog = field(default_factory=LoadLog)
    """Facts about the load from the native log."""
    samples: list[Sample] = field(default_factory=list)
    """Samples, each with its interference."""
    marks: list[protocol.Mark] = field(default_factory=list)
    loop_overhead_seconds: float | None = None
    digest: str | None = None
    _repeated: Counter[str] = field(default_factory=Counter)

    def run(
        self, timeouts: PhaseTimeouts, interpreter: Interpreter, variables: Mapping[str, str] | None = None
    ) -> None:
        """Run the launch to its end. Ctrl-C ends it and is kept in `interrupt`."""
        self.conditions.append(read_conditions())
        started = time.monotonic()
        job = self.case.job(SEED, load_only=self.load_only)
        try:
            self.ended = launch(job, timeouts, interpreter=interpreter, env=variables, answer=self)
        except KeyboardInterrupt as interrupt:
            self.interrupt = interrupt
            elapsed, reason = time.monotonic() - started, f"interrupted by {cause(interrupt)} in {self.phase}"
            self.ended = Ended(Outcome.FAILED, [], elapsed, self.phase, reason)
        self.conditions.append(read_conditions())

    def __call__(self, event: protocol.Event, pid: int) -> str:
        """The answer to an event. Raises LaunchRefusedError."""
        match event:
            case protocol.Phase():
                self._begin(event.phase, pid)
            case protocol.Imported():
                self.imported = event
            case protocol.Loaded():
                self._take_load(event)
            case protocol.TimedSample():
                return self._take(event)
            case protocol.Mark():
                self.marks.append(event)
            case protocol.Overhead():
                self.loop_overhead_seconds = event.seconds_per_token
            case protocol.Digest():
                self.digest = event.digest
            case protocol.Vocabulary() | protocol.Tokens() | protocol.Scored() if self.scoring is not None:
                return self.scoring.answer(event)
        return GO

    def _begin(self, phase: str, pid: int) -> None:
        self.phase, self.pid = phase, pid
        if phase == "load":
            self._refuse_changed_file()
            self._prepare_file()
        self.observer(self)

    def _refuse_changed_file(self) -> None:
        if (changed := self.case.changed_file()) is not None:
            raise LaunchRefusedError(changed)

    def _prepare_file(self) -> None:
        files = self.case.files
        resident = page_cache.resident_fraction(files)
        if self.asked == "cold":
            page_cache.drop(files)
            resident = page_cache.resident_fraction(files)
        elif resident is None or resident < WARM_AT_LEAST:
            self._read_file()
            resident = page_cache.resident_fraction(files)
        self.page_cache = PageCache(
            asked=self.asked, resident_fraction=resident, state=cache_state(self.asked, resident)
        )

    def _read_file(self) -> None:
        loading = self.phase
        try:
            self.phase = _PREPARING
            self.observer(self)
            with contextlib.suppress(OSError):  # loading reports the same error
                page_cache.read_once(self.case.files)
        finally:
            self.phase = loading

    def _take_load(self, loaded: protocol.Loaded) -> None:
        """Keep a load, which is also a sample. A GPU run on the CPU ends before hours are spent on it."""
        self._refuse_changed_file()  # it could have been replaced while it was loaded
        self.loaded, self.log = loaded, parse_load_log(loaded.log)
        self._take(protocol.TimedSample("load", False, 0, loaded.seconds, [], [], loaded.evidence))
        setting = self.case.setting
        if self.case.scenario.is_baseline:
            return  # this library has no such log; the worker checks every tensor
        problem = offload_problem(self.log, setting.device, setting.n_gpu_layers, loaded.devices)
        if problem is not None:
            raise LaunchRefusedError(problem)

    def _take(self, event: protocol.TimedSample) -> str:
        """Judge and keep a sample; `AGAIN` for interference while retries are left, one per sample."""
        reasons = self.judge.reasons(event.evidence, event.phase)
        self.samples.append(Sample(**asdict(event), disturbed=reasons))
        if event.warmup or not reasons:
            return GO
        self.disturbed += 1
        if self.processes is None:
            self.processes = busiest_processes(_LOOK_AROUND_SECONDS)
        can_repeat = event.phase in TIMED_PHASES
        if not can_repeat or self._repeated[event.phase] >= self.case.workload.repetitions:
            return GO
        self._repeated[event.phase] += 1
        return AGAIN
