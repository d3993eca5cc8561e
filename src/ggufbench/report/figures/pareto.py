"""Decode rate against peak memory, with the Pareto front of each model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufbench.metrics import METRICS
from ggufbench.records.schema import Record
from ggufbench.report.figures.captions import beside, gain, plain, sentences, summary
from ggufbench.report.figures.cases import CaseFacts, key_of
from ggufbench.report.figures.label_placement import Labels
from ggufbench.report.figures.scatter import both_log, bytes_axis, log_axis, thin
from ggufbench.report.figures.sketch import Sketch
from ggufbench.report.figures.style import (
    AMBER,
    BLUE,
    GRAY,
    GREEN,
    INK,
    PURPLE,
    SKY,
    VERMILLION,
    WIDTH,
    Canvas,
    Color,
    fit,
)  # fmt: skip
from ggufbench.text import rate, size, times

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

SPEED, MEMORY, DEVICE = "decode_tokens_per_second", "peak_rss_bytes", "device_bytes"
_LOSS = "kl_divergence"
_TITLE = "Speed against memory"
_HEIGHT = 5.4
_FRONTS: Sequence[tuple[Color, str, str]] = (
    (BLUE, "o", "-"),
    (GREEN, "^", "--"),
    (PURPLE, "D", "-."),
    (AMBER, "v", ":"),
    (SKY, "P", "-"),
    (INK, "X", "--"),
)
"""Colour, marker and line of each model; further models are grey."""
_MOST_LABELS = 24


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """One case."""

    record: Record
    memory: float
    """Bytes of the process and of its devices."""
    speed: float
    """Decoded tokens per second."""


def pareto(facts: CaseFacts) -> Sketch | None:
    """Build the figure; None if no llama.cpp case has a decode rate and a peak."""
    points = [point for record in facts.records if (point := point_of(record))]
    models = _by_model(point for point in points if not point.record.is_baseline)
    if not models:
        return None
    named = set(sorted(models, key=lambda name: _rank(facts, models[name]))[: len(_FRONTS)])
    shown = {name: found for name, found in models.items() if name in named}

    def draw(title: str | None) -> Figure:
        return _draw(facts, points, shown, title)

    caption = sentences(
        summary(facts.pairs, SPEED),
        "Fast cases are at the top, small ones at the left. Filled, connected points are the cases that no "
        "other case of the same model beats in both; a hollow point is beaten by another.",
        _note(points, models, shown),
    )
    return Sketch("pareto", _TITLE, caption, _description(facts, shown), draw)


def point_of(record: Record) -> ParetoPoint | None:
    """Point of a case; None if it has no decode rate or no peak memory.

    Memory is the peak of the process plus the allocations of llama.cpp on devices. If a device shares the
    memory of the processor (Metal), its buffers may be in both values, and the larger value counts.
    """
    speed, peak, device = (record.summary.get(metric) for metric in (SPEED, MEMORY, DEVICE))
    if speed is None or peak is None or speed.median <= 0 or peak.median <= 0:
        return None
    on_device = device.median if device else 0.0
    shared = record.setting.device in ("metal", "mps")
    memory = max(peak.median, on_device) if shared else peak.median + on_device
    return ParetoPoint(record, memory, speed.median)


def front(points: Iterable[ParetoPoint]) -> list[ParetoPoint]:
    """Points that no other point beats in memory and speed, from small to large."""
    best: list[ParetoPoint] = []
    for point in sorted(points, key=lambda one: (one.memory, -one.speed)):
        if not best or point.speed > best[-1].speed:
            best.append(point)
    return best


def _by_model(points: Iterable[ParetoPoint]) -> dict[str, list[ParetoPoint]]:
    found: dict[str, list[ParetoPoint]] = {}
    for point in points:
        found.setdefault(point.record.model.name, []).append(point)
    return found


def _rank(facts: CaseFacts, points: Sequence[ParetoPoint]) -> tuple[bool, int, str]:
    has_baseline = any(facts.versus.get(key_of(point.record)) for point in points)
    return (
        not has_baseline,
        -len({point.record.model.quantization for point in points}),
        points[0].record.model.name,
    )


def _draw(
    facts: CaseFacts, points: Sequence[ParetoPoint], shown: dict[str, list[ParetoPoint]], title: str | None
) -> Figure:
    canvas = Canvas(_HEIGHT, title)
    axes = canvas.axes(0.95, 0.4, WIDTH - 1.15, _HEIGHT - 0.95)
    x = min(p.memory for p in points) / 1.5, max(p.memory for p in points) * 1.8
    y = min(p.speed for p in points) / 1.8, max(p.speed for p in points) * 1.8
    both_log(axes, x, y)
    bytes_axis(axes.xaxis, *x)
    log_axis(axes.yaxis, *y, "t/s")
    axes.set_xlabel("peak memory of the process and its devices (left is better)")
    axes.set_ylabel("decode, tokens per second (up is better)")
    labels = Labels(axes)
    others = [p for p in points if p.record.model.name not in shown and not p.record.is_baseline]
    entries = [("other models", _marks(axes, labels, others, (GRAY, ".", 6.0, True)))]
    fronts = []
    for (name, found), look in zip(shown.items(), _FRONTS, strict=False):
        best = front(found)
        beaten = [point for point in found if point not in best]
        color, marker, line = look
        _marks(axes, labels, beaten, (color, marker, 6.0, False))
        where = [(point.memory, point.speed) for point in best]
        connected = axes.plot(
            *zip(*where, strict=True), color=color.light, linestyle=line, linewidth=1.4, marker=marker,
            markersize=7, zorder=4,
        )  # fmt: skip
        entries.append((name, connected))
        labels.keep_off(where, 5)
        labels.keep_off_line(where)
        fronts.append(best)
    baselines = [point for point in points if point.record.is_baseline]
    entries.append(("transformers", _marks(axes, labels, baselines, (VERMILLION, "s", 7.0, True))))
    left = _MOST_LABELS
    for best in fronts:
        for number, point in enumerate(best[:left]):
            _name(facts, labels, point, with_model=number == 0)
        left -= len(best[:left])
    paired = [point for found in shown.values() for point in found if _ratios(facts, point.record)]
    for point in [point for point in paired if not any(point in best for best in fronts)][:left]:
        _name(facts, labels, point, with_model=True)
    for point in baselines[:left]:
        name = fit(f"{plain(point.record.model.name)} {facts.label(point.record)}", 3.2)
        labels.put((point.memory, point.speed), name, VERMILLION.light)
    canvas.legend(
        [line for _, lines in entries for line in lines],
        [fit(plain(name), 1.7) for name, lines in entries if lines],
    )
    return canvas.figure


def _marks(
    axes: Axes, labels: Labels, points: Sequence[ParetoPoint], look: tuple[Color, str, float, bool]
) -> list[Line2D]:
    """Draw the points and return their entry in the legend, if there are any."""
    color, marker, size, is_filled = look
    drawn = thin((point.memory, point.speed) for point in points)
    if not drawn:
        return []
    labels.keep_off(drawn, size / 2 + 1)
    return axes.plot(
        *zip(*drawn, strict=True), linestyle="none", marker=marker, markersize=size,
        markeredgecolor=color.light, markerfacecolor=color.light if is_filled else "none", zorder=3,
    )  # fmt: skip


def _name(facts: CaseFacts, labels: Labels, point: ParetoPoint, *, with_model: bool) -> None:
    model = f"{plain(point.record.model.name)} " if with_model else ""
    name = fit(model + facts.label(point.record) + _loss(facts, point.record), 2.6)
    ratios = _ratios(facts, point.record)
    at = (point.memory, point.speed)
    if not (ratios and labels.put(at, f"{name}\n{fit(ratios, 2.6)}", INK.light)):
        labels.put(at, name, INK.light)


def _loss(facts: CaseFacts, record: Record) -> str:
    """The divergence of the file's answers from those of the largest file, if they were compared."""
    found = next((nats for one in facts.records if (nats := _divergence(one, record)) is not None), None)
    return "" if found is None else f", {METRICS[_LOSS].amount(found)}"


