"""Peak memory by part, compared with the size of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufbench.analysis.advice import breakdown_of
from ggufbench.records.schema import Record
from ggufbench.report.figures.captions import beside, failure, sentences, summary
from ggufbench.report.figures.cases import CaseFacts, FigureRow
from ggufbench.report.figures.rows import RowFigure, Words
from ggufbench.report.figures.sketch import Sketch
from ggufbench.report.figures.style import (
    AMBER,
    BLUE,
    GRAY,
    GREEN,
    INK,
    PAPER,
    PURPLE,
    SKY,
    VERMILLION,
    Color,
)  # fmt: skip
from ggufbench.text import size, times

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRIC = "peak_rss_bytes"
_NAME, _TITLE = "memory", "Peak memory by part"
_GIB = 2.0**30

_PARTS: dict[str, tuple[str, Color, str]] = {
    "mapped": ("mapped weights", BLUE, ""),
    "repacked": ("repacked weights", SKY, "////"),
    "weights": ("weights copied", GREEN, "...."),
    "interpreter": ("interpreter", GRAY, ""),
    "vocabulary": ("vocabulary", GRAY, "...."),
    "kv": ("KV cache", AMBER, "\\\\\\\\"),
    "compute": ("compute", PURPLE, ""),
    "other": ("other", GRAY, "xxxx"),
    "transformers": ("transformers, in total", VERMILLION, "////"),
}
"""Name, colour and hatch in the order of stacking. Reserved memory that was never used is not drawn."""


def memory(facts: CaseFacts) -> Sketch | None:
    """Build the figure of peak memory by part; None if no case has a peak."""
    chosen = facts.choose(lambda record: METRIC in record.summary)
    if not any(METRIC in row.record.summary for row in chosen.rows):
        return None

    def draw(title: str | None) -> Figure:
        note = "Peak memory of the process; less is better."
        if any(beside(row.versus, METRIC) for row in chosen.rows):
            note += " 0.33x bf16 means a third of the memory of transformers-bf16."
        figure = RowFigure(chosen, title, note)
        used = [_bar(figure, placed.row, placed.y) for placed in figure.placed]
        figure.write(_words, max((p.row.record.loaded_bytes / _GIB for p in figure.placed), default=0.0))
        figure.axes.set_xlabel("GiB")
        _legend(figure, set().union(*used))
        return figure.canvas.figure

    caption = sentences(
        f"{summary(facts.pairs, METRIC)} The black line is the size of the loaded file; "
        f"peak memory should be close to it. {devices_sentence(chosen.rows)}{chosen.note}"
    )
    return Sketch(_NAME, _TITLE, caption, _description(chosen.rows), draw)


def devices_sentence(rows: list[FigureRow]) -> str:
    """Memory of GPUs in this figure, as a sentence."""
    if not any(row.record.setting.device == "metal" for row in rows):
        return "Memory on devices is not included."
    return (
        "Apple's GPU uses the memory of the process, which is included; memory of other devices is not. "
        "Activity Monitor shows the footprint, which does not count mapped weights and is smaller."
    )


def parts_of(record: Record) -> dict[str, float]:
    """Bytes by part, whose sum is the median peak; the unexplained rest is `other`.

    llama.cpp reserves buffers that a short workload does not fill. Parts are counted in the order of stacking
    until the peak is reached, so that memory that was never used is not drawn.
    """
    left = record.summary[METRIC].median
    found = breakdown_of(record)
    if found is None or not any(found.parts[part] for part in ("mapped", "repacked", "weights")):
        start = min(float(found.parts["interpreter"]), left) if found else 0.0
        return {"interpreter": start, "transformers" if record.is_baseline else "other": left - start}
    parts = {}
    held = {str(part): size for part, size in found.parts.items()}
    for part in _PARTS:
        parts[part] = min(float(held.get(part, 0)), left)
        left -= parts[part]
    parts["other"] += left
    return parts


def _bar(figure: RowFigure, row: FigureRow, y: float) -> set[str]:
    """Draw a bar and return the legend entries that it needs."""
    if METRIC not in row.record.summary:
        figure.axes.plot([0], [y], marker="x", color=VERMILLION.light, clip_on=False, markersize=6)
        return {"failed"}
    used = {"file"}
    start = 0.0
    for part, held in parts_of(row.record).items():
        if held <= 0:
            continue
        _, color, hatch = _PARTS[part]
        figure.axes.barh(
            y, held / _GIB, figure.bar, left=start, color=color.light, hatch=hatch or None,
            edgecolor=PAPER.light, linewidth=0.4,
        )  # fmt: skip
        start += held / _GIB
        used.add(part)
    file = row.record.loaded_bytes / _GIB
    half = 0.5 * figure.bar + 0.16
    figure.axes.plot(
        [file, file], [y - half, y + half], color=INK.light, linewidth=2.2, solid_capstyle="butt"
    )
    return used


def _words(row: FigureRow) -> Words:
    found, ended = row.record.summary.get(METRIC), failure(row.record)
    if found is None:
        return Words(ended or "not measured", 0.0, VERMILLION.light, "italic")
    said = size(found.median)
    if row.record.loaded_bytes:
        said += f", {times(found.median / row.record.loaded_bytes)}x file"
    parts = [said, beside(row.versus, METRIC), ended or ""]
    end = max(found.median, row.record.loaded_bytes) / _GIB
    return Words(" · ".join(part for part in parts if part), end)


def _legend(figure: RowFigure, used: set[str]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[object] = []
    labels = []
    for part, (label, color, hatch) in _PARTS.items():
        if part in used:
            patch = Patch(facecolor=color.light, edgecolor=PAPER.light, hatch=hatch or None, linewidth=0)
            handles.append(patch)
            labels.append(label)
    if "file" in used:
        handles.append(
            Line2D([], [], color=INK.light, linewidth=0, marker="|", markersize=9, markeredgewidth=2.2)
        )
        labels.append("file size")
    if "failed" in used:
        handles.append(Line2D([], [], color=VERMILLION.light, linewidth=0, marker="x", markersize=6))
        labels.append("no value")
    figure.canvas.legend(handles, labels)


def _description(rows: list[FigureRow]) -> str:
    said = []
    for row in rows:
        words = f"{row.title}: {_words(row).words}"
        if METRIC in row.record.summary:
            parts = [f"{_PARTS[part][0]} {size(held)}" for part, held in parts_of(row.record).items() if held]
            words += f" ({', '.join(parts)})"
        said.append(words)
    return f"{_TITLE}. " + "; ".join(said) + "."
