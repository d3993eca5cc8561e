"""History of a machine: series over its sessions, with levels, change points and suspects."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ggufbench.history.judgement import State
from ggufbench.history.series import ANCHORED, Level, SeriesRow
from ggufbench.metrics import METRICS
from ggufbench.report.figures.captions import plain
from ggufbench.report.figures.sketch import Sketch
from ggufbench.report.figures.style import (
    AMBER,
    BLUE,
    INK,
    MUTED,
    NORMAL,
    PURPLE,
    VERMILLION,
    WIDTH,
    Canvas,
    fit,
)  # fmt: skip
from ggufbench.report.text.history import amount, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLE = "History"
_MOST = 6
"""Most series in the figure, the worst first."""
_LEAST_SESSIONS = 3
_MOST_SESSIONS = 500
"""Newest sessions that are drawn of a longer series."""
_ORDER = (State.REGRESSION, State.SUSPECT, State.OK, State.TOO_FEW)
_PANEL, _GAP, _LEFT, _TOP = 2.75, 0.25, 0.95, 0.4
"""Inches of height and of the margins between panels."""


def history(rows: Sequence[SeriesRow]) -> Sketch | None:
    """Build the figure of at most six series; None if no series has three sessions."""
    drawable = [row for row in rows if len(row.series.sessions) >= _LEAST_SESSIONS and _is_real(row)]
    worst = sorted(drawable, key=lambda row: (_ORDER.index(row.state), -row.newest.created))[:_MOST]
    if not worst:
        return None

    def draw(title: str | None) -> Figure:
        return _draw(worst, title)

    left_out = (
        f" The figure shows {len(worst)} of {len(drawable):,} series." if len(worst) < len(drawable) else ""
    )
    caption = (
        "One point for each session. Triangles mark sessions that were worse than chance and tolerance "
        "explain. Dotted lines mark changes of the level, and bars show the level between them."
        f"{left_out}"
    )
    return Sketch("history", _TITLE, caption, _description(worst), draw)


def _is_real(row: SeriesRow) -> bool:
    """True if an axis can show all values; a damaged file may contain any value."""
    return all(abs(session.value) < 1e16 for session in row.series.sessions)


def _draw(rows: Sequence[SeriesRow], title: str | None) -> Figure:
    columns = min(2, len(rows))
    lines = -(-len(rows) // columns)
    canvas = Canvas(_TOP + lines * _PANEL, title)
    each = WIDTH / columns
    for number, row in enumerate(rows):
        line, column = divmod(number, columns)
        left, top = column * each, _TOP + line * _PANEL
        axes = canvas.axes(left + _LEFT, top + 0.42, each - _LEFT - _GAP, _PANEL - 1.2)
        name = fit(plain(row.series.case_id), each - 0.3, NORMAL, "bold")
        canvas.text(left + 0.15, top, name, size=NORMAL, weight="bold")
        canvas.text(left + 0.15, top + 0.2, fit(_subtitle(row), each - 0.3), color=MUTED.light)
        _panel(axes, row)
        for place, words in enumerate(_below(row)):
            canvas.text(
                left + 0.15, top + _PANEL - 0.48 + 0.17 * place, fit(words, each - 0.3), color=PURPLE.light
            )
    _legend(canvas)
    return canvas.figure


def _panel(axes: Axes, row: SeriesRow) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    start = max(0, len(row.series.sessions) - _MOST_SESSIONS)
    sessions, judged = row.series.sessions[start:], row.judged[start:]
    values = [session.value for session in sessions]
    changes = [level.point.index - start for level in row.levels if level.point.index > start]
    axes.plot(range(len(values)), values, color=BLUE.light, linewidth=0.8, alpha=0.5)
    for states, marker, color, size in (
        ((State.OK, State.TOO_FEW), "o", BLUE, 3.6),
        ((State.SUSPECT,), "^", AMBER, 7.0),
        ((State.REGRESSION,), "^", VERMILLION, 8.0),
    ):
        places = [place for place, one in enumerate(judged) if one.state in states]
        axes.plot(
            places, [values[place] for place in places], linestyle="none", marker=marker, markersize=size,
            color=color.light, markeredgewidth=0, zorder=4,
        )  # fmt: skip
    for first, end in pairwise([0, *changes, len(values)]):
        level = statistics.median(values[first:end])
        axes.plot([first - 0.4, end - 0.6], [level, level], color=INK.light, linewidth=2, zorder=3)
    for place in changes:
        axes.axvline(place - 0.5, color=PURPLE.light, linewidth=1.2, linestyle=":")
    last = len(values) - 1
    axes.set_xlim(-0.7, last + 0.7)
    low, high = min(values), max(values)
    room = 0.15 * (high - low) or 0.02 * abs(high) or 0.01
    axes.set_ylim(low - room, high + room)
    axes.xaxis.set_major_locator(FixedLocator([0, last]))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda place, _: sessions[round(place)].day if 0 <= place <= last else "")
    )
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: amount(row, value)))
    labels = axes.get_xticklabels()
    labels[0].set_horizontalalignment("left")
    labels[-1].set_horizontalalignment("right")
    axes.grid(visible=False, axis="x")


def _subtitle(row: SeriesRow) -> str:
    newest = row.judged[-1].state
    if row.series.kind == ANCHORED:
        against = f"relative to {plain(row.series.anchor).split(' (build')[0]}, up is worse"
    else:
        against = f"absolute, up is {'worse' if METRICS[row.series.metric].better == 'lower' else 'better'}"
    change = ""
    if row.change is not None:
        change = f", {percent(abs(row.change)).lstrip('+')} {'worse' if row.change > 0 else 'better'}"
    return f"{METRICS[row.series.metric].short_label}: {newest.value}{change}; {against}"


def _newest_levels(row: SeriesRow) -> Sequence[Level]:
    """The two newest changes; a panel has space for two lines."""
    return row.levels[-2:]


def _below(row: SeriesRow) -> list[str]:
    """Two lines: one for each change, or one change and the versions that changed with it."""
    newest = _newest_levels(row)
    return (
        list(_level_words(row, newest[0]))
        if len(newest) == 1
        else [_level_sentence(row, one) for one in newest]
    )


def _level_sentence(row: SeriesRow, level: Level) -> str:
    return ": ".join(_level_words(row, level))


def _level_words(row: SeriesRow, level: Level) -> tuple[str, str]:
    change = math.expm1(level.point.shift)
    way = "worse" if change > 0 else "better"
    day = row.series.sessions[level.point.index].day
    beside = ", ".join(map(plain, level.changes)) or "no version changed"
    return f"{percent(abs(change)).lstrip('+')} {way} since {day}", beside


def _legend(canvas: Canvas) -> None:
    from matplotlib.lines import Line2D

    signs: Sequence[tuple[str, dict[str, Any]]] = (
        ("session", {"marker": "o", "markersize": 4, "color": BLUE.light, "linewidth": 0}),
        ("suspect", {"marker": "^", "markersize": 7, "color": AMBER.light, "linewidth": 0}),
        ("regression", {"marker": "^", "markersize": 8, "color": VERMILLION.light, "linewidth": 0}),
        ("level", {"color": INK.light, "linewidth": 2}),
        ("change of level", {"color": PURPLE.light, "linewidth": 1.2, "linestyle": ":"}),
    )
    canvas.legend([Line2D([], [], **look) for _, look in signs], [name for name, _ in signs])


def _description(rows: Sequence[SeriesRow]) -> str:
    said = []
    for row in rows:
        words = f"{plain(row.series.case_id)}, {_subtitle(row)}, {row.series.count} sessions"
        words += "".join(f", {_level_sentence(row, level)}" for level in _newest_levels(row))
        said.append(words)
    return f"{_TITLE}. " + "; ".join(said) + "."
