"""Measure a case: its launches one after the other, and the record of what came out."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ggufbench.analysis.metrics import METRICS, Summary, summarize
from ggufbench.analysis.native_log import LoadLog, offload_problem, parse_load_log
from ggufbench.analysis.targets import evaluate_targets
from ggufbench.discovery.model import Model
from ggufbench.discovery.names import portable_path
from ggufbench.launcher import Ended, Event, Interpreter, compute_variables, launch
from ggufbench.plan import Case
from ggufbench.records.samples import metric_samples
from ggufbench.records.schema import (
    Device,
    Effective,
    Launch,
    Machine,
    MemoryMark,
    ModelIdentity,
    Outcome,
    ProviderFacts,
    Record,
    Sample,
    SourceState,
)

Observer = Callable[["Moment | None"], None]
"""Told when a phase begins; None when a case has ended."""

SEED = 1
"""Of the random tokens: the same in every run, because they decide which experts of a mixture are used."""

_SLOWEST_LOAD_BYTES_PER_SECOND = 20e6
_PATIENCE = 30
"""A phase may take this many times its estimate before it counts as hung, and a minute beside."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a measurement is: what a line of progress needs."""

    case: Case
    launch: int
    """Counted from 1, of `case.scenario.workload.launches`."""
    phase: str
    pid: int


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that is the same for all cases of a run."""

    run_id: str
    machine: Machine
    source: SourceState
    interpreter: Interpreter = field(default_factory=Interpreter)
    deadline_scale: float = 1.0
    observer: Observer = lambda _moment: None


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that each step of a case may take: generous, and scaled to the file and the work."""

    case: Case
    scale: float = 1.0

    def __call__(self, phase: str) -> float:
        """The deadline of the next event in this phase."""
        reading = self.case.model.file_size_bytes / _SLOWEST_LOAD_BYTES_PER_SECOND
        computing = _PATIENCE * self.case.estimate.seconds
        extra = {
            "load": reading,
            "first_decode": reading,
            "prompt": computing,
            "decode": computing,
            "digest": computing,
        }
        return self.scale * (60 + extra.get(phase, 0.0))


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while a case was measured; carries the record of what was measured by then."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record


def measure_case(case: Case, bench: Bench) -> Record:
    """Run every launch of a case. A launch that was not measured is the last one: the next would end alike.

    Raises Interrupted, with the record of what was measured until then.
    """
    progress = _Progress()
    wanted = case.scenario.workload.launches
    while len(progress.launches) < wanted and not _has_failed(progress.launches):
        ended, interrupted = _launch(case, bench, len(progress.launches) + 1)
        progress.library = progress.library or ended.find("imported") or {}
        progress.launches.append(_to_launch(case, ended, keep_log=not progress.launches))
        if interrupted:
            raise Interrupted(_record(case, bench, progress))
    return _record(case, bench, progress)


