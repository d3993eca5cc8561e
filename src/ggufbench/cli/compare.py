"""The command `compare`, for two stored runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ggufbench.cli.options import AsJson, CaseMatch, Results, print_error, print_json, print_rich


def compare(
    run: Annotated[str, typer.Argument(help="Name or folder of a run.")],
    other: Annotated[str, typer.Argument(metavar="RUN", help="Another run, earlier or later.")],
    results: Results = Path("results"),
    match: CaseMatch = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Show this metric instead of the default ones (repeatable).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two stored runs: the ratio and confidence interval of each metric, answers and versions.

    This is a table and not a gate, because stored runs were measured at different times; `ggufbench ab`
    decides. Example: ggufbench compare 20260101T120000Z-1a2b results/first

    Exit codes: 0; 2 if there is no such run; 12 if nothing can be compared.
    """
    from ggufbench.analysis.run_diff import SHOWN
    from ggufbench.api.stored import compare as compare_runs
    from ggufbench.records.runs import read_run
    from ggufbench.report.text.run_diff import compare_document, compare_report
    from ggufbench.report.text.terminal import width_of

    runs = [read_run(results, name) for name in (run, other)]
    for problem in {str(problem) for one in runs for problem in one.problems}:
        print_error(problem)
    earlier, later = sorted(runs, key=lambda one: one.created)
    compared = compare_runs(earlier, later, metric or SHOWN, match or [])
    if as_json:
        print_json(compare_document(compared))
    else:
        print_rich(compare_report(compared, width_of()))
    raise typer.Exit(compared.exit_code)
