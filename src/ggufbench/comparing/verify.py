"""A verification, from what was asked to its exit code: what the command `ggufbench verify` does."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggufbench.comparing.fidelity import Comparison, Plan, Step, Work, compare, plan_comparisons
from ggufbench.comparing.llama_bench import check_program
from ggufbench.exit_codes import ExitCode
from ggufbench.launching.launcher import Interpreter
from ggufbench.machine.facts import source_state
from ggufbench.measuring.case import Bench, one_at_a_time
from ggufbench.measuring.preparation import Request, prepare_run
from ggufbench.records.store import new_run_id

_SEEDS = 2**32


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """What shall be verified, and how."""

    request: Request
    llama_bench: Path
    work: Work
    pairs: int = 10
    tolerance: float = 0.02
    seed: int | None = None
    """Of the order; drawn where it is None."""
    on_step: Callable[[Step], None] = lambda _step: None
    tell: Callable[[str], None] = lambda _sentence: None


@dataclass(frozen=True, slots=True)
class Verification:
    """The answer, complete or not."""

    comparisons: list[Comparison]
    skipped: list[tuple[str, str]]
    """Cases that cannot run here, with the reason."""
    llama_bench: Path
    seed: int
    pairs: int
    tolerance: float

    @property
    def refusal(self) -> str | None:
        """Why llama-bench never answered; None where it did."""
        return next((one.reason for one in self.comparisons if one.ended == "refused"), None)

    @property
    def exit_code(self) -> ExitCode:
        """0 where all agree, 10 where a ratio is off, 11 where a side broke, 14 where none was measured."""
        ended = {comparison.ended for comparison in self.comparisons}
        tests = [test for comparison in self.comparisons for test in comparison.tests]
        if self.refusal is not None:
            return ExitCode.USAGE
        if "interrupted" in ended:
            return ExitCode.INTERRUPTED
        if "broken" in ended:
            return ExitCode.BROKEN
        if not tests:
            return ExitCode.NOTHING_MEASURED
        return ExitCode.REGRESSION if any(test.verdict == "differs" for test in tests) else ExitCode.PASS

    def document(self) -> dict[str, Any]:
        """Everything, the raw samples of each run among it; for JSON."""
        return {
            "llama_bench": self.llama_bench,
            "seed": self.seed,
            "pairs": self.pairs,
            "tolerance": self.tolerance,
            "exit_code": self.exit_code,
            "comparisons": [_described(comparison) for comparison in self.comparisons],
            "skipped": [{"case_id": case_id, "reason": reason} for case_id, reason in self.skipped],
        }


def verify(question: VerifyRequest) -> Verification:
    """Prepare and run it. Raises GgufbenchError before anything is measured."""
    program = check_program(question.llama_bench)
    prepared = prepare_run(question.request, Interpreter())
    cases = plan_comparisons(prepared.cases, question.work, prepared.environments)
    runnable = [case for case in cases if case.skip is None]
    seed = secrets.randbelow(_SEEDS) if question.seed is None else question.seed
    plan = Plan(
        program=program,
        bench=Bench(new_run_id(), prepared.machine, source_state(Path.cwd())),
        environments=prepared.environments,
        pairs=question.pairs,
        tolerance=question.tolerance,
        seed=seed,
        on_step=question.on_step,
    )
    with one_at_a_time(lambda: question.tell("another run is measuring; waiting for it")):
        comparisons = compare(runnable, plan)
    skipped = [(case.id, case.skip) for case in cases if case.skip is not None]
    return Verification(comparisons, skipped, program, seed, question.pairs, question.tolerance)


def _described(comparison: Comparison) -> dict[str, Any]:
    case = comparison.case
    return {
        "case_id": case.id,
        "model": case.model,
        "scenario": case.scenario.name,
        "setting": case.setting,
        "workload": case.workload,
        "arguments": comparison.arguments,
        "environment": comparison.environment,
        "versions": comparison.versions,
        "ended": comparison.ended,
        "reason": comparison.reason,
        "warnings": comparison.warnings,
        "tests": comparison.tests,
        "loop_overhead_seconds": comparison.loop_overhead_seconds,
        "loop_overhead_share": comparison.loop_overhead_share,
        "warm_pair": comparison.warm_pair,
        "measured_pairs": comparison.pairs,
    }