def _divergence(scored: Record, record: Record) -> float | None:
    reference, identity = scored.reference, scored.model.identity
    if reference is None or reference.identity == identity or identity != record.model.identity:
        return None
    return scored.summary[_LOSS].median if _LOSS in scored.summary else None


def _ratios(facts: CaseFacts, record: Record) -> str:
    """Ratios to the baseline with the closest speed: `3.2x bf16 in 0.33x its memory`."""
    found = [
        (speed, versus, memory.value)
        for versus in facts.versus.get(key_of(record), ())
        if (speed := gain(versus, SPEED)) and (memory := versus.ratios.get(MEMORY))
    ]
    if not found:
        return ""
    _, versus, memory_part = min(found, key=lambda one: one[0])
    return f"{beside([versus], SPEED)} in {times(memory_part)}x its memory"


def _note(
    points: Sequence[ParetoPoint], models: dict[str, list[ParetoPoint]], shown: dict[str, list[ParetoPoint]]
) -> str:
    if len(models) == len(shown):
        return ""
    fronts = f"the fronts of {len(shown)} of {len(models):,} models"
    return f" The figure shows {fronts} and all {len(points):,} cases."


def _description(facts: CaseFacts, shown: dict[str, list[ParetoPoint]]) -> str:
    said = []
    for name, points in shown.items():
        best = [
            f"{facts.label(point.record)} with {rate(point.speed)} in {size(point.memory)}"
            for point in front(points)[:_MOST_LABELS]
        ]
        said.append(f"best choices of {plain(name)}: {', '.join(best)}")
    return f"{_TITLE}. " + "; ".join(said) + "."
