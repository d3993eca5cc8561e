"""Draw the pictures of the documentation from the run in results/first.

python tools/readme_picture.py

They are the README's comparison of llama.cpp and transformers for one model, and the final table of a run.
"""

import io
import shutil
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI

from ggufbench.records.runs import read_run
from ggufbench.records.schema import Record
from ggufbench.report.content import Content
from ggufbench.report.figures import save_figures
from ggufbench.report.text.terminal import results_table

CHECKOUT = Path(__file__).resolve().parent.parent
IMAGES = CHECKOUT / "docs" / "images"
WIDTH = 146


def main() -> None:
    """Write docs/images/versus.svg and results.svg."""
    records = read_run(CHECKOUT / "results", "first").records
    with tempfile.TemporaryDirectory() as folder:
        save_figures(Content(records), Path(folder))
        shutil.copy(Path(folder) / "versus.svg", IMAGES)
    draw_table(records)


def draw_table(found: list[Record]) -> None:
    """Draw the table at the end of the run."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(results_table(found, width=WIDTH))
    target = IMAGES / "results.svg"
    # With a fixed id the same table gives the same file. The fonts that rich names by address are left out.
    svg = console.export_svg(title="pytest bench --benchmark-only", theme=DIMMED_MONOKAI, unique_id="results")
    target.write_text(_without_downloads(svg), encoding="utf-8")


def _without_downloads(svg: str) -> str:
    """The picture without web fonts, so that a page with it makes no network request."""
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
