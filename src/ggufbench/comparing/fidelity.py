"""Does the engine provider measure what llama-bench measures: both run in pairs, on the same file.

Both sides get the same setting, the same environment and a fresh process for each run. A coin decides for
each pair which goes first, so that neither drift nor an order effect can pass for a difference.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from ggufbench.comparing.llama_bench import LlamaBenchError, LlamaBenchRun, bench_arguments, run_llama_bench
from ggufbench.launching.launcher import worker_environment
from ggufbench.machine.devices import AvailableDevices
from ggufbench.machine.facts import available_memory_bytes
from ggufbench.measuring.case import Bench, CaseTimeouts, measure_case
from ggufbench.outcomes import Outcome
from ggufbench.planning.plan import Case, Host, make_plan
from ggufbench.planning.scenario import Scenario
from ggufbench.records.schema import Launch, Record, Sample
from ggufbench.stats.agreement import Agreement, agreement, build_problem
from ggufbench.text import duration

Side = Literal["ggufbench", "llama-bench"]
OURS: Side = "ggufbench"
THEIRS: Side = "llama-bench"

Ended = Literal["complete", "interrupted", "broken", "refused"]
"""`refused`: llama-bench never answered; `broken`: a side failed after that, or ours before."""

_LEAST_CONTEXT = 64
"""Room for a launch's warm-ups and its digest; llama.cpp makes it 256 anyway."""
_MEASURED = (Outcome.MEASURED, Outcome.ENVIRONMENT)


@dataclass(frozen=True, slots=True)
class Work:
    """What both sides are asked to do in each run."""

    prompt_tokens: int = 512
    generated_tokens: int = 64
    depth: int = 0
    repetitions: int = 3

    def names(self) -> dict[str, str]:
        """The phases of a launch, with the names that llama-bench has for them."""
        depth = f" @ d{self.depth}" if self.depth else ""
        return {"prompt": f"pp{self.prompt_tokens}{depth}", "decode": f"tg{self.generated_tokens}{depth}"}


@dataclass(frozen=True, slots=True)
class Step:
    """Where a comparison is: what a line of progress needs."""

    case: Case
    pair: int
    """Counted from 1; 0 is the warm pair, which does not count."""
    pairs: int
    side: Side
    seconds_left: float

    @property
    def sentence(self) -> str:
        """The line of progress."""
        where = f"pair {self.pair} of {self.pairs}" if self.pair else "warm pair"
        return f"{self.case.id}: {where}, {self.side}, about {duration(self.seconds_left)} left"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is the same for all models."""

    program: Path
    """llama-bench."""
    bench: Bench
    environments: Mapping[str, AvailableDevices]
    """The probed library, by the RPC servers it was asked to use."""
    pairs: int
    tolerance: float
    """How far from 1 a median ratio may be."""
    seed: int
    """Of the coin."""
    on_step: Callable[[Step], None] = lambda _step: None


@dataclass(frozen=True, slots=True)
class Pair:
    """One run of each side."""

    first: Side
    launch: Launch
    llama_bench: LlamaBenchRun


@dataclass(slots=True)
class Comparison:
    """One model under one scenario."""

    case: Case
    arguments: list[str]
    """What llama-bench was given."""
    warm_pair: Pair | None = None
    pairs: list[Pair] = field(default_factory=list)
    tests: list[Agreement] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    """The variables of both sides' processes that change how the library computes."""
    loop_overhead_seconds: float | None = None
    """Of our worker's loop, for each token: the median of the launches."""
    loop_overhead_share: float | None = None
    """Of the time of a token."""
    warnings: list[str] = field(default_factory=list)
    ended: Ended = "complete"
    reason: str | None = None


class _SideFailedError(Exception):
    """Our side measured nothing; the message says why."""


def plan_comparisons(
    cases: Sequence[Case], work: Work, environments: Mapping[str, AvailableDevices]
) -> list[Case]:
    """The cases with this work in place of their own, one launch each, and a context that just holds it.

    llama-bench makes its context as large as a test needs, so both read a cache of the same size.
    """
    host = Host(environments, available_memory_bytes(), {})
    models = {case.model.path: case.model for case in cases}
    scenarios = {case.scenario.name: _with_work(case.scenario, work) for case in cases}
    return make_plan(list(models.values()), list(scenarios.values()), host)


def compare(cases: Sequence[Case], plan: Plan) -> list[Comparison]:
    """Measure each case with both sides. Ctrl-C ends it; what was measured by then is returned.

    A case that breaks does not end the others, but a llama-bench that never answered does. Raises
    LlamaBenchError, before anything runs, where llama-bench cannot be given one of the settings.
    """
    comparisons = [
        Comparison(case, bench_arguments(case, plan.environments[case.setting.rpc_servers])) for case in cases
    ]
    coin = random.Random(plan.seed)  # noqa: S311 (an order that can be drawn again, no secret)
    started: list[Comparison] = []
    for comparison in comparisons:
        later = [other.case for other in comparisons[len(started) + 1 :]]
        started.append(comparison)
        _compare(comparison, plan, coin, _Clock(comparison.case, later, plan.pairs))
        if comparison.ended == "refused" and any(other.warm_pair for other in started):
            comparison.ended = "broken"
        if comparison.ended in ("interrupted", "refused"):
            break
    return started


