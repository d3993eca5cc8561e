"""Tables of ratios: llama.cpp to transformers, this run to an earlier one, candidate to baseline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ggufbench.analysis.baselines import Versus
from ggufbench.analysis.run_diff import CaseChange, Change, between
from ggufbench.analysis.verdicts import VERDICT_KINDS
from ggufbench.metrics import METRICS
from ggufbench.records.comparison import Comparison
from ggufbench.report.content import Content
from ggufbench.report.text import comparison as words_of
from ggufbench.report.text.phrases import NOTHING, shell_command, times
from ggufbench.report.text.run_diff import differences
from ggufbench.report.text.terminal import ended
from ggufbench.stats.ratios import Ratio
from ggufbench.text import listed

VERSUS_METRICS = (
    "ready_seconds",
    "cold_ready_seconds",
    "peak_rss_bytes",
    "prompt_tokens_per_second",
    "decode_tokens_per_second",
)
MOST_ROWS = 300


@dataclass(frozen=True, slots=True)
class RatioCell:
    """A ratio as text."""

    ratio: str
    interval: str = ""
    kind: str = ""
    """`good` if the whole interval is on the better side of 1, `bad` if it is on the worse side."""
    values: str = ""


@dataclass(frozen=True, slots=True)
class VersusRow:
    """A llama.cpp record compared with a transformers record."""

    case: str
    baseline: str
    outcome: str
    """Outcome of transformers, if it was not measured."""
    cells: Sequence[RatioCell]
    notes: Sequence[str]
    """Notes of this row alone."""
    shared: Sequence[int]
    """Numbers of the notes below the table."""


@dataclass(frozen=True, slots=True)
class VersusTable:
    """Every llama.cpp record compared with the transformers records of its model."""

    rows: Sequence[VersusRow]
    notes: Sequence[str]
    """Notes that several rows share."""
    left: int
    """Rows that are not shown."""


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
    """The comparison with an earlier run."""

    run: str
    rows: Sequence[AgainstRow]
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class JudgedTable:
    """One comparison of `ggufbench ab`."""

    case: str
    verdict: str
    kind: str
    arms: str
    rows: Sequence[tuple[words_of.ComparisonRow, str]]
    notes: Sequence[str]
    command: str


@dataclass(frozen=True, slots=True)
class Comparisons:
    """All comparisons of `ggufbench ab`."""

    headline: str
    legend: str
    cases: Sequence[JudgedTable] = field(default_factory=list)


def versus_table(pairs: Sequence[Versus]) -> VersusTable:
    """Build the table; a note that several rows share is said once below it."""
    shown = pairs[:MOST_ROWS]
    counts = Counter(note for one in shown for note in one.notes)
    shared = [note for note, number in counts.items() if number > 1]
    return VersusTable([_versus_row(one, shared) for one in shown], shared, len(pairs) - len(shown))


def against(content: Content) -> Against | None:
    """Compare the records with those of the earlier run; None if the report has no earlier run."""
    if content.against is None:
        return None
    found = between(content.against.records, content.records)
    rows = [_against_row(case, change) for case in found.cases for change in case.changes]
    notes = [f"{sentence}." for sentence in differences(found)]
    if found.on_other_machine:
        notes.append("The two runs were measured on different machines, so no ratios are shown.")
    problems = {case.problem for case in found.cases if case.problem and not case.other_machine}
    for why in sorted(problems):
        cases = [case.case_id for case in found.cases if case.problem == why]
        notes.append(f"Not compared: {listed(cases)}, because {why}.")
    changed = [case.case_id for case in found.cases if case.same_work == "no"]
    if changed:
        notes.append(f"Not the same work, because the answer of the model changed: {listed(changed)}.")
    if len(rows) > MOST_ROWS:
        notes.append(f"{MOST_ROWS} of {len(rows)} rows are shown; --match selects cases.")
    return Against(content.against.folder.name, rows[:MOST_ROWS], notes)


def comparisons(content: Content) -> Comparisons | None:
    """Build the comparisons, the worst verdict first; None if there are none."""
    found = content.comparisons
    if not found:
        return None
    shown = sorted(found, key=lambda one: list(VERDICT_KINDS).index(one.verdict))[:MOST_ROWS]
    return Comparisons(words_of.headline(found), words_of.legend(found), [_judged(one) for one in shown])


def _versus_row(one: Versus, shared: Sequence[str]) -> VersusRow:
    return VersusRow(
        case=one.record.case_id,
        baseline=one.baseline.case_id,
        outcome="" if one.ratios else ended(one.baseline),
        cells=[_ratio_cell(name, one.ratios.get(name), _both(one, name)) for name in VERSUS_METRICS],
        notes=[note for note in one.notes if note not in shared],
        shared=[number for number, note in enumerate(shared, 1) if note in one.notes],
    )


def _both(one: Versus, metric: str) -> str:
    mine, other = one.record.summary.get(metric), one.baseline.summary.get(metric)
    show = METRICS[metric].amount
    return f"{show(mine.median)} and {show(other.median)}" if mine and other else ""


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


def _against_row(case: CaseChange, change: Change) -> AgainstRow:
    metric = METRICS[change.metric]
    return AgainstRow(
        case.case_id,
        metric.label,
        metric.amount(change.earlier),
        metric.amount(change.later),
        _ratio_cell(change.metric, change.ratio),
    )


def _judged(one: Comparison) -> JudgedTable:
    return JudgedTable(
        case=one.case_id,
        verdict=str(one.verdict),
        kind=VERDICT_KINDS[one.verdict],
        arms=words_of.arms_line(one),
        rows=[(row, VERDICT_KINDS[row.verdict]) for row in words_of.rows(one)],
        notes=words_of.notes(one),
        command=_ab_command(one),
    )


def _ab_command(one: Comparison) -> str:
    """Command that repeats the comparison."""
    arms = {arm.role: arm for arm in one.arms}
    words = ["ggufbench", "ab"]
    for role in ("baseline", "candidate", "anchor"):
        if role in arms and arms[role].kind != "current":
            words.append(f"--{role}={arms[role].name}")
    baseline = arms.get("baseline")
    if baseline is not None and baseline.kind != "scenario":
        words.append(f"--scenario={baseline.scenario}")
    return shell_command([*words, f"--models={one.model.path}"])
