"""The page in words: everything that the template shows, so that it only has to lay it out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ggufbench import __version__
from ggufbench.analysis.findings import Finding, findings
from ggufbench.analysis.migration import Migration, MigrationAnswer, migrations
from ggufbench.outcomes import Outcome
from ggufbench.records.comparison import Comparison
from ggufbench.records.schema import Record
from ggufbench.report.content import Content
from ggufbench.report.figures import Drawn
from ggufbench.report.page import tables
from ggufbench.report.page.case import CaseDetail, Room, case_detail
from ggufbench.report.page.cases import COLUMNS, CaseRow, case_row, missed
from ggufbench.report.record_selection import MOST_COMPLETE
from ggufbench.text import listed

_MOST_BRIEF = 1000
_LOG_CHARACTERS, _LOGS_CHARACTERS = 60_000, 3_000_000
"""Of one record, and of all together."""
_MOST_MIGRATIONS = 60
_LONG_SENTENCE = 60
_MOST_LINKS = 5
_LONGEST_TITLE = 48


@dataclass(frozen=True, slots=True)
class Said:
    """A finding with links to a few of its cases."""

    kind: str
    sentence: str
    cases: Sequence[tuple[int, str]]
    left: int


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer about a model; a long sentence that many share stands below the table."""

    question: str
    answer: str
    sentence: str
    note: int
    """Number of the sentence below the table; 0 where it stands here."""


@dataclass(frozen=True, slots=True)
class MigrationTable:
    """May transformers be removed: a line for each model and scenario."""

    rows: Sequence[tuple[Migration, Sequence[Answered]]]
    notes: Sequence[str]
    left: int


@dataclass(frozen=True, slots=True)
class Page:
    """The whole page."""

    title: str
    lead: str
    version: str
    facts: Sequence[tuple[str, str]]
    findings: Sequence[Said]
    migration: MigrationTable
    versus: Sequence[tables.VersusRow]
    versus_left: int
    figures: Sequence[Drawn]
    comparisons: tables.Comparisons | None
    against: tables.Against | None
    columns: Sequence[str]
    rows: Sequence[CaseRow]
    scenarios: Sequence[str]
    quantizations: Sequence[str]
    outcomes: Sequence[str]
    details: Sequence[CaseDetail]
    details_note: str
    problems: Sequence[str]


def page_of(content: Content, figures: Sequence[Drawn], title: str | None = None) -> Page:
    """Everything that the page says."""
    records = content.records
    folded, note = _folded(records)
    numbers = {id(record): number for number, record in enumerate(records, 1)}
    by_case = {record.case_id: numbers[id(record)] for record in records if id(record) in folded}
    versus = content.versus
    several = len({record.machine.fingerprint for record in records}) > 1
    room = _room(len(records))
    return Page(
        title=title or _title(content),
        lead=_lead(records, content),
        version=__version__,
        facts=machine_facts(content),
        findings=[_said(one, by_case) for one in findings(records, content.comparisons, versus)],
        migration=_migration_table(migrations(records, versus)),
        versus=tables.versus_rows(versus),
        versus_left=max(0, len(versus) - tables.MOST_ROWS),
        figures=figures,
        comparisons=tables.comparisons(content),
        against=tables.against(content),
        columns=COLUMNS,
        rows=[case_row(record, numbers[id(record)], id(record) in folded, several) for record in records],
        scenarios=sorted({record.scenario for record in records}),
        quantizations=sorted({record.model.quantization for record in records}),
        outcomes=sorted({str(record.outcome) for record in records}),
        details=[case_detail(r, numbers[id(r)], room) for r in records if id(r) in folded],
        details_note=note,
        problems=content.problems,
    )