@contextmanager
def one_at_a_time(on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the machine: of several runs started by one user, only one measures at a time.

    `on_wait` is called once where another run holds it. A run that dies lets go.
    """
    from filelock import FileLock, Timeout

    user = os.getuid() if hasattr(os, "getuid") else "user"
    lock = FileLock(Path(tempfile.gettempdir()) / f"ggufbench-{user}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def skipped_record(case: Case, bench: Bench, reason: str) -> Record:
    """The record of a case that was not run."""
    record = _record(case, bench, _Progress())
    return record.model_copy(update={"outcome": Outcome.SKIPPED, "reason": reason})


def _launch(case: Case, bench: Bench, number: int) -> tuple[Ended, bool]:
    """One launch, and whether Ctrl-C ended it."""
    seen: list[Event] = []
    started = time.monotonic()

    def on_event(event: Event, pid: int) -> str | None:
        seen.append(event)
        if event["event"] == "phase":
            bench.observer(Moment(case, number, event["phase"], pid))
        return _refuse(case, event) if event["event"] == "loaded" else None

    try:
        ended = launch(
            case.job(SEED).to_json(),
            Deadlines(case, bench.deadline_scale),
            interpreter=bench.interpreter,
            env=_worker_variables(case),
            on_event=on_event,
        )
    except KeyboardInterrupt:
        phase = next((event["phase"] for event in reversed(seen) if event["event"] == "phase"), "start")
        reason, elapsed = f"interrupted by Ctrl-C in {phase}", time.monotonic() - started
        return Ended(Outcome.FAILED, seen, elapsed, phase, reason), True
    return ended, False


def _refuse(case: Case, loaded: Event) -> str | None:
    """A GPU run that is none ends before hours are spent on it."""
    log = _load_log(loaded)
    return offload_problem(log, case.setting.device, case.setting.n_gpu_layers, loaded["device_bytes"])


def _worker_variables(case: Case) -> dict[str, str]:
    """Where every core has a thread, waiting threads give way: a neighbour then costs its share, not all."""
    every_core = case.setting.n_threads >= (os.cpu_count() or 1)
    return {"OMP_WAIT_POLICY": "passive"} if every_core and "OMP_WAIT_POLICY" not in os.environ else {}


def _has_failed(launches: list[Launch]) -> bool:
    return any(launch.outcome is not Outcome.MEASURED for launch in launches)


def _to_launch(case: Case, ended: Ended, *, keep_log: bool) -> Launch:
    imported, loaded = ended.find("imported") or {}, ended.find("loaded") or {}
    log = _load_log(loaded)
    measured = ended.outcome is Outcome.MEASURED
    return Launch(
        outcome=ended.outcome,
        phase=ended.phase,
        reason=ended.reason,
        signal=ended.signal,
        wall_seconds=ended.wall_seconds,
        import_seconds=imported.get("seconds"),
        model_seconds=loaded.get("model_seconds"),
        context_seconds=loaded.get("context_seconds"),
        effective=_effective(loaded, log) if loaded else None,
        samples=[_sample(event) for event in ended.events if event["event"] == "sample"],
        marks=_marks(ended.events),
        device_bytes=log.device_bytes,
        digest=(ended.find("digest") or {}).get("digest"),
        log=_kept_lines(loaded, case.model) if keep_log or not measured else [],
        stderr="" if measured else ended.stderr,
    )


def _effective(loaded: Event, log: LoadLog) -> Effective:
    values = dict(loaded["effective"])
    return Effective(
        description=values.pop("model"),
        devices=list(loaded["device_bytes"]),
        layers=log.layers,
        buffers=log.buffers,
        load_mode=log.load_mode,
        flash_attn=log.flash_attn,
        type_k=log.type_k,
        type_v=log.type_v,
        **values,
    )


def _sample(event: Event) -> Sample:
    kept = ("phase", "warmup", "tokens", "seconds", "token_seconds", "evidence")
    return Sample(**{name: event[name] for name in kept})


def _marks(events: list[Event]) -> list[MemoryMark]:
    """The last mark of each phase: within one, allocations only grow."""
    last: dict[str, MemoryMark] = {}
    names = {"imported": "import", "loaded": "load"}
    for event in events:
        if "memory" in event:
            after = names.get(event["event"]) or event["phase"]
            free = event.get("device_free_bytes", {})
            last[after] = MemoryMark(after=after, figures=event["memory"], device_free_bytes=free)
    return list(last.values())


def _load_log(loaded: Event) -> LoadLog:
    return parse_load_log(text for _, text in loaded.get("log", []))


def _kept_lines(loaded: Event, model: Model) -> list[str]:
    """The log without its list of tensors and of vocabulary entries, which the file itself holds.

    The model's folder is written as in the rest of the record, so that a record can be shown to others.
    """
    noise = ("create_tensor: loading tensor", "llama_model_loader: - tensor", "load: control token:")
    folder, shown = str(model.path.parent), portable_path(model.path.parent)
    lines = (text for _, text in loaded.get("log", []) if not text.startswith(noise))
    return [line.replace(folder, shown) for line in lines]


@dataclass(slots=True)
class _Progress:
    """A case while it is measured."""

    launches: list[Launch] = field(default_factory=list)
    library: Event = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)


def _record(case: Case, bench: Bench, progress: _Progress) -> Record:
    launches, library = progress.launches, progress.library
    summary = _summarize(launches, case.model.file_size_bytes)
    failed = next((launch for launch in launches if launch.outcome is not Outcome.MEASURED), None)
    return Record(
        run_id=bench.run_id,
        case_id=case.id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_seconds=time.monotonic() - progress.started,
        outcome=failed.outcome if failed else Outcome.MEASURED,
        phase=failed.phase if failed else None,
        reason=failed.reason if failed else None,
        model=identify(case.model),
        scenario=case.scenario.name,
        setting=case.setting,
        workload=case.workload,
        seed=SEED,
        provider=ProviderFacts(
            name=case.scenario.provider,
            versions=library.get("versions", {}),
            system_info=library.get("system_info", ""),
            devices=[Device(**device) for device in library.get("devices", [])],
            environment={**compute_variables(os.environ), **_worker_variables(case)},
        ),
        machine=bench.machine,
        source=bench.source,
        launches=launches,
        summary=summary,
        targets=evaluate_targets(case.scenario.targets, case.model.file_size_bytes, summary),
    )


def _summarize(launches: list[Launch], file_size_bytes: int) -> dict[str, Summary]:
    samples = [metric_samples(launch, file_size_bytes) for launch in launches]
    summaries = {name: summarize(name, [launch[name] for launch in samples]) for name in METRICS}
    return {name: summary for name, summary in summaries.items() if summary is not None}


def identify(model: Model) -> ModelIdentity:
    """What a record keeps of a model."""
    kept = ModelIdentity.model_fields
    values = {name: getattr(model, name) for name in kept if name != "path"}
    return ModelIdentity(path=portable_path(model.path), **values)
