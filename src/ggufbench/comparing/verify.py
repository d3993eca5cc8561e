"""Verification of the engine provider against llama-bench, for `ggufbench verify`.

Both are arms of a side-by-side comparison, llama-bench as the baseline, with a fixed number of pairs and the
same work. An equivalence test on the ratio of their rates decides whether they agree.
"""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ggufbench.comparing.arms import ArmSpec, PreparedArm
from ggufbench.comparing.conclusion import environment_sentence
from ggufbench.comparing.llama_bench import LlamaBenchArm, bench_arguments, build_problem, check_executable
from ggufbench.comparing.side_by_side import (
    BenchSession,
    ComparedCase,
    Ongoing,
    SessionStep,
    measure_side_by_side,
)
from ggufbench.exit_codes import ExitCode
from ggufbench.launching.launcher import Interpreter
from ggufbench.machine.facts import read_machine, source_state
from ggufbench.measuring.case import Bench
from ggufbench.measuring.machine_lock import one_at_a_time
from ggufbench.measuring.preparation import Request, find_models, plan_cases, probe_for, read_scenarios
from ggufbench.planning.plan import Case
from ggufbench.planning.scenario import GateSpec, Scenario
from ggufbench.records.comparison import Block, Role
from ggufbench.records.schema import ProviderFacts
from ggufbench.records.store import new_run_id
from ggufbench.stats.equivalence import Equivalence, equivalence
from ggufbench.stats.sequential_test import Design
from ggufbench.thresholds import Tolerance

PROMPT, DECODE = "prompt_tokens_per_second", "decode_tokens_per_second"

_SEEDS = 2**32
_LEAST_CONTEXT = 64
"""Context for the warm-ups and the digest of a launch; llama.cpp uses at least 256."""
_ANY_DISTURBANCE = Tolerance(most_waiting=1, most_other_work=1, most_stolen=1, most_disk_reads=2**31 - 1)


@dataclass(frozen=True, slots=True)
class Work:
    """Work of both programs in each launch."""

    prompt_tokens: int = 512
    generated_tokens: int = 64
    depth: int = 0
    repetitions: int = 3

    def names(self) -> dict[str, str]:
        """Names that llama-bench uses for the metrics of a launch."""
        depth = f" @ d{self.depth}" if self.depth else ""
        return {PROMPT: f"pp{self.prompt_tokens}{depth}", DECODE: f"tg{self.generated_tokens}{depth}"}


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """Request for a verification."""

    request: Request
    llama_bench: Path
    work: Work
    pairs: int = 10
    tolerance: float = 0.02
    """Largest distance of the ratio from 1 that counts as agreement."""
    seed: int | None = None
    """Random seed of the arm order; generated if None."""
    on_step: Callable[[SessionStep], None] = lambda _step: None
    tell: Callable[[str], None] = lambda _sentence: None
    """Called before slow steps of the preparation."""
    on_wait: Callable[[str], None] = lambda _sentence: None
    """Called with a sentence that names the run that holds the lock of the machine."""


@dataclass(frozen=True, slots=True)
class VerifiedTest:
    """One test measured by both programs; rates in tokens per second."""

    test: str
    """Named as llama-bench does: `pp512`, `tg64`, `tg64 @ d1024`."""
    ours: list[float]
    """Best sample of each launch, pair by pair."""
    theirs: list[float]
    ours_median: float
    theirs_median: float
    equivalence: Equivalence
    """Result of the test on the ratio ours / theirs."""


