"""Measure a case: run its launches one after the other and build the record."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from ggufbench.calibration.probe import PYTORCH_IMPORT_SECONDS, probe
from ggufbench.checks.interference import Judge, is_environment
from ggufbench.checks.roofline import Rates, evaluate_limits, measuring_error
from ggufbench.checks.targets import evaluate_targets
from ggufbench.launching.launcher import Interpreter, compute_variables
from ggufbench.machine.parts import BusyProcess, Device, Machine, SourceState
from ggufbench.measuring.record_builder import (
    build_launch,
    describe_environment,
    describe_reference,
    identify,
)
from ggufbench.measuring.supervisor import SEED, LaunchSupervisor, Observer
from ggufbench.outcomes import Outcome
from ggufbench.planning.plan import Case
from ggufbench.processes import cause
from ggufbench.quality.conversation import Conversation, ScoringError
from ggufbench.quality.corpus import CorpusError, corpus_for
from ggufbench.quality.reference import ReferenceRows
from ggufbench.records.parts import CacheState, LimitResult
from ggufbench.records.samples import summaries
from ggufbench.records.schema import Environment, Launch, ProviderFacts, Record
from ggufbench.worker.protocol import Imported

_SLOWEST_LOAD_BYTES_PER_SECOND = 20e6
_SLOWEST_PARAMETERS_PER_SECOND = 5e6
_PATIENCE = 30
"""Multiple of its estimate, plus a minute, that a phase may take before it counts as hung."""
_LOADING = ("load", "first_decode")


@dataclass(frozen=True, slots=True)
class Bench:
    """Settings that all cases of a run share."""

    run_id: str
    machine: Machine
    source: SourceState
    interpreter: Interpreter = field(default_factory=Interpreter)
    deadline_scale: float = 1.0
    limits: Rates | None = None
    """Upper limits of this machine; if None, results are not compared with them."""
    observer: Observer = lambda _launch: None


@dataclass(frozen=True, slots=True)
class CaseTimeouts:
    """Timeouts of the steps of a case: generous, and scaled to the file and the work."""

    case: Case
    scale: float = 1.0

    def __call__(self, phase: str) -> float:
        """Timeout of the next event in this phase."""
        reading = _slowest_load_seconds(self.case)
        computing = _PATIENCE * self.case.estimate.seconds
        extra = {
            "import": PYTORCH_IMPORT_SECONDS if self.case.scenario.is_baseline else 0.0,
            "load": reading,
            "first_decode": reading,
            "prompt": computing,
            "encode": computing,
            "decode": computing,
            "digest": computing,
            "score": computing,
        }
        return self.scale * (60 + extra.get(phase, 0.0))


def _slowest_load_seconds(case: Case) -> float:
    """Longest time of a load that is not hung; transformers unpacks every matrix, on one core."""
    if case.scenario.is_baseline:
        return case.model.parameters / _SLOWEST_PARAMETERS_PER_SECOND
    return case.model.file_size_bytes / _SLOWEST_LOAD_BYTES_PER_SECOND


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP while a case was measured; holds the record of what was measured by then."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record


def measure_case(case: Case, bench: Bench) -> Record:
    """Run every launch of a case. Stops after the first failed launch: later ones would fail the same way.

    Cold loads come first, then the launches that measure everything; loads with interference are repeated.
    Raises Interrupted, with the record of what was measured until then.
    """
    started = time.monotonic()
    launches: list[Launch] = []
    supervisors: list[LaunchSupervisor] = []
    planned = _scored(case, bench) if case.reference else _timed(case, bench, launches, supervisors)
    try:
        for supervisor in planned:
            supervisor.run(CaseTimeouts(case, bench.deadline_scale), bench.interpreter)
            supervisors.append(supervisor)
            launches.append(build_launch(supervisor, keep_log=not any(launch.log for launch in launches)))
            if supervisor.interrupt is not None:
                raise supervisor.interrupt
            if launches[-1].outcome is not Outcome.MEASURED:
                break
    except (CorpusError, ScoringError) as error:
        return _ended(_record(case, bench, launches, supervisors, started), Outcome.FAILED, str(error))
    except KeyboardInterrupt as interrupt:
        record = _record(case, bench, launches, supervisors, started)
        if not launches:
            reason = f"interrupted by {cause(interrupt)} while its reference was scored"
            record = _ended(record, Outcome.FAILED, reason)
        raise Interrupted(record) from None
    record = _record(case, bench, launches, supervisors, started)
    refused = supervisors[-1].scoring.refused if supervisors and supervisors[-1].scoring else None
    return record if refused is None else _ended(record, Outcome.SKIPPED, refused)


def _timed(
    case: Case, bench: Bench, launches: Sequence[Launch], supervisors: Sequence[LaunchSupervisor]
) -> Iterator[LaunchSupervisor]:
    """The launches of a case that is timed; both sequences are those so far."""
    for asked, load_only in _launches(case, launches):
        yield _supervisor(case, bench, asked, load_only, supervisors)


def _scored(case: Case, bench: Bench) -> Iterator[LaunchSupervisor]:
    """The launches of a case whose answers are compared: one, or one for each group of chunks.

    Before each, a launch of the reference writes its distributions, unless the cache has them. Raises
    ScoringError if it cannot, and KeyboardInterrupt if it was interrupted.
    """
    reference = case.reference
    assert reference is not None  # noqa: S101 (the caller's condition)
    library = probe(bench.interpreter, case.setting.rpc_servers)
    variables = compute_variables(os.environ)
    rows = ReferenceRows(
        corpus_for(case.scenario.text),
        case.workload.prompt_tokens,
        reference.model.identity,
        reference.setting,
        [*map(str, library.versions.items()), library.system_info, *map(str, sorted(variables.items()))],
    )
    cached = rows.is_complete
    try:
        while True:
            if not cached:
                _write_reference(reference, rows, bench)
            supervisor = _supervisor(case, bench, "warm")
            supervisor.scoring = Conversation(rows.compare)
            yield supervisor
            if rows.is_complete:
                return
    finally:
        rows.release()


def _write_reference(reference: Case, rows: ReferenceRows, bench: Bench) -> None:
    supervisor = _supervisor(reference, bench, "warm")
    supervisor.scoring = conversation = Conversation(rows.write)
    supervisor.run(CaseTimeouts(reference, bench.deadline_scale), bench.interpreter)
    if supervisor.interrupt is not None:
        raise supervisor.interrupt
    if not conversation.results:
        how = supervisor.ended.reason or "it ended early"
        raise ScoringError(f"the reference, {reference.model.label}, could not be scored: {how}")


@dataclass(frozen=True, slots=True)
class MeasuredLaunch:
    """A single launch, with the observations made during it."""

    launch: Launch
    provider: ProviderFacts
    processes: list[BusyProcess]
    """The busiest other processes when a sample first had interference."""


def measure_launch(case: Case, bench: Bench, variables: Mapping[str, str]) -> MeasuredLaunch:
    """Run one warm launch of a case, for a comparison. Raises KeyboardInterrupt if Ctrl-C ended it.

    `variables` are added to the worker's environment.
    """
    supervisor = _supervisor(case, bench, "warm")
    supervisor.run(CaseTimeouts(case, bench.deadline_scale), bench.interpreter, variables)
    if supervisor.interrupt is not None:
        raise supervisor.interrupt
    return MeasuredLaunch(
        build_launch(supervisor, keep_log=True),
        _provider_facts(case, supervisor.imported),
        supervisor.processes or [],
    )


def skipped_record(case: Case, bench: Bench, reason: str) -> Record:
    """The record of a case that was not run."""
    return _ended(_record(case, bench, [], [], time.monotonic()), Outcome.SKIPPED, reason)


def _ended(record: Record, outcome: Outcome, reason: str) -> Record:
    return record.model_copy(update={"outcome": outcome, "reason": reason})


def _launches(case: Case, launches: Sequence[Launch]) -> Iterator[tuple[CacheState, bool]]:
    """Required page cache state of each launch, and whether it only loads; `launches` are those so far."""
    workload = case.scenario.workload
    wanted: tuple[tuple[CacheState, int, bool], ...] = (
        ("cold", workload.cold_launches, True),
        ("warm", workload.launches, False),
    )
    for state, count, load_only in wanted:
        for _ in range(count):
            yield state, load_only
        for _ in range(count):
            if not _lacks(launches, state, count):
                break
            yield state, True


def _lacks(launches: Sequence[Launch], state: CacheState, wanted: int) -> bool:
    """True if interference left fewer valid loads of that state than wanted.

    Loads that did not reach the requested state do not count: the next one would be the same.
    """
    asked = [found for found in launches if found.page_cache and found.page_cache.asked == state]
    loads = [found for found in asked if found.page_cache and found.page_cache.state == state]
    clean = [found for found in loads if not any(s.disturbed for s in found.samples if s.phase in _LOADING)]
    return bool(loads) and len(clean) < wanted


def _supervisor(
    case: Case,
    bench: Bench,
    asked: CacheState,
    load_only: bool = False,
    earlier: Sequence[LaunchSupervisor] = (),
) -> LaunchSupervisor:
    """The supervisor of a case's next launch."""
    judge = Judge(
        case.setting.device, case.setting.n_threads, bench.machine.logical_cores, case.scenario.tolerance
    )
    return LaunchSupervisor(
        case,
        judge,
        bench.observer,
        number=len(earlier) + 1,
        asked=asked,
        load_only=load_only,
        disturbed=earlier[-1].disturbed if earlier else 0,
        processes=earlier[-1].processes if earlier else None,
    )