def machine_facts(content: Content) -> list[tuple[str, str]]:
    """What was measured, where, with what: a name and a line each."""
    documents: list[Record | Comparison] = [*content.records, *content.comparisons]
    machines = {one.machine.fingerprint: one.machine for one in documents}
    facts = [
        (
            "Machine",
            f"{m.cpu}, {m.usable_cores} of {m.logical_cores} cores, {m.memory_gib} GiB, {m.operating_system}"
            + (f", {m.virtualization}" if m.virtualization not in ("", "none") else "")
            + (f", {', '.join(m.devices)}" if m.devices else "")
            + f" ({m.fingerprint})",
        )
        for m in list(machines.values())[:4]
    ]
    if len(machines) > 4:
        facts.append(("Machines", f"and {len(machines) - 4} more"))
    created = sorted(one.created for one in documents)
    when = created[0][:16].replace("T", " ")
    until = created[-1][:16].replace("T", " ")
    runs = sorted({one.run_id for one in documents})
    facts.append(("Measured", (when if when == until else f"{when} to {until}") + " UTC"))
    facts.append(("Run" if len(runs) == 1 else "Runs", listed(runs, 4)))
    facts.append(("Software", _software(content.records) or "see the comparisons"))
    return facts


def _software(records: Iterable[Record]) -> str:
    versions: dict[str, set[str]] = {}
    for record in records:
        for name, version in record.provider.versions.items():
            versions.setdefault(name, set()).add(version)
    return ", ".join(f"{name} {' and '.join(sorted(found)[:3])}" for name, found in versions.items())


def _title(content: Content) -> str:
    documents: list[Record | Comparison] = [*content.records, *content.comparisons]
    names = sorted({one.model.name for one in documents})
    about = ", ".join(names)
    about = about if len(about) <= _LONGEST_TITLE else f"{len(names)} GGUF models"
    return f"{about} on {documents[0].machine.cpu}"


def _lead(records: Sequence[Record], content: Content) -> str:
    outcomes = Counter(record.outcome for record in records)
    models = len({record.model.identity for record in records})
    cases = f"{len(records)} cases of {models} model files" if records else ""
    ends = [f"{outcomes[outcome]} {outcome}" for outcome in Outcome if outcomes[outcome]]
    compared = f"{len(content.comparisons)} compared launch by launch" if content.comparisons else ""
    ended_so = f"{cases}: {', '.join(ends)}" if records else ""
    return "; ".join(part for part in (ended_so, compared) if part) + "."


def _said(finding: Finding, numbers: dict[str, int]) -> Said:
    cases = [(numbers[case_id], case_id) for case_id in finding.case_ids if case_id in numbers]
    shown = cases[:_MOST_LINKS]
    return Said(finding.kind, finding.sentence, shown, len(finding.case_ids) - len(shown) if shown else 0)


def _migration_table(found: Sequence[Migration]) -> MigrationTable:
    """What speaks against it first."""
    moves = sorted(found, key=lambda one: ("no", "not measured", "yes").index(one.verdict))
    shown = moves[:_MOST_MIGRATIONS]
    counts = Counter(answer.sentence for one in shown for answer in one.answers)
    notes = [text for text, count in counts.items() if count > 1 and len(text) > _LONG_SENTENCE]

    def answered(answer: MigrationAnswer) -> Answered:
        note = notes.index(answer.sentence) + 1 if answer.sentence in notes else 0
        return Answered(answer.question, answer.answer, "" if note else answer.sentence, note)

    rows = [(one, [answered(answer) for answer in one.answers]) for one in shown]
    return MigrationTable(rows, notes, len(moves) - len(shown))


def _room(count: int) -> Room:
    characters = min(_LOG_CHARACTERS, _LOGS_CHARACTERS // max(1, count))
    return Room(complete=count <= MOST_COMPLETE, log_characters=characters)


def _folded(records: Sequence[Record]) -> tuple[set[int], str]:
    """Which records are on the page, by id(): what needs attention first, where there is no room for all."""
    if len(records) <= MOST_COMPLETE:
        return {id(record) for record in records}, ""
    ordered = sorted(records, key=_attention)[:_MOST_BRIEF]
    which = "All" if len(ordered) == len(records) else f"{len(ordered)} of {len(records)}"
    first = "" if len(ordered) == len(records) else ", those that need attention first"
    note = (
        f"{which} records are below{first}, and each without its samples, its settings and its log: a page "
        f"of {len(records)} cases has no room for them. The line in each shows them."
    )
    return {id(record) for record in ordered}, note


def _attention(record: Record) -> int:
    if record.outcome not in (Outcome.MEASURED, Outcome.SKIPPED):
        return 0
    return 1 if missed(record) else 3 if record.outcome is Outcome.SKIPPED else 2
