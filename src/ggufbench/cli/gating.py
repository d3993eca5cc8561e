"""The commands that compare: `ab`, `selftest`, `bisect`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from ggufbench.cli.options import AsJson, Places, Results, print_json, print_rich, refuse, tell

if TYPE_CHECKING:
    from ggufbench.comparing.ab import AbRequest, AbResult
    from ggufbench.comparing.side_by_side import SessionStep
    from ggufbench.measuring.preparation import Request

ARM_HELP = (
    "`.` (this environment), a Python or virtual environment, a requirement (installed once, kept), "
    "a commit of --repository, or a scenario file."
)

Match = Annotated[
    list[str] | None, typer.Option(help="Only models whose name or repository matches (repeatable).")
]
ScenarioNames = Annotated[
    list[str] | None, typer.Option("--scenario", help="Only this scenario (repeatable).")
]
ScenarioFolder = Annotated[Path | None, typer.Option("--scenarios", help="Read scenarios from this folder.")]
Repository = Annotated[Path, typer.Option(help="Whose commits and whose provider are meant.")]
Seed = Annotated[
    int | None, typer.Option(min=0, max=2**63 - 1, help="Of the order in each pair; drawn if not given.")
]
TimeBudget = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Start no pair that would end after this time, such as 10m."),
]


def ab(  # noqa: PLR0913, PLR0917 (one parameter for each option of the command)
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
    match: Match = None,
    quant: Annotated[
        list[str] | None, typer.Option(help="Only models of this quantization, such as Q4_K_M (repeatable).")
    ] = None,
    scenario: ScenarioNames = None,
    scenarios: ScenarioFolder = None,
    repository: Repository = Path(),
    repetitions: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Timed samples in each launch.")
    ] = None,
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
    from ggufbench.comparing.ab import AbRequest
    from ggufbench.measuring.preparation import Request, requested_places
    from ggufbench.planning.plan import Selection

    request: Request = Request(
        places=requested_places(places or []),
        selection=Selection(match or [], quant or []),
        scenarios=scenario or [],
        scenario_folder=scenarios,
        repetitions=repetitions,
        results=results,
        time_budget_seconds=seconds_of(time_budget),
    )
    if baseline is None and anchor is None:
        refuse("there is nothing to compare with; give --baseline, such as llama-cpp-python==0.3.35")
    question = AbRequest(
        request,
        baseline or anchor or "",
        candidate,
        anchor,
        repository,
        seed,
        allow_other_answers=allow_other_answers,
        on_step=show_step,
        tell=tell,
    )
    finish(_ask(question), strict=strict, as_json=as_json)


def selftest(  # noqa: PLR0913, PLR0917 (one parameter for each option of the command)
    sessions: Annotated[int, typer.Option(min=0, max=1000, help="Sessions of A against A.")] = 1,
    controls: Annotated[int, typer.Option(min=0, max=1000, help="Sessions against the slower worker.")] = 1,
    places: Places = None,
    match: Match = None,
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
    from ggufbench.comparing.arms import ArmError
    from ggufbench.comparing.selftest import selftest as run_selftest
    from ggufbench.measuring.preparation import USAGE_ERRORS, Request, requested_places
    from ggufbench.planning.plan import Selection

    request = Request(
        places=requested_places(places or []),
        selection=Selection(match or []),
        scenarios=[scenario],
        scenario_folder=scenarios,
        results=results,
    )
    question = AbRequest(request, ".", seed=seed, on_step=show_step, tell=tell)
    try:
        found = run_selftest(
            question, sessions, controls, lambda number, kind: tell(f"session {number}: {kind}")
        )
    except (*USAGE_ERRORS, ArmError) as error:
        refuse(error)
    show_step(None)
    if as_json:
        from ggufbench.report.text.selftest import document

        print_json(document(found))
    else:
        from ggufbench.report.text.selftest import selftest_report

        print_rich(selftest_report(found))
    raise typer.Exit(found.exit_code)


def bisect(  # noqa: PLR0913, PLR0917 (one parameter for each option of the command)
    good: Annotated[str, typer.Option(metavar="ARM", help="A release or a commit that was fast.")],
    bad: Annotated[str, typer.Option(metavar="ARM", help="One that is not.")],
    metric: Annotated[
        str | None, typer.Option(help="Judge by this metric; the one that got worst if left out.")
    ] = None,
    places: Places = None,
    match: Match = None,
    scenario: ScenarioNames = None,
    scenarios: ScenarioFolder = None,
    repository: Repository = Path(),
    repetitions: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Timed samples in each launch.")
    ] = None,
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
    from ggufbench.comparing.arms import ArmError
    from ggufbench.comparing.bisect import Hunt
    from ggufbench.comparing.bisect import bisect as search
    from ggufbench.measuring.preparation import USAGE_ERRORS, Request, requested_places
    from ggufbench.planning.plan import Selection
    from ggufbench.report.text.bisection import bisection_report, document

    request: Request = Request(
        places=requested_places(places or []),
        selection=Selection(match or []),
        scenarios=scenario or [],
        scenario_folder=scenarios,
        repetitions=repetitions,
        results=results,
    )
    question = AbRequest(
        request,
        good,
        bad,
        repository=repository,
        seed=seed,
        allow_other_answers=allow_other_answers,
        on_step=show_step,
        tell=tell,
    )
    hunt = Hunt(question, metric, lambda name, left: tell(f"{name[:40]}, {left} could be the first bad one"))
    try:
        found = search(hunt)
    except (*USAGE_ERRORS, ArmError, ValueError) as error:
        refuse(error)
    show_step(None)
    if as_json:
        print_json(document(found))
    else:
        print_rich(bisection_report(found, repository))
    raise typer.Exit(found.exit_code)


def finish(answer: AbResult, *, strict: bool, as_json: bool) -> NoReturn:
    """Print an answer for whoever asked, and end with the gate's exit code."""
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
    write_summary(answer)
    for problem in answer.problems:
        typer.echo(f"ggufbench: measured, but not kept: {problem}", err=True)
    raise typer.Exit(code)


def write_summary(answer: AbResult) -> None:
    """Markdown to the file that GitHub shows beside a run, where there is one."""
    from ggufbench.report.text.comparison import markdown

    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(markdown(answer.comparisons, answer.skipped))
    except OSError as error:
        typer.echo(f"ggufbench: {path} cannot be written: {error.strerror}", err=True)


def show_step(step: SessionStep | None) -> None:
    """The line of progress: it changes when a launch begins, never while a clock runs."""
    if not sys.stderr.isatty():
        return
    from ggufbench.report.text.comparison import step_sentence

    words = step_sentence(step) if step is not None else ""
    typer.echo(f"\r\x1b[K{words}", err=True, nl=False)


def seconds_of(text: str | None) -> float | None:
    """A duration given on the command line; ends the program where it is none."""
    from ggufbench.measuring.preparation import parse_duration

    try:
        return parse_duration(text) if text else None
    except ValueError as error:
        refuse(error)


def _ask(question: AbRequest) -> AbResult:
    from ggufbench.comparing.ab import ask
    from ggufbench.comparing.arms import ArmError
    from ggufbench.measuring.preparation import USAGE_ERRORS

    try:
        answer = ask(question)
    except (*USAGE_ERRORS, ArmError) as error:
        refuse(error)
    show_step(None)
    return answer
