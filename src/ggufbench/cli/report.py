"""The command `report`, which writes an HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ggufbench.cli.options import (
    AsJson,
    CaseMatch,
    ModelMatch,
    Results,
    ScenarioNames,
    print_error,
    print_json,
)
from ggufbench.cli.progress import tell

if TYPE_CHECKING:
    from ggufbench.report.content import Content


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...",
            help="Names or folders of runs (default: the newest); of several, each case's newest record.",
        ),
    ] = None,
    results: Results = Path("results"),
    out: Annotated[
        Path | None,
        typer.Option(help="File or folder to write to (default: RESULTS/report.html)."),
    ] = None,
    match: CaseMatch = None,
    scenario: ScenarioNames = None,
    model: ModelMatch = None,
    against: Annotated[
        str | None, typer.Option(metavar="RUN", help="Add a table that compares with this earlier run.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also write each figure to this folder, as SVG and PNG."),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Title of the page (default: the names of the models).")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file that is not a report.")
    ] = False,
    browse: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a run as one HTML file with figures, and a picture of the overview.

    The page makes no network requests. Example: ggufbench report --out page.html --open

    Exit codes: 0; 2 if there is no such run or case, or a file cannot be written.
    """
    from ggufbench.records.record_summary import many_objects
    from ggufbench.report.page import write_report
    from ggufbench.report.record_selection import Choice, choose

    choice = Choice(results, runs or [], match or [], scenario or [], model or [], against, tell)
    with many_objects():
        content = choose(choice)
        for problem in content.problems:
            print_error(problem)
        tell("Drawing")
        page, picture = write_report(content, out or results / "report.html", title, overwrite=overwrite)
        drawn = _save_figures(content, figures) if figures else []
    if as_json:
        print_json(
            {
                "page": page,
                "picture": picture,
                "figures": drawn,
                "runs": content.runs,
                "cases": [record.case_id for record in content.records],
                "comparisons": [comparison.case_id for comparison in content.comparisons],
                "problems": content.problems,
            }
        )
    else:
        for path in (page, picture, *drawn):
            typer.echo(path)
    if browse:
        _open(page)


def _save_figures(content: Content, folder: Path) -> list[Path]:
    from ggufbench.report.figures import save_figures
    from ggufbench.report.page import ReportError

    try:
        return list(save_figures(content, folder))
    except OSError as error:
        raise ReportError(
            f"--figures {folder} cannot be written: {error.strerror or error}; name another folder"
        ) from None


def _open(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        print_error(f"no browser was found; open {page} manually")
