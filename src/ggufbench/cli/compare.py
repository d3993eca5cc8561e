"""The command `compare`, for two stored runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ggufbench.cli.options import AsJson, CaseMatch, Results, print_error, print_json, print_rich
from ggufbench.errors import GgufbenchError
from ggufbench.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ggufbench.records.runs import StoredRun


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
    from ggufbench.analysis.run_diff import SHOWN, between
    from ggufbench.records.runs import read_run
    from ggufbench.report.text.run_diff import Compared, compare_document, compare_report
    from ggufbench.report.text.terminal import width_of

    metrics = _metrics(metric) if metric else SHOWN
    runs = [read_run(results, name) for name in (run, other)]
    for problem in {str(problem) for one in runs for problem in one.problems}:
        print_error(problem)
    earlier, later = _in_order(runs)
    chosen = [one.only(match).records if match else one.records for one in (earlier, later)]
    if match and not any(chosen):
        ids = ", ".join(dict.fromkeys(id_ for one in runs for id_ in one.case_ids[:6]))
        raise GgufbenchError(f"no case in either run matches --match {', '.join(match)}; the cases are {ids}")
    compared = Compared(
        earlier=earlier.folder.name,
        later=later.folder.name,
        earlier_created=_created(earlier),
        later_created=_created(later),
        machines=(_machine(earlier), _machine(later)),
        found=between(chosen[0], chosen[1], metrics),
    )
    if as_json:
        print_json(compare_document(compared))
    else:
        print_rich(compare_report(compared, width_of()))
    raise typer.Exit(compared.exit_code)


def _metrics(names: Sequence[str]) -> Sequence[str]:
    from ggufbench.metrics import METRICS

    for name in names:
        if name not in METRICS:
            remedy = did_you_mean(name, METRICS) or f"; the metrics are {', '.join(METRICS)}"
            raise GgufbenchError(f"--metric {name!r} is not a metric{remedy}")
    return list(dict.fromkeys(names))


def _in_order(runs: Sequence[StoredRun]) -> tuple[StoredRun, StoredRun]:
    """The two runs, the earlier one first."""
    first, second = runs
    if first.folder.resolve() == second.folder.resolve():
        raise GgufbenchError(f"both arguments name the run {first.folder}; name two runs")
    for one in runs:
        if not one.records:
            raise GgufbenchError(
                f"{one.folder} has comparisons but no records; show it with `ggufbench show`"
            )
    return (first, second) if _created(first) <= _created(second) else (second, first)


def _created(run: StoredRun) -> str:
    return max(record.created for record in run.records)


def _machine(run: StoredRun) -> str:
    machine = max(run.records, key=lambda record: record.created).machine
    return f"{machine.cpu} ({machine.operating_system}, {machine.fingerprint})"
