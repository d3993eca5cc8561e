"""Two environments, commits or settings compared: what the command `ggufbench ab` does, and pytest too."""

from __future__ import annotations

import secrets
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
from ggufbench.measuring.case import Bench, one_at_a_time
from ggufbench.measuring.preparation import (
    Request,
    earlier_records,
    find_models,
    plan_cases,
    probe_for,
    read_scenarios,
)
from ggufbench.planning.plan import Case
from ggufbench.planning.scenario import GateSpec, Scenario, load_scenario_file
from ggufbench.records.comparison import Comparison, Purpose, Role
from ggufbench.records.comparisons import write_block, write_comparison
from ggufbench.records.store import StoreError, new_run_id
from ggufbench.stats.sequential_test import Design
from ggufbench.worker.job import LAYERS, SHIPPED, TRANSFORMERS

_SEEDS = 2**32
_HOW_OFTEN = {"launches": 1, "cold_launches": 0}
"""Of the workload: what a comparison decides for itself."""


@dataclass(frozen=True, slots=True)
class AbRequest:
    """What shall be compared, and how."""

    request: Request
    baseline: str
    candidate: str = "."
    anchor: str | None = None
    """A pinned release, measured in every session: what history is a ratio to."""
    repository: Path = Path()
    """Whose commits and whose provider are meant."""
    seed: int | None = None
    """Of the order; drawn where it is None."""
    gate: GateSpec | None = None
    """In place of that of each scenario."""
    design: Design = field(default_factory=Design)
    purpose: Purpose = "ab"
    allow_other_answers: bool = False
    run_id: str | None = None
    """Where the documents go; a new run where it is None."""
    on_step: Callable[[SessionStep], None] = lambda _step: None
    tell: Callable[[str], None] = lambda _sentence: None
    """Hears about what takes time before anything is measured."""


@dataclass(frozen=True, slots=True)
class AbResult:
    """The comparisons, complete or not."""

    run_id: str
    comparisons: list[Comparison]
    skipped: list[tuple[str, str]]
    """Cases that no arm can run, with the reason."""
    interrupted: bool
    problems: list[str]
    """What could not be kept."""

    def exit_code(self, *, strict: bool) -> ExitCode:
        """The gate's, or 130 after Ctrl-C."""
        return ExitCode.INTERRUPTED if self.interrupted else exit_code(self.comparisons, strict=strict)


@dataclass(frozen=True, slots=True)
class Planned:
    """A question whose arms are there, whose models are found and whose cases are planned."""

    arms: dict[Role, PreparedArm]
    entries: list[ComparedCase]
    skipped: list[tuple[str, str]]
    machine: Machine


def ask(question: AbRequest, wanted: Callable[[ComparedCase], bool] = lambda _entry: True) -> AbResult:
    """Plan it, measure the wanted cases and keep what was measured.

    Raises GgufbenchError before anything is measured.
    """
    planned = plan(question)
    entries = [entry for entry in planned.entries if wanted(entry)]
    return measure(question, replace(planned, entries=entries))


def plan(question: AbRequest) -> Planned:
    """Prepare the arms and plan every model in each of them. Raises GgufbenchError."""
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
    """Measure what was planned, one session at a time on this machine, and keep it."""
    problems: list[str] = []
    results = question.request.results
    session = BenchSession(
        arms=planned.arms,
        bench=_bench(question, planned.machine),
        seed=secrets.randbelow(_SEEDS) if question.seed is None else question.seed,
        design=question.design,
        purpose=question.purpose,
        allow_other_answers=question.allow_other_answers,
        time_budget_seconds=question.request.time_budget_seconds,
        anchored_by=_anchored_by(question),
        keep=lambda block: _keep(lambda: write_block(results, block), problems),
        on_step=question.on_step,
    )
    with one_at_a_time(lambda: question.tell("another run is measuring; waiting for it")):
        ongoing, interrupted = measure_side_by_side(planned.entries, session)
    comparisons = conclude(ongoing, session, planned.arms)
    for comparison in comparisons:
        _keep(partial(write_comparison, results, comparison), problems)
    return AbResult(session.bench.run_id, comparisons, planned.skipped, interrupted, problems)


