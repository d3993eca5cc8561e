"""The commands for stored sessions: `history`, `gate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ggufbench.cli.options import AsJson, CaseMatch, Results, RunName, print_json, print_rich
from ggufbench.cli.progress import ProgressLine

Since = Annotated[
    str | None,
    typer.Option(metavar="RUN", help="Ignore all runs before this one, for example to accept a new level."),
]
Rebuild = Annotated[bool, typer.Option("--rebuild", help="Rebuild the index from the stored documents.")]


def history(
    results: Results = Path("results"),
    match: CaseMatch = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Show this metric instead of the gated ones (repeatable).")
    ] = None,
    machine: Annotated[
        str | None,
        typer.Option(metavar="FINGERPRINT", help="Machine to show (default: that of the newest session)."),
    ] = None,
    since: Since = None,
    rebuild: Rebuild = False,
    as_json: AsJson = False,
) -> None:
    """List every series of stored sessions with its state, and draw a chart if few series are selected.

    A session is suspect if it is worse than the median of the 20 sessions before it by more than the
    tolerance and by more than chance explains. Two suspect sessions in a row are a regression.
    Example: ggufbench history --match Q4_K_M --metric decode_tokens_per_second

    Exit codes: 0; 2 if there is no such run, metric or machine.
    """
    from ggufbench.history.series import HistoryQuery
    from ggufbench.history.series import history as answer

    with ProgressLine() as line:
        found = answer(
            HistoryQuery(results, match or [], metric or [], machine, since, rebuild, _reading(line))
        )
    if as_json:
        from ggufbench.report.text.history import history_document

        print_json(history_document(found))
        return
    from ggufbench.report.text.history import history_report
    from ggufbench.report.text.terminal import width_of

    print_rich(history_report(found, width_of()))


def gate(
    run: RunName = None,
    results: Results = Path("results"),
    since: Since = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 13 if the history is too short or inconclusive.")
    ] = False,
    rebuild: Rebuild = False,
    as_json: AsJson = False,
) -> None:
    """Judge a stored run by the sessions before it. Nothing is measured.

    Only series relative to an anchor decide: one bad session is suspect and should be measured again, two in
    a row are a regression. Absolute series are shown and never fail. Example: ggufbench gate --strict

    Exit codes, the first that applies: 11 if a case failed that was measured before; 14 if the run measured
    nothing; 11 if a case is missing; 10 for a regression; 12 if no earlier session is comparable; 13 with
    --strict if a series is suspect, has fewer than 10 earlier sessions or no anchor; 0 otherwise.
    """
    from ggufbench.history.gate import HistoryGateRequest
    from ggufbench.history.gate import gate as answer

    with ProgressLine() as line:
        found = answer(HistoryGateRequest(results, run, since, rebuild, _reading(line)))
    from ggufbench.report.text.history_gate import gate_document, gate_report

    if as_json:
        print_json(gate_document(found, strict=strict))
    else:
        print_rich(gate_report(found, strict=strict))
    raise typer.Exit(found.exit_code(strict=strict))


def _reading(line: ProgressLine) -> Callable[[int, int], None]:
    """A function that shows how many documents are indexed. Thousands take a while, but only once."""

    def show(done: int, total: int) -> None:
        if total >= 1000 and (done % 500 == 0 or done == total):
            line.show(f"Reading {done} of {total} documents into the index", done / total)

    return show
