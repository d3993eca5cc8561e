"""Draw the README's picture: the final table of the run in results/first, as the terminal shows it.

python tools/readme_picture.py
"""

import io
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI

from ggufbench.records.schema import Record
from ggufbench.records.store import read_records
from ggufbench.report.terminal import results_table

CHECKOUT = Path(__file__).resolve().parent.parent
WIDTH = 146


def main() -> None:
    """Write docs/images/results.svg."""
    found = [record for record in read_records(CHECKOUT / "results") if isinstance(record, Record)]
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(results_table(found, width=WIDTH))
    target = CHECKOUT / "docs" / "images" / "results.svg"
    target.parent.mkdir(exist_ok=True)
    # A fixed id: the same table is the same file. The fonts that rich names by address are left out.
    svg = console.export_svg(title="pytest bench --benchmark-only", theme=DIMMED_MONOKAI, unique_id="results")
    target.write_text(_without_downloads(svg), encoding="utf-8")


def _without_downloads(svg: str) -> str:
    """The picture without web fonts: a page that shows it asks nobody for anything."""
    lines = svg.splitlines(keepends=True)
    kept, inside = [], False
    for line in lines:
        inside = inside or "@font-face" in line
        if not inside:
            kept.append(line)
        inside = inside and "}" not in line
    return "".join(kept)


if __name__ == "__main__":
    main()
