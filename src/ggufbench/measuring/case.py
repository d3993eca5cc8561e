"""Measure a case: its launches one after the other, and the record of what came out."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ggufbench.calibration.probe import PYTORCH_IMPORT_SECONDS
from ggufbench.checks.interference import Judge, is_environment
from ggufbench.checks.roofline import Rates, evaluate_limits, measuring_error
from ggufbench.checks.targets import evaluate_targets
from ggufbench.launching.launcher import Ended, Event, Interpreter, compute_variables, launch
from ggufbench.machine.conditions import busiest_processes, read_conditions
from ggufbench.machine.parts import BusyProcess, Conditions, Device, Machine, SourceState
from ggufbench.measuring.record_builder import Surroundings, build_launch, describe_environment, identify
from ggufbench.measuring.supervisor import Attendant
from ggufbench.outcomes import Outcome
from ggufbench.planning.plan import Case
from ggufbench.processes import alone
from ggufbench.records.parts import CacheState, LimitResult
from ggufbench.records.samples import summaries
from ggufbench.records.schema import Environment, Launch, ProviderFacts, Record

Observer = Callable[["Moment | None"], None]
"""Told when a phase begins; None when a case has ended."""

SEED = 1
"""Of the random tokens: the same in every run, because they decide which experts of a mixture are used."""

_SLOWEST_LOAD_BYTES_PER_SECOND = 20e6
_SLOWEST_PARAMETERS_PER_SECOND = 5e6
_PATIENCE = 30
"""A phase may take this many times its estimate before it counts as hung, and a minute beside."""
_LOOK_AROUND_SECONDS = 0.5
_LOADING = ("load", "first_decode")


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a measurement is: what a line of progress needs."""

    case: Case
    launch: int
    """Counted from 1, the cold ones included."""
    phase: str
    pid: int
    disturbed: int = 0
    """Samples of the case so far that something else disturbed."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that is the same for all cases of a run."""

    run_id: str
    machine: Machine
    source: SourceState
    interpreter: Interpreter = field(default_factory=Interpreter)
    deadline_scale: float = 1.0
    limits: Rates | None = None
    """What this machine can do at most; None leaves the results without that comparison."""
    observer: Observer = lambda _moment: None


@dataclass(frozen=True, slots=True)
class CaseTimeouts:
    """Seconds that each step of a case may take: generous, and scaled to the file and the work."""

    case: Case
    scale: float = 1.0

    def __call__(self, phase: str) -> float:
        """The deadline of the next event in this phase."""
        reading = _slowest_load_seconds(self.case)
        computing = _PATIENCE * self.case.estimate.seconds
        extra = {
            "import": PYTORCH_IMPORT_SECONDS if self.case.scenario.is_baseline else 0.0,
            "load": reading,
            "first_decode": reading,
            "prompt": computing,
            "decode": computing,
            "digest": computing,
        }
        return self.scale * (60 + extra.get(phase, 0.0))


def _slowest_load_seconds(case: Case) -> float:
    """After which loading counts as hung; transformers unpacks every matrix, on one core."""
    if case.scenario.is_baseline:
        return case.model.parameters / _SLOWEST_PARAMETERS_PER_SECOND
    return case.model.file_size_bytes / _SLOWEST_LOAD_BYTES_PER_SECOND


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while a case was measured; carries the record of what was measured by then."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record


def measure_case(case: Case, bench: Bench) -> Record:
    """Run every launch of a case. A launch that was not measured is the last one: the next would end alike.

    Cold loads come first, then the launches that measure everything; disturbed loads are measured again.
    Raises Interrupted, with the record of what was measured until then.
    """
    progress = _Progress()
    for asked, load_only in _launches(case, progress):
        ended, attendant, conditions = _launch(case, bench, progress, _Asked(asked, load_only))
        progress.library = progress.library or ended.find("imported") or {}
        around = Surroundings(attendant.judge, load_only, attendant.page_cache, conditions)
        keep_log = not any(launch.log for launch in progress.launches)
        progress.launches.append(build_launch(ended, case.model, around, keep_log=keep_log))
        if progress.interrupted:
            raise Interrupted(_record(case, bench, progress))
        if progress.failed:
            break
    return _record(case, bench, progress)


@dataclass(frozen=True, slots=True)
class MeasuredLaunch:
    """One launch for itself, and what was learned beside it."""

    launch: Launch
    provider: ProviderFacts
    processes: list[BusyProcess]
    """The busiest other ones when a sample was first disturbed."""


def measure_launch(
    case: Case, bench: Bench, variables: Mapping[str, str] | None = None, hidden_work: float = 0.0
) -> MeasuredLaunch:
    """One warm launch of a case, for a comparison. Raises KeyboardInterrupt when Ctrl-C ended it.

    `variables` are added to the worker's environment; `hidden_work` is the share of work that it does and
    does not report.
    """
    progress = _Progress()
    how = _Asked("warm", variables=variables or {}, hidden_work=hidden_work)
    ended, attendant, conditions = _launch(case, bench, progress, how)
    if progress.interrupted:
        raise KeyboardInterrupt
    around = Surroundings(attendant.judge, False, attendant.page_cache, conditions)
    facts = _provider_facts(case, ended.find("imported") or {})
    return MeasuredLaunch(
        build_launch(ended, case.model, around, keep_log=True), facts, progress.processes or []
    )


