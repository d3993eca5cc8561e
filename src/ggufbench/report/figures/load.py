"""Load time against file size, with the documented range."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufbench.metrics import METRICS
from ggufbench.outcomes import Outcome
from ggufbench.records.schema import Record
from ggufbench.report.figures.captions import beside, failure, failures, sentences, summary
from ggufbench.report.figures.cases import CaseFacts, FigureRow, key_of
from ggufbench.report.figures.label_placement import Labels
from ggufbench.report.figures.scatter import both_log, bytes_axis, log_axis, thin
from ggufbench.report.figures.sketch import Sketch
from ggufbench.report.figures.style import BAND, BLUE, GREEN, MUTED, VERMILLION, WIDTH, Canvas, fit
from ggufbench.text import size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WARM, COLD = "ready_seconds", "cold_ready_seconds"
_TITLE = "Load time against file size"
_PROMISED_BYTES, _PROMISED_SECONDS = 11e9, (5.0, 10.0)
"""Example in the documentation."""
_HEIGHT = 5.4
_LONGEST = 1e9
"""Longest target or timeout in seconds; a larger one comes from a damaged file."""
_FEW = 12
"""With more cases, those without a baseline are labelled only if there is space next to their point."""


@dataclass(frozen=True, slots=True)
class Promise:
    """Documented range: a file loads in `bytes / fast` to `bytes / slow` seconds."""

    slow: float
    fast: float
    """Bytes per second."""
    least_seconds: float
    """Shortest limit, for small files."""


def load(facts: CaseFacts) -> Sketch | None:
    """Build the figure of warm and cold loads; None if no case loaded."""
    loaded = [record for record in facts.records if _has_load(record)]
    if not loaded:
        return None
    chosen = facts.choose(_has_load)

    def draw(title: str | None) -> Figure:
        return _draw(facts, loaded, chosen.rows, title)

    caption = sentences(
        summary(facts.pairs, WARM),
        failures(facts.pairs),
        "The band is the documented range: 11 GB in 5 to 10 s, and one second for small files.",
        "In a warm load, the file is already in memory; a cold load reads it from the disk.",
        _note(len(loaded)),
    )
    return Sketch("load", _TITLE, caption, _description(chosen.rows), draw)


def promise_of(records: Sequence[Record]) -> Promise:
    """Range from the targets in the records, or the documented range if the records have none.

    The limit of a target is max(small, bytes / rate), so that only files above `small` show the rate.
    """
    found = [
        (record.loaded_bytes, target.limit, target.promise)
        for record in records
        for target in record.targets
        if target.name == "load"
        and 0 < target.limit < _LONGEST
        and (target.promise is None or 0 < target.promise < _LONGEST)
    ]
    size, (best, worst) = _PROMISED_BYTES, _PROMISED_SECONDS
    least = min((min(limit, promise or limit) for _, limit, promise in found), default=1.0)
    slow = [size / limit for size, limit, _ in found if limit > 1.001 * least]
    fast = [size / promise for size, _, promise in found if promise and promise > 1.001 * least]
    floor = statistics.median(slow) if slow else size / worst
    return Promise(floor, max(floor, statistics.median(fast) if fast else size / best), least)


def _has_load(record: Record) -> bool:
    return record.loaded_bytes > 0 and any(
        metric in record.summary and record.summary[metric].median > 0 for metric in (WARM, COLD)
    )


def _draw(facts: CaseFacts, loaded: Sequence[Record], rows: Sequence[FigureRow], title: str | None) -> Figure:
    canvas = Canvas(_HEIGHT, title)
    axes = canvas.axes(0.85, 0.4, WIDTH - 1.05, _HEIGHT - 0.95)
    hung = [row for row in rows if _hung_seconds(row.record)]
    seconds = [
        r.summary[m].median
        for r in loaded
        for m in (WARM, COLD)
        if m in r.summary and r.summary[m].median > 0
    ]
    seconds += [_hung_seconds(row.record) for row in hung]
    sizes = [record.loaded_bytes for record in loaded]
    x = (min(sizes) / 2.2, max(max(sizes) * 1.6, _PROMISED_BYTES * 1.5))
    y = (min(seconds) / 2, max(max(seconds) * 2, 20.0))
    both_log(axes, x, y)
    bytes_axis(axes.xaxis, *x)
    log_axis(axes.yaxis, *y, "s")
    axes.set_xlabel("size of the loaded file")
    axes.set_ylabel("time from opening the file to the first token")
    labels = Labels(axes)
    _band(axes, promise_of(loaded), x, labels)
    drawn: list[tuple[float, float]] = []
    for baseline in (False, True):
        of_kind = [record for record in loaded if record.is_baseline == baseline]
        drawn += _points(axes, of_kind, baseline=baseline)
    labels.keep_off(drawn, 4.5)
    _joins(axes, rows, labels)
    for row in hung:
        _hung(axes, row.record)
    labels.keep_off([(row.record.loaded_bytes, _hung_seconds(row.record)) for row in hung], 5)
    crowded = len(rows) > _FEW
    for row in sorted(rows, key=_label_rank):
        _name(labels, row, far=not crowded or _label_rank(row) < 3)
    canvas.legend(*axes.get_legend_handles_labels())
    return canvas.figure


def _band(axes: Axes, promise: Promise, x: tuple[float, float], labels: Labels) -> None:
    corners = sorted(
        {*x, *(min(max(promise.least_seconds * rate, x[0]), x[1]) for rate in (promise.slow, promise.fast))}
    )
    low = [max(promise.least_seconds, size / promise.fast) for size in corners]
    high = [max(promise.least_seconds, size / promise.slow) for size in corners]
    axes.fill_between(
        corners, low, high, color=BAND.light, linewidth=0, label="documented: 11 GB in 5 to 10 s"
    )
    axes.plot(corners, high, color=GREEN.light, linewidth=1.2)
    axes.plot(corners, low, color=GREEN.light, linewidth=1.0, linestyle="--")
    labels.keep_off_line(list(zip(corners, high, strict=True)))
    labels.keep_off_line(list(zip(corners, low, strict=True)))


def _points(axes: Axes, records: Sequence[Record], *, baseline: bool) -> list[tuple[float, float]]:
    color, marker, who = (VERMILLION, "s", "transformers") if baseline else (BLUE, "o", "llama.cpp")
    drawn = []
    for metric, fill, how in ((WARM, color.light, "warm"), (COLD, "none", "cold")):
        points = thin(
            (record.loaded_bytes, record.summary[metric].median)
            for record in records
            if metric in record.summary
        )
        if points:
            axes.plot(
                *zip(*points, strict=True),
                linestyle="none",
                marker=marker,
                markersize=6,
                markerfacecolor=fill,
                markeredgecolor=color.light,
                markeredgewidth=1.3,
                label=f"{who}, {how}",
                zorder=4,
            )
        drawn += points
    return drawn


def _joins(axes: Axes, rows: Sequence[FigureRow], labels: Labels) -> None:
    """Connect warm and cold loads of a case, and llama.cpp with transformers of a model."""
    shown = {key_of(row.record) for row in rows}
    for row in rows:
        points = [point for metric in (WARM, COLD) if (point := _point(row.record, metric))]
        if len(points) == 2:
            axes.plot(*zip(*points, strict=True), color=MUTED.light, linewidth=0.7, zorder=3)
            labels.keep_off_line(points)
        for versus in row.versus:
            ends = [point for one in (row.record, versus.baseline) if (point := _point(one, WARM))]
            if len(ends) == 2 and key_of(versus.baseline) in shown:
                axes.plot(
                    *zip(*ends, strict=True), color=VERMILLION.light, linewidth=0.8, linestyle=":", zorder=3
                )
                labels.keep_off_line(ends)


def _point(record: Record, metric: str) -> tuple[float, float] | None:
    found = record.summary.get(metric)
    return (record.loaded_bytes, found.median) if found and found.median > 0 else None


def _hung_seconds(record: Record) -> float:
    """Seconds until a load that hung was terminated; 0 for any other case."""
    if (
        record.outcome is not Outcome.HUNG
        or record.phase not in ("load", "first_decode")
        or not record.loaded_bytes
    ):
        return 0.0
    waited = (launch.wall_seconds for launch in record.launches if launch.outcome is Outcome.HUNG)
    return min(max(waited, default=0.0), _LONGEST)


def _hung(axes: Axes, record: Record) -> None:
    color = VERMILLION if record.is_baseline else BLUE
    at = (record.loaded_bytes, _hung_seconds(record))
    axes.plot(
        *([value] for value in at), marker="x", markersize=8, markeredgewidth=2, color=color.light, zorder=5
    )
    axes.annotate(
        "",
        at,
        xytext=(0, 18),
        textcoords="offset points",
        arrowprops={"arrowstyle": "<-", "color": color.light, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0},
    )


def _label_rank(row: FigureRow) -> int:
    """Priority of a label if there is no space for all: ratios first, then loads that hung."""
    if row.versus and beside(row.versus, WARM):
        return 0
    return 1 if _hung_seconds(row.record) else 2 if row.is_baseline else 3


def _name(labels: Labels, row: FigureRow, *, far: bool) -> None:
    record = row.record
    name = fit(row.title, 3.2)
    color = (VERMILLION if row.is_baseline else BLUE).light
    if _hung_seconds(record):
        labels.put((record.loaded_bytes, _hung_seconds(record)), f"{name}\n{failure(record)}", color, far=far)
        return
    point = _point(record, WARM) or _point(record, COLD)
    if point is None:
        return
    ratios = beside(row.versus, WARM)
    if not (ratios and labels.put(point, f"{name}\n{ratios}", color, far=far)):
        labels.put(point, name, color, far=far)


def _note(count: int) -> str:
    return (
        f"The figure shows {count:,} cases; points that cover each other are drawn once."
        if count > 100
        else ""
    )


def _description(rows: Sequence[FigureRow]) -> str:
    said = []
    for row in rows:
        found = [
            f"{METRICS[metric].amount(row.record.summary[metric].median)} {how}"
            for metric, how in ((WARM, "with the file in memory"), (COLD, "from disk"))
            if metric in row.record.summary
        ]
        parts = [", ".join(found), beside(row.versus, WARM), failure(row.record) or ""]
        name = f"{row.title} ({size(row.record.loaded_bytes)})"
        said.append(f"{name}: {', '.join(part for part in parts if part)}")
    return f"{_TITLE}: seconds from opening the file to the first token. " + "; ".join(said) + "."
