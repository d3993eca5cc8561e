"""The command over two stored runs: `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ggufbench.cli.options import AsJson, CaseMatch, Results, print_error, print_json, print_rich


def compare(
    run: Annotated[str, typer.Argument(help="A run's name or folder.")],
    other: Annotated[str, typer.Argument(metavar="RUN", help="Another one, earlier or later.")],
    results: Results = Path("results"),
    match: CaseMatch = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="This metric instead of the usual ones (repeatable).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show how two stored runs differ: each metric's ratio and interval, answers and versions.

    A table, no gate: stored runs also differ by their hour, and `ggufbench ab` decides. Exits 0, or 12 where
    nothing can be compared.
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