def _record(
    case: Case,
    bench: Bench,
    launches: list[Launch],
    supervisors: Sequence[LaunchSupervisor],
    started: float,
) -> Record:
    failed = next((launch for launch in launches if launch.outcome is not Outcome.MEASURED), None)
    imported = next((supervisor.imported for supervisor in supervisors if supervisor.imported), None)
    processes = (supervisors[-1].processes if supervisors else None) or []
    # A scorer's loads are not timed: its context returns the logits of many tokens.
    counted = [launch for launch in launches if launch.chunks] if case.reference else launches
    summary = summaries(counted, case.loaded_bytes)
    # Other work on the machine does not change answers. Limits and targets apply to llama.cpp only: they
    # follow from the GGUF's bytes.
    environment = None if case.reference else describe_environment(launches, processes)
    is_timed = not (case.scenario.is_baseline or case.reference)
    limits: list[LimitResult] = []
    if bench.limits is not None and is_timed:
        limits = evaluate_limits(case.model, case.setting, case.workload, summary, bench.limits)
    outcome, reason = _judge(failed, limits, environment)
    return Record(
        run_id=bench.run_id,
        case_id=case.id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        wall_seconds=time.monotonic() - started,
        outcome=outcome,
        phase=failed.phase if failed else None,
        reason=reason,
        model=identify(case.model),
        scenario=case.scenario.name,
        setting=case.setting,
        workload=case.workload,
        seed=SEED,
        tolerance=case.scenario.tolerance,
        provider=_provider_facts(case, imported),
        machine=bench.machine,
        source=bench.source,
        launches=launches,
        summary=summary,
        targets=evaluate_targets(
            case.scenario.targets, case.model.file_size_bytes, summary, case.output_bytes
        )
        if is_timed
        else [],
        limits=limits,
        environment=environment,
        reference=describe_reference(case) if launches else None,
    )


def _provider_facts(case: Case, imported: Imported | None) -> ProviderFacts:
    name, environment = case.scenario.provider, compute_variables(os.environ)
    if imported is None:
        return ProviderFacts(name=name, environment=environment)
    library = imported.library
    return ProviderFacts(
        name=name,
        versions=library.versions,
        system_info=library.system_info,
        devices=[Device(**asdict(device)) for device in library.devices],
        environment=environment,
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
