"""The command over two stored runs: `compare`."""

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
        raise GgufbenchError(f"neither run has a case that matches {', '.join(match)}; they hold {ids}")
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


def _metrics(asked: Sequence[str]) -> Sequence[str]:
    from ggufbench.metrics import METRICS

    for name in asked:
        if name not in METRICS:
            remedy = did_you_mean(name, METRICS) or f"; the metrics are {', '.join(METRICS)}"
            raise GgufbenchError(f"--metric {name!r} is not a metric{remedy}")
    return list(dict.fromkeys(asked))


def _in_order(runs: Sequence[StoredRun]) -> tuple[StoredRun, StoredRun]:
    """The earlier one first; as they were given where they are of one moment."""
    first, second = runs
    if first.folder.resolve() == second.folder.resolve():
        raise GgufbenchError(f"{first.folder} is both runs; name two")
    for one in runs:
        if not one.records:
            raise GgufbenchError(
                f"{one.folder} holds comparisons only, and no record; `ggufbench show` prints them"
            )
    return (first, second) if _created(first) <= _created(second) else (second, first)


def _created(run: StoredRun) -> str:
    return max(record.created for record in run.records)


def _machine(run: StoredRun) -> str:
    machine = max(run.records, key=lambda record: record.created).machine
    return f"{machine.cpu} ({machine.operating_system}, {machine.fingerprint})"