def _compare(comparison: Comparison, plan: Plan, coin: random.Random, clock: _Clock) -> None:
    try:
        comparison.warm_pair = _run_pair(comparison, plan, 0, OURS, clock)
        for number in range(1, plan.pairs + 1):
            first = OURS if coin.random() < 0.5 else THEIRS
            comparison.pairs.append(_run_pair(comparison, plan, number, first, clock))
    except KeyboardInterrupt:
        comparison.ended, comparison.reason = "interrupted", "interrupted by Ctrl-C"
    except LlamaBenchError as error:
        never_answered = comparison.warm_pair is None
        comparison.ended, comparison.reason = "refused" if never_answered else "broken", str(error)
    except _SideFailedError as error:
        comparison.ended, comparison.reason = "broken", str(error)
    _conclude(comparison, plan.tolerance)


def _run_pair(comparison: Comparison, plan: Plan, number: int, first: Side, clock: _Clock) -> Pair:
    sides = (OURS, THEIRS) if first == OURS else (THEIRS, OURS)
    launch: Launch | None = None
    run: LlamaBenchRun | None = None
    with clock:
        for side in sides:
            plan.on_step(Step(comparison.case, number, plan.pairs, side, clock.seconds_left()))
            if side == OURS:
                launch = _run_ours(comparison, plan.bench)
            else:
                run = _run_theirs(comparison, plan)
    assert launch is not None and run is not None  # noqa: S101 (each side is in `sides`)
    return Pair(first, launch, run)


def _run_ours(comparison: Comparison, bench: Bench) -> Launch:
    record = measure_case(comparison.case, bench)
    if record.outcome not in _MEASURED:
        raise _SideFailedError(f"our side {record.outcome}: {record.reason}")
    comparison.versions = record.provider.versions
    comparison.environment = record.provider.environment
    _warn_of_disturbance(comparison, record)
    return next(launch for launch in record.launches if not launch.load_only)


def _run_theirs(comparison: Comparison, plan: Plan) -> LlamaBenchRun:
    """With the environment of our side, whose first run has always been before."""
    deadlines = CaseTimeouts(comparison.case, plan.bench.deadline_scale)
    return run_llama_bench(
        plan.program,
        comparison.arguments,
        comparison.case.workload,
        worker_environment(comparison.environment),
        sum(deadlines(phase) for phase in ("load", "prompt", "decode")),
    )


def _warn_of_disturbance(comparison: Comparison, record: Record) -> None:
    if record.outcome is Outcome.ENVIRONMENT and record.reason not in comparison.warnings:
        comparison.warnings.append(str(record.reason))


def _conclude(comparison: Comparison, tolerance: float) -> None:
    pairs, workload = comparison.pairs, comparison.case.workload
    if comparison.warm_pair is not None:
        problem = build_problem(
            comparison.versions.get("llama.cpp", ""), comparison.warm_pair.llama_bench.build_commit
        )
        comparison.warnings += [problem] if problem else []
    if not pairs:
        return
    names = Work(workload.prompt_tokens, workload.generated_tokens, workload.depth).names()
    theirs = {
        "prompt": [workload.prompt_tokens / min(pair.llama_bench.prompt_seconds) for pair in pairs],
        "decode": [workload.generated_tokens / min(pair.llama_bench.decode_seconds) for pair in pairs],
    }
    for phase, name in names.items():
        ours = [best_rate(pair.launch.samples, phase) for pair in pairs]
        comparison.tests.append(agreement(name, ours, theirs[phase], tolerance))
    _conclude_overhead(comparison)


def _conclude_overhead(comparison: Comparison) -> None:
    found = [pair.launch.loop_overhead_seconds for pair in comparison.pairs]
    overheads = [seconds for seconds in found if seconds is not None]
    if overheads:
        decode = comparison.tests[-1]
        comparison.loop_overhead_seconds = statistics.median(overheads)
        comparison.loop_overhead_share = comparison.loop_overhead_seconds * decode.ours_median


def best_rate(samples: Sequence[Sample], phase: str) -> float:
    """Tokens per second of a launch's fastest sample of a phase: delays only ever add.

    Disturbed samples are left out, where there are others. Raises ValueError where there is no sample.
    """
    timed = [sample for sample in samples if sample.phase == phase and not sample.warmup]
    clean = [sample for sample in timed if not sample.disturbed] or timed
    return max(sample.tokens / sample.seconds for sample in clean)


class _Clock:
    """How long the rest will take, from the pairs so far; before there is one, from the estimates."""

    def __init__(self, case: Case, later: Sequence[Case], pairs: int) -> None:
        self._estimate = 2 * case.estimate.seconds
        self._later = sum(2 * other.estimate.seconds for other in later) * (pairs + 1)
        self._left = pairs + 1
        self._taken: list[float] = []
        self._started = time.monotonic()

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._taken.append(time.monotonic() - self._started)
        self._left -= 1

    def seconds_left(self) -> float:
        """Of this case and the later ones."""
        usual = statistics.mean(self._taken) if self._taken else self._estimate
        elapsed = time.monotonic() - self._started
        # The estimates are wrong by one factor, for one machine, which the pairs so far show.
        factor = usual / self._estimate if self._estimate else 1.0
        return max(0.0, self._left * usual - elapsed) + factor * self._later


def _with_work(scenario: Scenario, work: Work) -> Scenario:
    needed = work.depth + max(work.prompt_tokens, work.generated_tokens, _LEAST_CONTEXT)
    asked = {**asdict(work), "launches": 1, "cold_launches": 0}
    return scenario.model_copy(
        update={
            "setting": scenario.setting.model_copy(update={"n_ctx": needed}),
            "workload": scenario.workload.model_copy(update=asked),
        }
    )
