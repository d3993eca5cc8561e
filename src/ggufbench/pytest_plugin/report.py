"""`pytest --report`: the page of a run, written when its session has ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ggufbench.errors import GgufbenchError
from ggufbench.pytest_plugin.options import option

if TYPE_CHECKING:
    import pytest


def check_option(path: str | None) -> None:
    """A test's name after --report would be taken for a path, and never be run. Raises GgufbenchError."""
    if path and not path.lower().endswith((".html", ".htm")):
        raise GgufbenchError(f"--report {path} names no page; give --report=PATH.html, or --report last")


def write(reporter: pytest.TerminalReporter, results: Path, run: str) -> None:
    """Write the page of a stored run; what goes wrong with it is a sentence, and changes nothing else."""
    from ggufbench.report.page import write_report
    from ggufbench.report.record_selection import Choice, choose

    asked, config = option(reporter.config, "report"), reporter.config
    out = config.invocation_params.dir / asked if asked else results / run / "report.html"
    try:
        page, picture = write_report(choose(Choice(results, [run])), out)
    except KeyboardInterrupt:
        reporter.write(f"report: not written, because of Ctrl-C; again: ggufbench report {run}\n")
    except Exception as error:  # the run is what counts, and it is over
        reporter.write(f"report: not written: {error}; again: ggufbench report {run}\n")
    else:
        reporter.write(f"report: {page}\npicture: {picture}\n")
