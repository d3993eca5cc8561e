"""The commands that compare: `ab`, `selftest`, `bisect`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ggufbench.cli.options import (
    AsJson,
    ModelMatch,
    Places,
    Quant,
    Repetitions,
    Results,
    ScenarioFolder,
    ScenarioNames,
    Seed,
    print_error,
    print_json,
    print_rich,
    request_from,
)
from ggufbench.cli.progress import ProgressLine, tell
from ggufbench.errors import GgufbenchError

if TYPE_CHECKING:
    from ggufbench.comparing.ab import AbResult
    from ggufbench.comparing.side_by_side import SessionStep

ARM_HELP = (
    "`.` (this environment), a Python or virtual environment, a requirement (installed once, kept), "
    "a commit of --repository, or a scenario file."
)

Repository = Annotated[Path, typer.Option(help="Whose commits and whose provider are meant.")]
TimeBudget = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Start no pair that would end after this time, such as 10m."),
]


def ab(
    baseline: Annotated[
        str | None,
        typer.Option(metavar="ARM", help=f"What it was: {ARM_HELP} The anchor where it is left out."),
    ] = None,
    candidate: Annotated[str, typer.Option(metavar="ARM", help="What it is now; like --baseline.")] = ".",
    anchor: Annotated[
        str | None,
        typer.Option(metavar="REQUIREMENT", help="A pinned release to measure beside, for the history."),
    ] = None,
    places: Places = None,
    match: ModelMatch = None,
    quant: Quant = None,
    scenario: ScenarioNames = None,
    scenarios: ScenarioFolder = None,
    repository: Repository = Path(),
    repetitions: Repetitions = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 13 where a verdict is inconclusive.")
    ] = False,
    allow_other_answers: Annotated[
        bool,
        typer.Option(
            "--allow-other-answers", help="Judge the speed of a candidate whose greedy tokens are others."
        ),
    ] = False,
    seed: Seed = None,
    time_budget: TimeBudget = None,
    results: Results = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Say whether a change made models slower or larger: two arms, launched in pairs on this machine.

    Fresh processes, order by coin, 6 to 15 pairs until it is clear. Exits 0 where nothing got worse, 10 for a
    regression, 11 where the candidate broke, gave another answer or cannot run a model, 12 where the baseline
    cannot, 13 with --strict where it stayed unclear, 14 where nothing could be measured.
    """
    from ggufbench.comparing.ab import AbRequest, ask

    request = request_from(
        places,
        match,
        quant=quant,
        scenario=scenario,
        scenarios=scenarios,
        repetitions=repetitions,
        results=results,
        time_budget=time_budget,
    )
    if baseline is None and anchor is None:
        raise GgufbenchError(
            "there is nothing to compare with; give --baseline, such as llama-cpp-python==0.3.35"
        )
    with ProgressLine() as line:
        question = AbRequest(
            request,
            baseline or anchor or "",
            candidate,
            anchor,
            repository,
            seed,
            allow_other_answers=allow_other_answers,
            on_step=shown_on(line),
            tell=tell,
        )
        answer = ask(question)
    _finish(answer, strict=strict, as_json=as_json)


