"""The HTML page of a run, written at the end of its session."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ggufbench.errors import GgufbenchError
from ggufbench.pytest_plugin.options import option

if TYPE_CHECKING:
    import pytest


def check_option(path: str | None) -> None:
    """Raise GgufbenchError for a test name after --report, which pytest would take for the page."""
    if path and not path.lower().endswith((".html", ".htm")):
        raise GgufbenchError(
            f"--report {path} is not an HTML file; use --report=PATH.html, or put --report last"
        )


def write(reporter: pytest.TerminalReporter, results: Path, run: str) -> None:
    """Write the page of a stored run. An error is printed and changes nothing else."""
    from ggufbench.report.page import write_report
    from ggufbench.report.record_selection import Choice, choose

    asked, config = option(reporter.config, "report"), reporter.config
    out = config.invocation_params.dir / asked if asked else results / run / "report.html"
    try:
        page, picture = write_report(choose(Choice(results, [run])), out)
    except KeyboardInterrupt:
        reporter.write(f"Report: not written because of Ctrl-C; write it with: ggufbench report {run}\n")
    except Exception as error:  # the run itself is complete and stored
        reporter.write(f"Report: not written: {error}; try again with: ggufbench report {run}\n")
    else:
        reporter.write(f"Report: {page}\nPicture: {picture}\n")
