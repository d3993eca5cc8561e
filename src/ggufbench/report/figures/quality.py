"""Divergence of the answers from those of the reference, against the size of the file and its speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ggufbench.analysis.quality import GRADES, AnswerQuality, quality_of
from ggufbench.records.schema import Record
from ggufbench.report.figures.captions import plain, sentences
from ggufbench.report.figures.cases import CaseFacts
from ggufbench.report.figures.label_placement import Labels
from ggufbench.report.figures.scatter import MOST_POINTS, both_log, bytes_axis, log_axis
from ggufbench.report.figures.sketch import Sketch
from ggufbench.report.figures.style import (
    AMBER,
    BLUE,
    GRAY,
    GREEN,
    PURPLE,
    SKY,
    WIDTH,
    Canvas,
    Color,
    fit,
)  # fmt: skip
from ggufbench.report.text.quality import divergence
from ggufbench.text import rate, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLE = "Answers against size and speed"
_SPEED = "decode_tokens_per_second"
_HEIGHT = 4.6
_LEAST_NATS = 1e-5
"""Lower end of the axis, at which a divergence of 0 is drawn."""
_LOOKS: Sequence[tuple[Color, str]] = (
    (BLUE, "o"), (GREEN, "^"), (PURPLE, "D"), (AMBER, "v"), (SKY, "P"),
)  # fmt: skip
"""Colour and marker of each model; further models are grey."""
_OTHERS: tuple[Color, str] = (GRAY, ".")


@dataclass(frozen=True, slots=True)
class QualityPoint:
    """One scored case."""

    record: Record
    quality: AnswerQuality
    speed: float | None
    """Decoded tokens per second of the same file in another case on the same device; None if unknown."""

    @property
    def family(self) -> str:
        """Name of the file that it was compared with, which all files of a model share."""
        return self.record.reference.name if self.record.reference else self.record.model.name

    @property
    def nats(self) -> float:
        """Its place on the axis."""
        return max(_LEAST_NATS, self.quality.kl_divergence.value)


def quality(facts: CaseFacts) -> Sketch | None:
    """Build the figure; None if no answers were compared."""
    speeds = {_subject(r): r.summary[_SPEED].median for r in facts.records if _SPEED in r.summary}
    points = [
        QualityPoint(record, found, speeds.get(_subject(record)))
        for record in facts.records
        if (found := quality_of(record))
    ][:MOST_POINTS]
    if not points:
        return None

    def draw(title: str | None) -> Figure:
        return _draw(points, title)

    grades = ", ".join(f"below {most:g} {word}" for most, word in GRADES)
    caption = sentences(
        "Small files are at the left, answers like those of the reference at the bottom. Whiskers are 95 % "
        f"intervals over the chunks of text. Dotted lines are words in use, in nats: {grades}."
    )
    return Sketch("quality", _TITLE, caption, _description(points), draw)


def _subject(record: Record) -> tuple[str, str]:
    return record.model.identity, record.setting.device


def _draw(points: Sequence[QualityPoint], title: str | None) -> Figure:
    canvas = Canvas(_HEIGHT, title)
    fast = [point for point in points if point.speed]
    width = (WIDTH - 1.5) / 2 if fast else WIDTH - 1.15
    names = list(dict.fromkeys(point.family for point in points))
    left = canvas.axes(0.95, 0.4, width, _HEIGHT - 0.95)
    entries = _panel(left, points, names, lambda point: float(point.record.model.file_size_bytes))
    left.set_xlabel("file size (left is better)")
    left.set_ylabel("KL divergence, nats (down is better)")
    if fast:
        right = canvas.axes(0.95 + width + 0.35, 0.4, width, _HEIGHT - 0.95)
        _panel(right, fast, names, lambda point: point.speed or 0.0, is_rate=True)
        right.set_xlabel("decode, tokens per second (right is better)")
        right.tick_params(labelleft=False)
    canvas.legend([line for line, _ in entries], [fit(plain(name), 2.2) for _, name in entries])
    return canvas.figure


def _panel(
    axes: Axes,
    points: Sequence[QualityPoint],
    names: Sequence[str],
    place: Callable[[QualityPoint], float],
    *,
    is_rate: bool = False,
) -> list[tuple[object, str]]:
    """Draw one panel; return the entry of each model in the legend."""
    xs = [place(point) for point in points]
    x = min(xs) / 1.4, max(xs) * 1.4
    y = min(point.nats for point in points) / 3, max(1.0, *(_high(point) * 1.5 for point in points))
    both_log(axes, x, y)
    log_axis(axes.xaxis, *x, "t/s") if is_rate else bytes_axis(axes.xaxis, *x)
    log_axis(axes.yaxis, *y, "")
    for most, _ in GRADES:
        axes.axhline(most, color=GRAY.light, linestyle=":", linewidth=0.9)
    labels = Labels(axes)
    labels.keep_off([(place(point), point.nats) for point in points], 5)
    entries: list[tuple[object, str]] = []
    for number, name in enumerate(names):
        color, marker = _LOOKS[number] if number < len(_LOOKS) else _OTHERS
        own = [point for point in points if point.family == name]
        if not own:
            continue
        at = [place(point) for point in own], [point.nats for point in own]
        (line,) = axes.plot(*at, linestyle="none", marker=marker, color=color.light, zorder=4)
        entries.append((line, name))
        for point in own:
            low = max(_LEAST_NATS, point.quality.kl_divergence.low or point.nats)
            axes.plot([place(point)] * 2, [low, _high(point)], color=color.light, linewidth=1.1, zorder=3)
            labels.put((place(point), point.nats), fit(_name(point), 1.6), color.light)
    return entries


def _high(point: QualityPoint) -> float:
    return max(point.nats, point.quality.kl_divergence.high or 0.0)


def _name(point: QualityPoint) -> str:
    """The quantization; for a file compared with itself, the types of its cache."""
    record = point.record
    if record.reference and record.reference.identity == record.model.identity:
        return plain(f"{record.setting.type_k}/{record.setting.type_v} cache")
    return plain(record.model.quantization)


def _description(points: Sequence[QualityPoint]) -> str:
    said = [
        f"{plain(point.record.model.name)} {_name(point)}: {divergence(point.quality.kl_divergence)} nats in "
        f"{size(point.record.model.file_size_bytes)}" + (f", {rate(point.speed)}" if point.speed else "")
        for point in points
    ]
    return f"{_TITLE}. " + "; ".join(said) + "."