@contextmanager
def one_at_a_time(on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the machine: of several runs started by one user, only one measures at a time.

    `on_wait` is called once where another run holds it. A run that dies lets go.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    with alone(Path(tempfile.gettempdir()) / f"ggufbench-{user}.lock", on_wait):
        yield


def skipped_record(case: Case, bench: Bench, reason: str) -> Record:
    """The record of a case that was not run."""
    record = _record(case, bench, _Progress())
    return record.model_copy(update={"outcome": Outcome.SKIPPED, "reason": reason})


def _launches(case: Case, progress: _Progress) -> Iterator[tuple[CacheState, bool]]:
    """What each launch asks of the page cache, and whether it only loads."""
    workload = case.scenario.workload
    wanted: tuple[tuple[CacheState, int, bool], ...] = (
        ("cold", workload.cold_launches, True),
        ("warm", workload.launches, False),
    )
    for state, count, load_only in wanted:
        for _ in range(count):
            yield state, load_only
        for _ in range(count):
            if not _lacks(progress, state, count):
                break
            yield state, True


def _lacks(progress: _Progress, state: CacheState, wanted: int) -> bool:
    """Whether loads of that state were disturbed, so that fewer count than are wanted.

    Loads that were not of the state that was asked are no reason: the next one would be the same.
    """
    asked = [found for found in progress.launches if found.page_cache and found.page_cache.asked == state]
    loads = [found for found in asked if found.page_cache and found.page_cache.state == state]
    clean = [found for found in loads if not any(s.disturbed for s in found.samples if s.phase in _LOADING)]
    return bool(loads) and len(clean) < wanted


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one launch shall do."""

    page_cache: CacheState
    load_only: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    """Added to the worker's environment."""
    hidden_work: float = 0.0


def _launch(
    case: Case, bench: Bench, progress: _Progress, asked: _Asked
) -> tuple[Ended, Attendant, list[Conditions]]:
    """One launch. Ctrl-C ends it and is noted in the progress."""
    number = len(progress.launches) + 1

    def on_phase(phase: str, pid: int) -> None:
        bench.observer(Moment(case, number, phase, pid, progress.disturbed))

    def on_disturbed() -> None:
        progress.disturbed += 1
        if progress.processes is None:
            progress.processes = busiest_processes(_LOOK_AROUND_SECONDS)

    judge = Judge(
        case.setting.device, case.setting.n_threads, bench.machine.logical_cores, case.scenario.tolerance
    )
    attendant = Attendant(case, judge, asked.page_cache, on_phase, on_disturbed)
    before, started = read_conditions(), time.monotonic()
    try:
        ended = launch(
            case.job(SEED, load_only=asked.load_only, hidden_work=asked.hidden_work).to_json(),
            CaseTimeouts(case, bench.deadline_scale),
            interpreter=bench.interpreter,
            env=asked.variables,
            answer=attendant,
        )
    except KeyboardInterrupt:
        progress.interrupted = True
        phase, elapsed = attendant.phase, time.monotonic() - started
        reason = f"interrupted by Ctrl-C in {phase}"
        ended = Ended(Outcome.FAILED, attendant.events, elapsed, phase, reason)
    return ended, attendant, [before, read_conditions()]


@dataclass(slots=True)
class _Progress:
    """A case while it is measured."""

    launches: list[Launch] = field(default_factory=list)
    library: Event = field(default_factory=dict)
    processes: list[BusyProcess] | None = None
    """The busiest other ones when a sample was first disturbed."""
    disturbed: int = 0
    interrupted: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def failed(self) -> Launch | None:
        """The launch that was not measured."""
        return next((launch for launch in self.launches if launch.outcome is not Outcome.MEASURED), None)


def _record(case: Case, bench: Bench, progress: _Progress) -> Record:
    launches, library, failed = progress.launches, progress.library, progress.failed
    summary = summaries(launches, case.loaded_bytes)
    environment = describe_environment(launches, progress.processes or [])
    # Bounds and promises are llama.cpp's: they follow from the GGUF's bytes.
    is_baseline = case.scenario.is_baseline
    limits: list[LimitResult] = []
    if bench.limits is not None and not is_baseline:
        limits = evaluate_limits(case.model, case.setting, case.workload, summary, bench.limits)
    outcome, reason = _judge(failed, limits, environment)
    return Record(
        run_id=bench.run_id,
        case_id=case.id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_seconds=time.monotonic() - progress.started,
        outcome=outcome,
        phase=failed.phase if failed else None,
        reason=reason,
        model=identify(case.model),
        scenario=case.scenario.name,
        setting=case.setting,
        workload=case.workload,
        seed=SEED,
        tolerance=case.scenario.tolerance,
        provider=_provider_facts(case, library),
        machine=bench.machine,
        source=bench.source,
        launches=launches,
        summary=summary,
        targets=[]
        if is_baseline
        else evaluate_targets(case.scenario.targets, case.model.file_size_bytes, summary),
        limits=limits,
        environment=environment,
    )


def _provider_facts(case: Case, library: Event) -> ProviderFacts:
    return ProviderFacts(
        name=case.scenario.provider,
        versions=library.get("versions", {}),
        system_info=library.get("system_info", ""),
        devices=[Device(**device) for device in library.get("devices", [])],
        environment=compute_variables(os.environ),
    )


def _judge(
    failed: Launch | None, limits: list[LimitResult], environment: Environment | None
) -> tuple[Outcome, str | None]:
    """The outcome of a case, and its reason."""
    if failed is not None:
        return failed.outcome, failed.reason
    if (error := measuring_error(limits)) is not None:
        return Outcome.FAILED, error
    if environment is not None and is_environment(environment.disturbed, environment.judged):
        return Outcome.ENVIRONMENT, environment.sentence
    return Outcome.MEASURED, None
