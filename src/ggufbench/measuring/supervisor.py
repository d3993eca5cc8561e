"""Answers one worker's events: the file is prepared before it loads, samples are judged as they come.

All of it happens while the worker waits for an answer, so none of it beside a clock.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ggufbench.checks.cache_state import WARM_AT_LEAST, cache_state
from ggufbench.checks.interference import Judge
from ggufbench.checks.native_log import offload_problem
from ggufbench.launching.launcher import Event, LaunchRefusedError
from ggufbench.machine import page_cache as pagecache
from ggufbench.measuring.record_builder import as_sample, load_log
from ggufbench.planning.plan import Case
from ggufbench.records.parts import CacheState
from ggufbench.records.schema import PageCache
from ggufbench.worker.channel import AGAIN, GO

PREPARING = "reading the file into memory"


@dataclass(slots=True)
class Attendant:
    """Attends to one launch, and keeps what it saw."""

    case: Case
    judge: Judge
    asked: CacheState
    """What the page cache shall hold of the file when loading begins: `cold` or `warm`."""
    on_phase: Callable[[str, int], None]
    """Told the name of a phase that begins and the worker's process id."""
    on_disturbed: Callable[[], None]
    """Told of each sample that something else disturbed, while the worker waits."""
    page_cache: PageCache | None = None
    events: list[Event] = field(default_factory=list)
    _repeated: Counter[str] = field(default_factory=Counter)

    def __call__(self, event: Event, pid: int) -> str:
        """The answer to an event. Raises LaunchRefusedError."""
        self.events.append(event)
        match event["event"]:
            case "phase":
                if event["phase"] == "load":
                    self._prepare_file(pid)
                self.on_phase(event["phase"], pid)
            case "loaded":
                self._refuse_fallback(event)
                self._judge(event)
            case "sample":
                return self._judge(event)
        return GO

    @property
    def phase(self) -> str:
        """The phase that began last."""
        return next((e["phase"] for e in reversed(self.events) if e["event"] == "phase"), "start")

    def _prepare_file(self, pid: int) -> None:
        files = self.case.files
        resident = pagecache.resident_fraction(files)
        if self.asked == "cold":
            pagecache.drop(files)
            resident = pagecache.resident_fraction(files)
        elif resident is None or resident < WARM_AT_LEAST:
            self.on_phase(PREPARING, pid)
            with contextlib.suppress(OSError):  # loading it will say the same, in the library's words
                pagecache.read_once(files)
            resident = pagecache.resident_fraction(files)
        self.page_cache = PageCache(
            asked=self.asked, resident_fraction=resident, state=cache_state(self.asked, resident)
        )

    def _refuse_fallback(self, loaded: Event) -> None:
        """A GPU run that is none ends before hours are spent on it."""
        setting = self.case.setting
        if self.case.scenario.is_baseline:
            return  # it has no such log; its worker looks at every tensor itself
        problem = offload_problem(load_log(loaded), setting.device, setting.n_gpu_layers, loaded["devices"])
        if problem is not None:
            raise LaunchRefusedError(problem)

    def _judge(self, event: Event) -> str:
        """`AGAIN` for a disturbed sample that can be taken once more: each one once, on the average."""
        sample = as_sample(event)
        phase = sample["phase"]
        if sample["warmup"] or not self.judge.reasons(sample["evidence"], phase):
            return GO
        self.on_disturbed()
        can_repeat = phase in ("prompt", "decode")
        if not can_repeat or self._repeated[phase] >= self.case.workload.repetitions:
            return GO
        self._repeated[phase] += 1
        return AGAIN
