"""Comparison of two environments, commits or settings, for `ggufbench ab` and for pytest."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ggufbench.comparing.arms import ArmError, ArmSpec, PreparedArm, import_path, parse_arm, prepare_arm
from ggufbench.comparing.conclusion import conclude, exit_code
from ggufbench.comparing.side_by_side import BenchSession, ComparedCase, SessionStep, measure_side_by_side
from ggufbench.exit_codes import ExitCode
from ggufbench.machine.facts import read_machine, source_state
from ggufbench.machine.parts import Machine
from ggufbench.measuring.case import Bench, CaseTimeouts
from ggufbench.measuring.machine_lock import one_at_a_time
from ggufbench.measuring.preparation import (
    Request,
    earlier_records,
    find_models,
    plan_cases,
    probe_for,
    read_scenarios,
)
from ggufbench.paths import unusable_path
from ggufbench.planning.plan import Case
from ggufbench.planning.scenario import DIVERGENCE, GateSpec, Scenario, load_scenario_file
from ggufbench.quality.answers import Side, can_check, check_answers
from ggufbench.quality.conversation import ScoringError
from ggufbench.records.comparison import AnswerCheck, Comparison, Purpose, Role
from ggufbench.records.comparisons import write_block, write_comparison
from ggufbench.records.store import StoreError, check_writable, new_run_id
from ggufbench.stats.sequential_test import Design
from ggufbench.worker.job import ENGINE, LAYERS, SCORER, SHIPPED, TRANSFORMERS

_SEEDS = 2**32
_HOW_OFTEN = {"launches": 1, "cold_launches": 0}
"""Fields of the workload that a comparison sets itself."""


@dataclass(frozen=True, slots=True)
class AbRequest:
    """The arms to compare and how to compare them."""

    request: Request
    baseline: str
    candidate: str = "."
    anchor: str | None = None
    """A pinned release that is measured in every session; the history is a ratio to it."""
    repository: Path = Path()
    """Repository of the commits and of the user's provider."""
    seed: int | None = None
    """Random seed of the arm order; generated if None."""
    gate: GateSpec | None = None
    """Gate that replaces the gate of each scenario."""
    design: Design = field(default_factory=Design)
    purpose: Purpose = "ab"
    allow_other_answers: bool = False
    run_id: str | None = None
    """Folder of the documents; a new run if None."""
    on_step: Callable[[SessionStep], None] = lambda _step: None
    tell: Callable[[str], None] = lambda _sentence: None
    """Called with a sentence before slow steps of the preparation."""
    on_wait: Callable[[str], None] = lambda _sentence: None
    """Called with a sentence that names the run that holds the lock of the machine."""


@dataclass(frozen=True, slots=True)
class AbResult:
    """The comparisons, complete or interrupted."""

    run_id: str
    comparisons: list[Comparison]
    skipped: list[tuple[str, str]]
    """Cases that neither baseline nor candidate can run, with the reason."""
    interrupted: bool
    problems: list[str]
    """Reasons why documents could not be stored."""

    def exit_code(self, *, strict: bool) -> ExitCode:
        """Exit code of the gate; 130 after Ctrl-C; 1 if it passed and was not stored."""
        code = ExitCode.INTERRUPTED if self.interrupted else exit_code(self.comparisons, strict=strict)
        return ExitCode.NOT_WRITTEN if code is ExitCode.PASS and self.problems else code


@dataclass(frozen=True, slots=True)
class Planned:
    """A request with prepared arms, discovered models and planned cases."""

    arms: dict[Role, PreparedArm]
    entries: list[ComparedCase]
    skipped: list[tuple[str, str]]
    machine: Machine


def ask(question: AbRequest, wanted: Callable[[ComparedCase], bool] = lambda _entry: True) -> AbResult:
    """Plan, measure the selected cases and store the results.

    Raises GgufbenchError before anything is measured.
    """
    planned = plan(question)
    entries = [entry for entry in planned.entries if wanted(entry)]
    return measure(question, replace(planned, entries=entries))