def selftest(
    sessions: Annotated[int, typer.Option(min=0, max=1000, help="Sessions of A against A.")] = 1,
    controls: Annotated[int, typer.Option(min=0, max=1000, help="Sessions against the slower worker.")] = 1,
    places: Places = None,
    match: ModelMatch = None,
    scenario: Annotated[str, typer.Option(help="Whose setting and workload are used.")] = "cpu",
    scenarios: ScenarioFolder = None,
    seed: Seed = None,
    results: Results = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Test the gate itself on this machine: A against A, and against a worker made 10 % slower on purpose.

    Takes the smallest model found. Exits 0 where A against A raised no alarm and the slower one was caught,
    10 for a false alarm, 11 where the slower one was missed, 14 where the machine let nothing be measured.
    The sessions are kept, and what all of them together prove is printed.
    """
    from ggufbench.comparing.ab import AbRequest
    from ggufbench.comparing.selftest import selftest as run_selftest

    request = request_from(places, match, scenario=[scenario], scenarios=scenarios, results=results)
    with ProgressLine() as line:
        question = AbRequest(request, ".", seed=seed, on_step=shown_on(line), tell=tell)
        found = run_selftest(
            question, sessions, controls, lambda number, kind: tell(f"session {number}: {kind}")
        )
    if as_json:
        from ggufbench.report.text.selftest import document

        print_json(document(found))
    else:
        from ggufbench.report.text.selftest import selftest_report

        print_rich(selftest_report(found))
    raise typer.Exit(found.exit_code)


def bisect(
    good: Annotated[str, typer.Option(metavar="ARM", help="A release or a commit that was fast.")],
    bad: Annotated[str, typer.Option(metavar="ARM", help="One that is not.")],
    metric: Annotated[
        str | None, typer.Option(help="Judge by this metric; the one that got worst if left out.")
    ] = None,
    places: Places = None,
    match: ModelMatch = None,
    scenario: ScenarioNames = None,
    scenarios: ScenarioFolder = None,
    repository: Repository = Path(),
    repetitions: Repetitions = None,
    allow_other_answers: Annotated[
        bool,
        typer.Option("--allow-other-answers", help="Judge candidates whose greedy tokens are others too."),
    ] = False,
    seed: Seed = None,
    results: Results = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Find the release or the commit that made a model slower.

    --good llama-cpp-python==0.3.20 --bad llama-cpp-python==0.3.36 searches the releases between (each is
    installed once, which compiles it); two commits of --repository search its first-parent history, for a
    scenario with provider = "package.module:callable". Ended early, the same command goes on where it was.
    Exits 0 where the search came to an end, 13 where it could not tell, 11 where an end is broken.
    """
    from ggufbench.comparing.ab import AbRequest
    from ggufbench.comparing.bisect import Hunt
    from ggufbench.comparing.bisect import bisect as search
    from ggufbench.report.text.bisection import bisection_report, document

    request = request_from(
        places, match, scenario=scenario, scenarios=scenarios, repetitions=repetitions, results=results
    )
    with ProgressLine() as line:
        question = AbRequest(
            request,
            good,
            bad,
            repository=repository,
            seed=seed,
            allow_other_answers=allow_other_answers,
            on_step=shown_on(line),
            tell=tell,
        )
        found = search(
            Hunt(question, metric, lambda name, left: tell(f"{name[:40]}, {left} could be the first bad one"))
        )
    if as_json:
        print_json(document(found))
    else:
        print_rich(bisection_report(found, repository))
    raise typer.Exit(found.exit_code)


def _finish(answer: AbResult, *, strict: bool, as_json: bool) -> NoReturn:
    """Print an answer and end with the gate's exit code."""
    from ggufbench.report.text.github_summary import write_summary

    code = answer.exit_code(strict=strict)
    if as_json:
        print_json(
            {
                "run_id": answer.run_id,
                "exit_code": code,
                "comparisons": answer.comparisons,
                "skipped": [{"case_id": case_id, "reason": reason} for case_id, reason in answer.skipped],
            }
        )
    else:
        from ggufbench.report.text.comparison import comparison_report
        from ggufbench.report.text.terminal import width_of

        print_rich(comparison_report(answer.comparisons, answer.skipped, width_of()))
    unwritten = write_summary(answer.comparisons, answer.skipped)
    if unwritten is not None:
        print_error(unwritten)
    for problem in answer.problems:
        print_error(f"measured, but not kept: {problem}")
    raise typer.Exit(code)


def shown_on(line: ProgressLine) -> Callable[[SessionStep], None]:
    """A function that shows each step of a comparison on this line."""
    from ggufbench.report.text.comparison import step_sentence

    return lambda step: line.show(step_sentence(step))