@dataclass(frozen=True, slots=True)
class VerifiedCase:
    """One model under one scenario."""

    case: Case
    arguments: Sequence[str]
    """Command line of llama-bench, without the program."""
    providers: Mapping[Role, ProviderFacts]
    blocks: Sequence[Block]
    tests: list[VerifiedTest]
    """Empty if no pair counted."""
    loop_overhead_seconds: float | None
    """Time of the worker's own loop for each token: median of the launches."""
    loop_overhead_share: float | None
    """The same, relative to the time of a token."""
    warnings: list[str]
    mostly_disturbed: bool
    """True if more blocks had interference than counted, which makes every test inconclusive."""
    broken: bool
    """True if a launch failed."""
    reason: str | None
    """Reason why it ended early; None if all pairs were measured."""


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of a verification, complete or not."""

    cases: list[VerifiedCase]
    skipped: list[tuple[str, str]]
    """Cases that cannot run here, with the reason."""
    llama_bench: Path
    seed: int
    pairs: int
    tolerance: float
    interrupted: bool

    @property
    def tests(self) -> list[VerifiedTest]:
        """Tests of all cases."""
        return [test for case in self.cases for test in case.tests]

    def exit_code(self, *, strict: bool) -> ExitCode:
        """Exit code: broken launches take precedence over differences, these over inconclusive tests."""
        verdicts = {test.equivalence.verdict for test in self.tests}
        if self.interrupted:
            return ExitCode.INTERRUPTED
        if any(case.broken for case in self.cases):
            return ExitCode.BROKEN
        if not verdicts:
            return ExitCode.NOTHING_MEASURED
        if "differs" in verdicts:
            return ExitCode.REGRESSION
        return ExitCode.INCONCLUSIVE if strict and "inconclusive" in verdicts else ExitCode.PASS


def verify(question: VerifyRequest) -> Verification:
    """Plan the same work for both programs and measure it in pairs.

    Raises GgufbenchError for a request that cannot be carried out, and for a llama-bench that cannot be used
    or fails before its first result.
    """
    program, request = check_executable(question.llama_bench, "llama-bench"), question.request
    scenarios = [with_work(scenario, question.work) for scenario in read_scenarios(request)]
    _, models = find_models(request, question.tell)
    environments = probe_for(scenarios, Interpreter())
    cases = plan_cases(models, scenarios, environments, {})
    runnable = [case for case in cases if case.skip is None]
    arguments = {case.id: bench_arguments(case, environments[case.setting.rpc_servers]) for case in runnable}
    session = BenchSession(
        arms={
            "baseline": LlamaBenchArm(program, arguments),
            "candidate": PreparedArm(ArmSpec(".", "current"), Interpreter()),
        },
        bench=Bench(new_run_id(), read_machine(environments[""].gpu_names()), source_state(Path.cwd())),
        seed=secrets.randbelow(_SEEDS) if question.seed is None else question.seed,
        design=Design((question.pairs,), (1.0,), (1.0,)),
        on_step=question.on_step,
    )
    entries = [ComparedCase(case.id, {"baseline": case, "candidate": case}) for case in runnable]
    started, budget = time.monotonic(), request.time_budget_seconds
    with one_at_a_time(question.on_wait, budget):
        left = None if budget is None else budget - (time.monotonic() - started)
        ongoing, interrupted = measure_side_by_side(entries, replace(session, time_budget_seconds=left))
    return Verification(
        cases=[_conclude(one, arguments[one.entry.id], question) for one in ongoing],
        skipped=[(case.id, case.skip) for case in cases if case.skip is not None],
        llama_bench=program,
        seed=session.seed,
        pairs=question.pairs,
        tolerance=question.tolerance,
        interrupted=interrupted,
    )


def with_work(scenario: Scenario, work: Work) -> Scenario:
    """Copy of the scenario with this work, one launch, and a context that just fits the work.

    llama-bench makes its context as large as a test needs, so both read a cache of the same size.
    Interference with the samples of llama-bench is unknown, so the samples of the worker are not judged
    either: excluding or repeating samples of only one program would make it look faster.
    """
    needed = work.depth + max(work.prompt_tokens, work.generated_tokens, _LEAST_CONTEXT)
    asked = {**asdict(work), "launches": 1, "cold_launches": 0}
    return scenario.model_copy(
        update={
            "setting": scenario.setting.model_copy(update={"n_ctx": needed}),
            "workload": scenario.workload.model_copy(update=asked),
            "gate": GateSpec(metrics=[PROMPT, DECODE]),
            "tolerance": _ANY_DISTURBANCE,
        }
    )


def _conclude(one: Ongoing, arguments: Sequence[str], question: VerifyRequest) -> VerifiedCase:
    asked = question.work.names().items()
    tests = [test for metric, name in asked if (test := _test(one, metric, name, question.tolerance))]
    found = [block.launches["candidate"].loop_overhead_seconds for block in one.counted]
    overheads = [seconds for seconds in found if seconds is not None]
    overhead = statistics.median(overheads) if overheads else None
    return VerifiedCase(
        case=one.entry.cases["candidate"],
        arguments=arguments,
        providers=one.providers,
        blocks=one.blocks,
        tests=tests,
        loop_overhead_seconds=overhead,
        loop_overhead_share=overhead * tests[-1].ours_median if overhead is not None and tests else None,
        warnings=_warnings(one),
        mostly_disturbed=one.mostly_disturbed,
        broken=one.override is not None,
        reason=one.override[1] if one.override is not None else one.note,
    )


def _test(one: Ongoing, metric: str, name: str, tolerance: float) -> VerifiedTest | None:
    pairs = one.pairs(metric)
    if not pairs.log_ratios:
        return None
    # The ratio is ours / theirs; log ratios of pairs are positive if ours is slower.
    found = equivalence([-value for value in pairs.log_ratios], tolerance)
    return VerifiedTest(
        test=name,
        ours=pairs.candidate,
        theirs=pairs.reference,
        ours_median=statistics.median(pairs.candidate),
        theirs_median=statistics.median(pairs.reference),
        equivalence=replace(found, verdict="inconclusive") if one.mostly_disturbed else found,
    )


def _warnings(one: Ongoing) -> list[str]:
    found = [environment_sentence(one)] if one.disturbed else []
    if len(one.providers) == 2:
        ours, theirs = (
            one.providers[role].versions.get("llama.cpp", "") for role in ("candidate", "baseline")
        )
        problem = build_problem(ours, theirs)
        found += [problem] if problem else []
    return found