def plan(question: AbRequest) -> Planned:
    """Prepare the arms and plan every model in each of them. Raises GgufbenchError."""
    check_writable(question.request.results)
    specs = _specs(question)
    _check_kinds(specs, question)
    scenarios = {role: _scenarios(spec, question) for role, spec in specs.items()}
    if "anchor" in specs:
        scenarios["anchor"] = scenarios["candidate"]
    _check_providers(specs, scenarios["candidate"])
    _check_workloads(scenarios)
    _, models = find_models(question.request, question.tell)
    arms = {role: _prepare(spec, question, scenarios[role]) for role, spec in specs.items()}
    environments = {role: probe_for(scenarios[role], arm.interpreter) for role, arm in arms.items()}
    machine = read_machine(environments["candidate"][""].gpu_names())
    earlier = earlier_records(question.request.results, machine.fingerprint)
    cases = {role: plan_cases(models, scenarios[role], environments[role], earlier) for role in arms}
    entries, skipped = _entries(cases, by_scenario=specs["candidate"].kind != "scenario")
    return Planned(arms, entries, skipped, machine)


def measure(question: AbRequest, planned: Planned) -> AbResult:
    """Measure the planned cases, one session at a time on this machine, and store the results.

    Raises MachineBusyError if another run measures until the time budget ends, MachineLockError.
    """
    problems: list[str] = []
    results = question.request.results
    session = BenchSession(
        arms=planned.arms,
        bench=_bench(question, planned.machine),
        seed=secrets.randbelow(_SEEDS) if question.seed is None else question.seed,
        design=question.design,
        purpose=question.purpose,
        allow_other_answers=question.allow_other_answers,
        check_answers=partial(_check_answers, question, planned.arms),
        anchored_by=_anchored_by(question),
        keep=lambda block: _keep(lambda: write_block(results, block), problems),
        on_step=question.on_step,
    )
    started, budget = time.monotonic(), question.request.time_budget_seconds
    with one_at_a_time(question.on_wait, budget):
        left = None if budget is None else budget - (time.monotonic() - started)
        ongoing, interrupted = measure_side_by_side(
            planned.entries, replace(session, time_budget_seconds=left)
        )
    comparisons = conclude(ongoing, session, planned.arms)
    for comparison in comparisons:
        _keep(partial(write_comparison, results, comparison), problems)
    return AbResult(session.bench.run_id, comparisons, planned.skipped, interrupted, problems)


def _check_answers(
    question: AbRequest, arms: Mapping[Role, PreparedArm], entry: ComparedCase
) -> AnswerCheck | None:
    """Compare the answers of baseline and candidate; None if this provider's digests must do."""
    baseline, candidate = (
        _side(arms[role], entry.cases[role], question) for role in ("baseline", "candidate")
    )
    is_selftest = question.purpose not in ("ab", "bisect")  # both arms are one environment
    if is_selftest or not (can_check(baseline.case) and can_check(candidate.case)):
        return None
    gate = candidate.case.scenario.gate
    most = gate.most_kl_divergence if DIVERGENCE in gate.metrics else None
    question.tell(f"{entry.id}: comparing the answers")
    try:
        return check_answers(baseline, candidate, most)
    except (ScoringError, OSError) as error:
        why = unusable_path(error) if isinstance(error, OSError) else error
        question.tell(f"The answers were compared by their digests alone: {why}.")
        return None


def _side(arm: PreparedArm, case: Case, question: AbRequest) -> Side:
    return Side(arm.interpreter, case, CaseTimeouts(case, question.request.deadline_scale))


def _specs(question: AbRequest) -> dict[Role, ArmSpec]:
    texts: dict[Role, str | None] = {
        "baseline": question.baseline,
        "candidate": question.candidate,
        "anchor": question.anchor,
    }
    if question.anchor == question.baseline:
        del texts["anchor"]  # it is already measured
    return {role: parse_arm(text, question.repository) for role, text in texts.items() if text is not None}


def _anchored_by(question: AbRequest) -> Role | None:
    if question.anchor is None:
        return None
    return "baseline" if question.anchor == question.baseline else "anchor"


def _check_kinds(specs: Mapping[Role, ArmSpec], question: AbRequest) -> None:
    """Refuse one scenario file: it defines settings, and an arm of another kind defines software."""
    files = [spec.name for role, spec in specs.items() if role != "anchor" and spec.kind == "scenario"]
    if len(files) == 1:
        raise ArmError(
            f"{files[0]} is a scenario file and can only be compared with another one; "
            "give two as --baseline and --candidate"
        )
    anchored_by = _anchored_by(question)
    if anchored_by is not None and specs[anchored_by].kind != "requirement":
        raise ArmError(
            f"--anchor {question.anchor} is not a pinned release; give one, such as llama-cpp-python==0.3.36"
        )