def _specs(question: AbRequest) -> dict[Role, ArmSpec]:
    texts: dict[Role, str | None] = {
        "baseline": question.baseline,
        "candidate": question.candidate,
        "anchor": question.anchor,
    }
    if question.anchor == question.baseline:
        del texts["anchor"]  # which is measured already
    return {role: parse_arm(text, question.repository) for role, text in texts.items() if text is not None}


def _anchored_by(question: AbRequest) -> Role | None:
    if question.anchor is None:
        return None
    return "baseline" if question.anchor == question.baseline else "anchor"


def _check_kinds(specs: Mapping[Role, ArmSpec], question: AbRequest) -> None:
    """A scenario file says how to measure, another arm with what: the two do not compare."""
    files = [spec.kind == "scenario" for role, spec in specs.items() if role != "anchor"]
    if any(files) and not all(files):
        raise ArmError(
            "a scenario file compares with another scenario file only; "
            "give two of them as --baseline and --candidate"
        )
    anchored_by = _anchored_by(question)
    if anchored_by is not None and specs[anchored_by].kind != "requirement":
        raise ArmError(
            f"--anchor {question.anchor} is no pinned release; give one, such as llama-cpp-python==0.3.36"
        )


def _check_providers(specs: Mapping[Role, ArmSpec], scenarios: Sequence[Scenario]) -> None:
    """A commit changes what its repository provides; what ggufbench brings is not in it."""
    commits = [spec for spec in specs.values() if spec.kind == "commit"]
    others = [scenario.name for scenario in scenarios if scenario.provider in SHIPPED]
    if commits and others:
        raise ArmError(
            f"{commits[0].name} is a commit, and scenario {others[0]} measures no code of that repository; "
            'name a scenario with provider = "package.module:callable" by --scenario'
        )


def _check_workloads(scenarios: Mapping[Role, Sequence[Scenario]]) -> None:
    """Two settings are compared doing the same work."""
    both = zip(scenarios["baseline"], scenarios["candidate"], strict=False)
    for old, new in both:
        if old.workload.model_copy(update=_HOW_OFTEN) != new.workload.model_copy(update=_HOW_OFTEN):
            raise ArmError(
                f"{old.name} and {new.name} ask for different work; give both files the same [workload]"
            )


def _scenarios(spec: ArmSpec, question: AbRequest) -> list[Scenario]:
    if spec.kind == "scenario" and spec.path is not None:
        found = [load_scenario_file(spec.path)]
    else:
        found = read_scenarios(question.request)
        if not question.request.scenarios:
            # Not what changed, and not in every environment: what llama.cpp is compared with, and what is
            # built on it. Named, they are compared too.
            found = [scenario for scenario in found if scenario.provider not in (TRANSFORMERS, *LAYERS)]
    if question.gate is None:
        return found
    return [scenario.model_copy(update={"gate": question.gate}) for scenario in found]


def _prepare(spec: ArmSpec, question: AbRequest, scenarios: Sequence[Scenario]) -> PreparedArm:
    """The arm; where a provider of the user is measured, with the repository to import it from."""
    arm = prepare_arm(spec, question.repository, question.tell)
    own = any(scenario.provider not in SHIPPED for scenario in scenarios)
    if not own or arm.interpreter.import_path:
        return arm
    interpreter = replace(arm.interpreter, import_path=import_path(question.repository))
    return replace(arm, interpreter=interpreter)


def _entries(
    cases: Mapping[Role, Sequence[Case]], *, by_scenario: bool
) -> tuple[list[ComparedCase], list[tuple[str, str]]]:
    """The cases of all arms that belong together; and those that not one of the two can run."""
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
    """What cannot be kept does not end the measuring; it is said at the end."""
    try:
        write()
    except StoreError as error:
        problems.append(str(error))
