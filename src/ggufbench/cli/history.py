"""The commands over stored sessions: `history`, `gate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ggufbench.cli.options import AsJson, CaseMatch, Results, RunName, print_json, print_rich
from ggufbench.cli.progress import ProgressLine

Since = Annotated[
    str | None,
    typer.Option(metavar="RUN", help="Begin with this run: what was before it is accepted as gone."),
]
Rebuild = Annotated[bool, typer.Option("--rebuild", help="Make the index anew from the stored documents.")]


def history(
    results: Results = Path("results"),
    match: CaseMatch = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="This metric instead of the gated ones (repeatable).")
    ] = None,
    machine: Annotated[
        str | None, typer.Option(metavar="FINGERPRINT", help="This machine, not that of the newest session.")
    ] = None,
    since: Since = None,
    rebuild: Rebuild = False,
    as_json: AsJson = False,
) -> None:
    """List every series of sessions with its state, and draw it where few are chosen.

    A session that is worse than the median of the 20 before it, by more than the tolerance and by more than
    chance explains, is suspect; two running are a regression.
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
        bool, typer.Option("--strict", help="Exit 13 where history cannot tell: do not let it pass.")
    ] = False,
    rebuild: Rebuild = False,
    as_json: AsJson = False,
) -> None:
    """Judge a run by the sessions stored before it; measure nothing.

    Series against an anchor decide: one bad session is suspect, and asks for another; two running are a
    regression. Absolute series are shown, and fail nothing.

    Exits, the first that holds: 11 where a case broke that history measured; 14 where the run measured
    nothing; 11 where a case is missing; 10 regression; 12 no earlier session compares; 13 with --strict
    where a series is suspect, has fewer than 10 earlier sessions, or no anchor; 0 otherwise.
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
    """Show how many documents are in the index; reading thousands takes a while, and happens once."""

    def show(done: int, total: int) -> None:
        if total >= 1000 and (done % 500 == 0 or done == total):
            line.show(f"Reading {done} of {total} documents into the index", done / total)

    return show