def _check_providers(specs: Mapping[Role, ArmSpec], scenarios: Sequence[Scenario]) -> None:
    """Refuse a commit with scenarios that do not measure code of its repository."""
    commits = [spec for spec in specs.values() if spec.kind == "commit"]
    others = [scenario.name for scenario in scenarios if scenario.provider in SHIPPED]
    if commits and others:
        raise ArmError(
            f"{commits[0].name} is a commit, but scenario {others[0]} measures code outside that repository; "
            'choose a scenario with provider = "package.module:callable" by --scenario'
        )


def _check_workloads(scenarios: Mapping[Role, Sequence[Scenario]]) -> None:
    """Refuse two scenario files with different workloads."""
    both = zip(scenarios["baseline"], scenarios["candidate"], strict=False)
    for old, new in both:
        if old.workload.model_copy(update=_HOW_OFTEN) != new.workload.model_copy(update=_HOW_OFTEN):
            raise ArmError(
                f"{old.name} and {new.name} have different workloads; give both files the same [workload]"
            )


def _scenarios(spec: ArmSpec, question: AbRequest) -> list[Scenario]:
    if spec.kind == "scenario" and spec.path is not None:
        found = [load_scenario_file(spec.path)]
    else:
        found = read_scenarios(question.request)
        if not question.request.scenarios:
            # Baselines and layers do not change with llama.cpp and are not in every environment, so they are
            # compared only if they are named. A scorer has no speed.
            left_out = (TRANSFORMERS, SCORER, *LAYERS)
            found = [scenario for scenario in found if scenario.provider not in left_out]
    scoring = next((scenario.name for scenario in found if scenario.provider == SCORER), None)
    if scoring is not None:
        raise ArmError(
            f"scenario {scoring} has no speed to compare; to gate answers, name {DIVERGENCE} in [gate] "
            f'metrics of a scenario with provider = "{ENGINE}"'
        )
    if question.gate is None:
        return found
    return [scenario.model_copy(update={"gate": question.gate}) for scenario in found]


def _prepare(spec: ArmSpec, question: AbRequest, scenarios: Sequence[Scenario]) -> PreparedArm:
    """Prepare an arm. A provider of the user is imported from the repository."""
    arm = prepare_arm(spec, question.repository, question.tell)
    own = any(scenario.provider not in SHIPPED for scenario in scenarios)
    if not own or arm.interpreter.import_path:
        return arm
    interpreter = replace(arm.interpreter, import_path=import_path(question.repository))
    return replace(arm, interpreter=interpreter)


def _entries(
    cases: Mapping[Role, Sequence[Case]], *, by_scenario: bool
) -> tuple[list[ComparedCase], list[tuple[str, str]]]:
    """Matching cases of all arms, and the cases that neither baseline nor candidate can run."""
    entries, skipped = [], []
    for candidate in cases["candidate"]:
        together: dict[Role, Case] = {
            role: next(case for case in found if _same(case, candidate, by_scenario=by_scenario))
            for role, found in cases.items()
        }
        skip = together["candidate"].skip
        if skip is not None and together["baseline"].skip is not None:
            skipped.append((candidate.id, skip))
        else:
            entries.append(ComparedCase(candidate.id, together))
    return entries, skipped


def _same(case: Case, other: Case, *, by_scenario: bool) -> bool:
    same_model = case.model.path == other.model.path
    return same_model and (not by_scenario or case.scenario.name == other.scenario.name)


def _bench(question: AbRequest, machine: Machine) -> Bench:
    return Bench(
        run_id=question.run_id or new_run_id(),
        machine=machine,
        source=source_state(question.repository),
        deadline_scale=question.request.deadline_scale,
    )


def _keep(write: Callable[[], object], problems: list[str]) -> None:
    """Store a document. A failure does not stop the measurement and is reported at its end."""
    try:
        write()
    except StoreError as error:
        problems.append(str(error))
