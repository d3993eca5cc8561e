"""Difference of two stored runs, case by case: the change of each metric, and what else changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from ggufbench.analysis.baselines import has_numbers
from ggufbench.analysis.wording import ending, label
from ggufbench.outcomes import Outcome
from ggufbench.records.schema import Record
from ggufbench.stats.ratios import Ratio, ratio_of, usable

SHOWN = (
    "decode_tokens_per_second",
    "prompt_tokens_per_second",
    "encode_tokens_per_second",
    "ready_seconds",
    "cold_ready_seconds",
    "peak_rss_bytes",
    "kl_divergence",
    "perplexity",
)
"""Metrics compared by default."""

SameWork = Literal["yes", "no", "unknown"]


@dataclass(frozen=True, slots=True)
class Change:
    """Change of one metric of one case."""

    metric: str
    earlier: float
    later: float
    """Medians, in the metric's unit."""
    ratio: Ratio
    """The later record over the earlier one, from the best sample of each launch."""


@dataclass(frozen=True, slots=True)
class CaseChange:
    """Change of one case that both runs contain."""

    case_id: str
    changes: Sequence[Change]
    """Empty if there is a `problem`."""
    same_work: SameWork
    """Whether both gave the same greedy tokens; unknown if a side has no answer or several."""
    versions: Mapping[str, tuple[str, str]]
    """Changed versions: name to earlier and later version, empty if absent."""
    notes: Sequence[str]
    """Other differences: settings, threads, interference."""
    problem: str | None = None
    """Reason why nothing can be compared, as a clause."""
    other_machine: bool = False


@dataclass(frozen=True, slots=True)
class Between:
    """Difference of two runs."""

    cases: Sequence[CaseChange]
    only_earlier: Sequence[str]
    only_later: Sequence[str]
    """Ids of the cases that only one run contains."""

    @property
    def is_comparable(self) -> bool:
        """True if at least one metric can be compared."""
        return any(case.changes for case in self.cases)

    @property
    def on_other_machine(self) -> bool:
        """True if every shared case was measured on two different machines."""
        return bool(self.cases) and all(case.other_machine for case in self.cases)


def between(earlier: Sequence[Record], later: Sequence[Record], metrics: Sequence[str] = SHOWN) -> Between:
    """Compare the cases of two runs; skipped cases are treated as absent.

    Cases are paired by the identity of the model and the scenario, whatever their ids. A file that was
    written again under its name is paired by the name, to say that it differs.
    """
    before, after = _attempted(earlier), _attempted(later)
    pairs: list[tuple[Record, Record]] = []
    for key_of in (_content, _name):
        known = {key_of(record): record for record in before}
        for record in list(after):
            if (partner := known.pop(key_of(record), None)) is not None:
                pairs.append((partner, record))
                before.remove(partner)
                after.remove(record)
    order = {id(record): number for number, record in enumerate(later)}
    pairs.sort(key=lambda pair: order[id(pair[1])])
    return Between(
        cases=[_case(*pair, metrics) for pair in pairs],
        only_earlier=[record.case_id for record in before],
        only_later=[record.case_id for record in after],
    )


def _attempted(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.outcome is not Outcome.SKIPPED]


def _content(record: Record) -> tuple[str, str]:
    return record.model.identity, record.scenario


def _name(record: Record) -> tuple[str, str]:
    return label(record), record.scenario


def _case(before: Record, after: Record, metrics: Sequence[str]) -> CaseChange:
    other_machine = before.machine.fingerprint != after.machine.fingerprint
    problem = _problem(before, after)
    changes = [] if problem else [change for name in metrics if (change := _change(before, after, name))]
    if problem is None and not changes:
        problem = "no compared metric was measured in both runs"
    return CaseChange(
        case_id=after.case_id,
        changes=changes,
        same_work=_same_work(before, after),
        versions=_changed(before.provider.versions, after.provider.versions),
        notes=_notes(before, after),
        problem=problem,
        other_machine=other_machine,
    )


def _problem(before: Record, after: Record) -> str | None:
    """Reason why the two records cannot be compared; None if they can."""
    if before.machine.fingerprint != after.machine.fingerprint:
        return "measured on different machines"
    if before.model.identity != after.model.identity:
        return "the file differs: it was quantized or written again"
    for name, record in (("earlier", before), ("later", after)):
        if not has_numbers(record):
            return f"the {name} record {ending(record)}"
    if _reference(before) != _reference(after):
        return "the answers were compared with another reference, or over other texts"
    work = {name: (getattr(before.workload, name), getattr(after.workload, name)) for name in _WORK}
    changed = [f"{name} {old} -> {new}" for name, (old, new) in work.items() if old != new]
    return f"the workload differs: {', '.join(changed)}" if changed else None


def _reference(record: Record) -> tuple[object, ...] | None:
    found = record.reference
    return None if found is None else (found.identity, found.setting, found.corpus_digest)


_WORK = ("prompt_tokens", "generated_tokens", "depth", "sequences")


def _change(before: Record, after: Record, metric: str) -> Change | None:
    old, new = before.summary.get(metric), after.summary.get(metric)
    if old is None or new is None:
        return None
    reference, candidate = usable(old.per_launch), usable(new.per_launch)
    if not reference or not candidate:
        return None
    return Change(metric, old.median, new.median, ratio_of(candidate, reference))


def _same_work(before: Record, after: Record) -> SameWork:
    answers = [{launch.digest for launch in one.launches if launch.digest} for one in (before, after)]
    if any(len(found) != 1 for found in answers):
        return "unknown"
    return "yes" if answers[0] == answers[1] else "no"


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    names = dict.fromkeys([*before, *after])
    both = {name: (before.get(name, ""), after.get(name, "")) for name in names}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}


def _notes(before: Record, after: Record) -> list[str]:
    notes = []
    if before.provider.name != after.provider.name:
        notes.append(f"provider {before.provider.name} -> {after.provider.name}")
    for field in fields(before.setting):
        old, new = getattr(before.setting, field.name), getattr(after.setting, field.name)
        if old != new:
            notes.append(f"{field.name} {old} -> {new}")
    if before.provider.system_info != after.provider.system_info:
        notes.append("the library was built with different instruction sets or options")
    for name, record in (("earlier", before), ("later", after)):
        if record.outcome is Outcome.ENVIRONMENT:
            notes.append(f"the {name} record had interference")
    return notes
