"""The commands that measure two arms: `ab`, `selftest`, `bisect`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    Strict,
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
    "`.` (this environment), a Python or virtual environment, a requirement (installed once and kept), "
    "a commit of --repository, or a scenario file."
)

Repository = Annotated[Path, typer.Option(help="Git repository of commits that are named as an arm.")]
TimeBudget = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Start no pair that would end after this time, such as 10m."),
]


def ab(
    baseline: Annotated[
        str | None,
        typer.Option(metavar="ARM", help=f"Old version: {ARM_HELP} Default: the anchor."),
    ] = None,
    candidate: Annotated[str, typer.Option(metavar="ARM", help="New version, in the same form.")] = ".",
    anchor: Annotated[
        str | None,
        typer.Option(
            metavar="REQUIREMENT",
            help="Pinned release that is also measured, as a reference for the history.",
        ),
    ] = None,
    places: Places = None,
    match: ModelMatch = None,
    quant: Quant = None,
    scenario: ScenarioNames = None,
    scenarios: ScenarioFolder = None,
    repository: Repository = Path(),
    repetitions: Repetitions = None,
    strict: Strict = False,
    allow_other_answers: Annotated[
        bool,
        typer.Option(
            "--allow-other-answers", help="Judge the speed also if the greedy tokens of the candidate differ."
        ),
    ] = False,
    seed: Seed = None,
    time_budget: TimeBudget = None,
    results: Results = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Decide whether a change made models slower or larger, by 6 to 15 pairs of launches of two arms.

    Each launch is a fresh process, and the order in each pair is random.
    Example: ggufbench ab --baseline llama-cpp-python==0.3.35 --models model.gguf

    Exit codes: 0 if nothing got worse; 10 for a regression; 11 if the candidate failed, gave another answer
    or cannot run a model; 12 if the baseline cannot run it; 13 with --strict if a verdict is inconclusive;
    14 if nothing could be measured; 1 if nothing got worse but the results could not be stored.
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
        raise GgufbenchError("ab needs a baseline; name one, such as --baseline llama-cpp-python==0.3.35")
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
            on_wait=print_error,
        )
        answer = ask(question)
    _finish(answer, strict=strict, as_json=as_json)


def selftest(
    sessions: Annotated[
        int, typer.Option(min=0, max=1000, help="Sessions that compare the same arm with itself.")
    ] = 1,
    controls: Annotated[
        int, typer.Option(min=0, max=1000, help="Sessions with a worker that is 10 % slower.")
    ] = 1,
    places: Places = None,
    match: ModelMatch = None,
    scenario: Annotated[str, typer.Option(help="Scenario with the setting and the workload.")] = "cpu",
    scenarios: ScenarioFolder = None,
    seed: Seed = None,
    results: Results = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Test the gate on this machine: no alarm for equal arms, an alarm for a worker that is 10 % slower.

    Uses the smallest model that is found. Sessions are stored, and the error rates over all of them printed.
    Example: ggufbench selftest --sessions 3 --controls 3

    Exit codes: 0 if both tests passed; 10 for a false alarm; 11 if the slower worker was missed; 14 if
    nothing could be measured; 1 if the results could not be stored.
    """
    from ggufbench.comparing.ab import AbRequest
    from ggufbench.comparing.selftest import selftest as run_selftest

    request = request_from(places, match, scenario=[scenario], scenarios=scenarios, results=results)
    with ProgressLine() as line:
        question = AbRequest(request, ".", seed=seed, on_step=shown_on(line), tell=tell, on_wait=print_error)
        found = run_selftest(
            question, sessions, controls, lambda number, kind: tell(f"session {number}: {kind}")
        )
    if as_json:
        from ggufbench.report.text.selftest import document

        print_json(document(found))
    else:
        from ggufbench.report.text.selftest import selftest_report

        print_rich(selftest_report(found))
    _say_what_is_not_stored(found.problems)
    raise typer.Exit(found.exit_code)


def bisect(
    good: Annotated[str, typer.Option(metavar="ARM", help="Release or commit that was fast.")],
    bad: Annotated[str, typer.Option(metavar="ARM", help="Later release or commit that is slow.")],
    metric: Annotated[
        str | None, typer.Option(help="Metric to judge by (default: the one that got worse most).")
    ] = None,
    places: Places = None,
    match: ModelMatch = None,
    scenario: ScenarioNames = None,
    scenarios: ScenarioFolder = None,
    repository: Repository = Path(),
    repetitions: Repetitions = None,
    allow_other_answers: Annotated[
        bool,
        typer.Option("--allow-other-answers", help="Judge also candidates whose greedy tokens differ."),
    ] = False,
    seed: Seed = None,
    results: Results = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Find the release or commit that made a model slower.

    Between two releases each candidate is compiled once; between two commits of --repository the first-parent
    history is searched, for a scenario with provider = "package.module:callable". The same command resumes an
    interrupted search.
    Example: ggufbench bisect --good llama-cpp-python==0.3.20 --bad llama-cpp-python==0.3.36

    Exit codes: 0 if the search is complete; 11 if --good or --bad cannot be measured; 13 if the results are
    inconclusive; 1 if they could not be stored.
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
            on_wait=print_error,
        )
        found = search(
            Hunt(question, metric, lambda name, left: tell(f"{name[:40]}: {left} candidates left"))
        )
    if as_json:
        print_json(document(found))
    else:
        print_rich(bisection_report(found, repository))
    _say_what_is_not_stored(found.problems)
    raise typer.Exit(found.exit_code)


def _finish(answer: AbResult, *, strict: bool, as_json: bool) -> NoReturn:
    """Print a result and exit with the code of the gate."""
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
    _say_what_is_not_stored(answer.problems)
    raise typer.Exit(code)


def _say_what_is_not_stored(problems: Sequence[str]) -> None:
    for problem in problems:
        print_error(f"measured, but not stored: {problem}")


def shown_on(line: ProgressLine) -> Callable[[SessionStep], None]:
    """A function that shows each step of a comparison on the line of progress."""
    from ggufbench.report.text.comparison import step_sentence

    return lambda step: line.show(step_sentence(step))
