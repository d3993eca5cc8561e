"""The command that writes a page: `report`."""

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
            help="Names or folders of runs, the newest if left out; of several, each case's newest record.",
        ),
    ] = None,
    results: Results = Path("results"),
    out: Annotated[
        Path | None,
        typer.Option(help="The page to write, or a folder for it (default: RESULTS/report.html)."),
    ] = None,
    match: CaseMatch = None,
    scenario: ScenarioNames = None,
    model: ModelMatch = None,
    against: Annotated[
        str | None, typer.Option(metavar="RUN", help="Compare with this earlier run, in a table.")
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write each figure here too, as SVG and as PNG.")
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Of the page, in place of one made of its models.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there and no report.")
    ] = False,
    browse: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a run as one HTML file, figures and all, with a picture beside it.

    The page needs no network and asks nobody for anything.
    """
    from ggufbench.records.record_summary import many_objects
    from ggufbench.report.page import write_report
    from ggufbench.report.record_selection import Choice, choose

    choice = Choice(results, runs or [], match or [], scenario or [], model or [], against, tell)
    with many_objects():
        content = choose(choice)
        for problem in content.problems:
            print_error(problem)
        tell("drawing")
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
            f"{folder} cannot be written: {error.strerror or error}; give another folder to --figures"
        ) from None


def _open(page: Path) -> None:
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        print_error(f"no browser was found; open {page} yourself")
