"""The tables of ratios: beside transformers, against an earlier run, and of comparisons by launch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ggufbench.analysis.baselines import Versus
from ggufbench.analysis.metrics import METRICS
from ggufbench.analysis.ratios import Ratio, ratio_of
from ggufbench.records.comparison import Comparison, Verdict
from ggufbench.records.schema import Record
from ggufbench.report import comparison as words_of
from ggufbench.report.content import Content
from ggufbench.report.view_case import ended
from ggufbench.report.words import NOTHING, amount, metric_name, shell_command, times

VERSUS_METRICS = (
    "ready_seconds",
    "cold_ready_seconds",
    "peak_rss_bytes",
    "prompt_tokens_per_second",
    "decode_tokens_per_second",
)
MOST_ROWS = 300
_KINDS = {
    Verdict.REGRESSION: "bad",
    Verdict.BROKEN: "bad",
    Verdict.MISSING: "bad",
    Verdict.INCONCLUSIVE: "warn",
    Verdict.NO_REGRESSION: "good",
    Verdict.IMPROVEMENT: "good",
}


@dataclass(frozen=True, slots=True)
class RatioCell:
    """A ratio in words."""

    ratio: str
    interval: str = ""
    kind: str = ""
    """`good` where the interval lies on the better side of 1, `bad` on the other."""
    values: str = ""


@dataclass(frozen=True, slots=True)
class VersusRow:
    """One llama.cpp record beside one of transformers."""

    case: str
    baseline: str
    outcome: str
    """How transformers ended, where it was not measured."""
    cells: Sequence[RatioCell]
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class AgainstRow:
    """One metric of one case, now and in the earlier run."""

    case: str
    metric: str
    earlier: str
    later: str
    cell: RatioCell


@dataclass(frozen=True, slots=True)
class Against:
    """The whole table."""

    run: str
    rows: Sequence[AgainstRow]
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Judged:
    """One comparison made launch by launch."""

    case: str
    verdict: str
    kind: str
    arms: str
    rows: Sequence[tuple[words_of.Row, str]]
    notes: Sequence[str]
    command: str


@dataclass(frozen=True, slots=True)
class Comparisons:
    """All of them."""

    headline: str
    legend: str
    cases: Sequence[Judged] = field(default_factory=list)


def versus_rows(pairs: Sequence[Versus]) -> list[VersusRow]:
    """Every llama.cpp record that has a baseline."""
    return [_versus_row(one) for one in pairs[:MOST_ROWS]]


def against(content: Content) -> Against | None:
    """The report's records beside those of the earlier run; None where none was asked for."""
    if content.against is None:
        return None
    earlier = {(r.case_id, r.machine.fingerprint): r for r in content.against.records}
    pairs = [(r, earlier.get((r.case_id, r.machine.fingerprint))) for r in content.records]
    rows = [row for later, before in pairs if before for row in _against_rows(before, later)]
    return Against(content.against.folder.name, rows[:MOST_ROWS], _against_notes(content, pairs, rows))


def comparisons(content: Content) -> Comparisons | None:
    """The comparisons of the report; None where there are none."""
    found = content.comparisons
    if not found:
        return None
    shown = sorted(found, key=lambda one: list(_KINDS).index(one.verdict))[:MOST_ROWS]
    return Comparisons(words_of.headline(found), words_of.legend(found), [_judged(one) for one in shown])


def _versus_row(one: Versus) -> VersusRow:
    return VersusRow(
        case=one.record.case_id,
        baseline=one.baseline.case_id,
        outcome="" if one.ratios else ended(one.baseline),
        cells=[_ratio_cell(name, one.ratios.get(name), _both(one, name)) for name in VERSUS_METRICS],
        notes=one.notes,
    )


def _both(one: Versus, metric: str) -> str:
    mine, other = one.record.summary.get(metric), one.baseline.summary.get(metric)
    return f"{amount(metric, mine.median)} against {amount(metric, other.median)}" if mine and other else ""


def _ratio_cell(metric: str, ratio: Ratio | None, values: str = "") -> RatioCell:
    if ratio is None:
        return RatioCell(NOTHING)
    if ratio.low is None or ratio.high is None or ratio.level is None:
        return RatioCell(times(ratio.value), "too few launches", values=values)
    interval = f"{times(ratio.low)} to {times(ratio.high)} ({100 * ratio.level:.0f} %)"
    better = METRICS[metric].better
    kind = ""
    if ratio.low > 1:
        kind = "good" if better == "higher" else "bad"
    elif ratio.high < 1:
        kind = "good" if better == "lower" else "bad"
    return RatioCell(times(ratio.value), interval, kind, values)


def _against_rows(before: Record, later: Record) -> Iterable[AgainstRow]:
    for metric in VERSUS_METRICS:
        old, new = before.summary.get(metric), later.summary.get(metric)
        if old and new and min(*old.per_launch, *new.per_launch, old.median, new.median) > 0:
            yield AgainstRow(
                later.case_id,
                metric_name(metric),
                amount(metric, old.median),
                amount(metric, new.median),
                _ratio_cell(metric, ratio_of(new.per_launch, old.per_launch)),
            )


def _against_notes(
    content: Content, pairs: Sequence[tuple[Record, Record | None]], rows: Sequence[AgainstRow]
) -> list[str]:
    assert content.against is not None  # noqa: S101 (asked by the caller)
    here = {(r.case_id, r.machine.fingerprint) for r in content.records}
    other = {r.machine.fingerprint for r in content.against.records}
    gone = [r.case_id for r in content.against.records if (r.case_id, r.machine.fingerprint) not in here]
    new = [later.case_id for later, before in pairs if before is None]
    notes = []
    if other and other.isdisjoint(r.machine.fingerprint for r in content.records):
        notes.append("The earlier run was measured on another machine, so there are no ratios.")
    elif gone or new:
        if new:
            notes.append(f"Only in this report: {_some(new)}.")
        if gone:
            notes.append(f"Only in the earlier run: {_some(gone)}.")
    changed = [later.case_id for later, before in pairs if before and _digests(later) != _digests(before)]
    if changed:
        notes.append(f"Not the same work, because the model answered otherwise: {_some(changed)}.")
    if len(rows) > MOST_ROWS:
        notes.append(f"{MOST_ROWS} of {len(rows)} rows are shown; --match chooses cases.")
    return notes


def _digests(record: Record) -> set[str]:
    return {launch.digest for launch in record.launches if launch.digest}


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def _judged(one: Comparison) -> Judged:
    return Judged(
        case=one.case_id,
        verdict=str(one.verdict),
        kind=_KINDS[one.verdict],
        arms=words_of.arms_line(one),
        rows=[(row, _KINDS[row.verdict]) for row in words_of.rows(one)],
        notes=words_of.notes(one),
        command=_ab_command(one),
    )


def _ab_command(one: Comparison) -> str:
    """The line that compares again."""
    arms = {arm.role: arm for arm in one.arms}
    words = ["ggufbench", "ab"]
    for role in ("baseline", "candidate", "anchor"):
        if role in arms and arms[role].kind != "current":
            words.append(f"--{role}={arms[role].name}")
    baseline = arms.get("baseline")
    if baseline is not None and baseline.kind != "scenario":
        words.append(f"--scenario={baseline.scenario}")
    return shell_command([*words, f"--models={one.model.path}"])
