"""The table of results that came from another program."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType

from ggufbench.records.imported import ImportedResult
from ggufbench.report.text.terminal import table, text
from ggufbench.text import rate


def imported_table(results: Sequence[ImportedResult]) -> RenderableType:
    """Each test on a line, and the caveat of all of them below."""
    shown = table("Model", "Test", ">Mean", ">Deviation", "Build", "Measured")
    for result in results:
        shown.add_row(
            text(result.model),
            text(result.test),
            text(rate(result.tokens_per_second)),
            text(f"{result.deviation:.2g}"),
            text(result.build),
            text(result.measured[:10]),
        )
    caveats = dict.fromkeys(result.caveat for result in results)
    return Group(shown, *(text(f"{caveat}.", style="yellow") for caveat in caveats))
