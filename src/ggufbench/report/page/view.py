"""View model of the page: every text that the templates lay out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ggufbench import __version__
from ggufbench.analysis.findings import Finding, findings
from ggufbench.analysis.migration import Migration, MigrationAnswer, migrations
from ggufbench.outcomes import Outcome
from ggufbench.records.comparison import Comparison
from ggufbench.records.samples import rates_of
from ggufbench.records.schema import Record
from ggufbench.report.content import Content
from ggufbench.report.figures import Drawn
from ggufbench.report.page import tables
from ggufbench.report.page.answers import AnswersRow, answers_rows
from ggufbench.report.page.case import CaseDetail, DetailLimits, case_detail
from ggufbench.report.page.cases import CaseRow, case_row, columns, missed
from ggufbench.report.page.picture import Picture, picture_of
from ggufbench.report.page.results import ResultsTable, results_table
from ggufbench.report.record_selection import MOST_COMPLETE
from ggufbench.text import count, listed

_MOST_BRIEF = 1000
_LOG_CHARACTERS, _LOGS_CHARACTERS = 60_000, 3_000_000
"""Most characters of the logs of one record, and of all records together."""
_MOST_MIGRATIONS = 60
_LONG_SENTENCE = 60
_MOST_LINKS = 5
_LONGEST_TITLE = 48
_HOST_DEVICES = ("cpu", "rpc")
"""Devices of a setting that use no GPU of the machine."""


@dataclass(frozen=True, slots=True)
class FindingView:
    """A finding with links to a few of its cases."""

    kind: str
    sentence: str
    cases: Sequence[tuple[int, str]]
    left: int


@dataclass(frozen=True, slots=True)
class AnswerView:
    """One answer about a model. A long sentence that several answers share is a note below the table."""

    question: str
    answer: str
    sentence: str
    note: int
    """Number of the note below the table; 0 if the sentence is in the cell."""


@dataclass(frozen=True, slots=True)
class MigrationTable:
    """Answers to "Can transformers be removed?": a row for each model and scenario."""

    questions: Sequence[str]
    rows: Sequence[tuple[Migration, Sequence[AnswerView]]]
    """Each with its answers to the questions."""
    everywhere: Sequence[MigrationAnswer]
    """Answers that are the same in every row, which have no column."""
    notes: Sequence[str]
    left: int
    """Rows that are not shown."""


@dataclass(frozen=True, slots=True)
class Page:
    """The whole page."""

    title: str
    lead: str
    version: str
    results: ResultsTable | None
    answers: Sequence[AnswersRow]
    picture: Picture | None
    attention: Sequence[FindingView]
    """Problems and warnings, the worst first."""
    confirmed: Sequence[FindingView]
    """Good findings."""
    facts: Sequence[tuple[str, str]]
    migration: MigrationTable
    versus: tables.VersusTable
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
    """Build the view of the whole page."""
    records = content.records
    folded, note = _folded(records)
    numbers = {id(record): number for number, record in enumerate(records, 1)}
    on_page = {key: number for key, number in numbers.items() if key in folded}
    by_case = {record.case_id: on_page[id(record)] for record in records if id(record) in folded}
    found = [_finding_view(one, by_case) for one in findings(records, content.comparisons, content.versus)]
    versus = content.versus
    several = len({record.machine.fingerprint for record in records}) > 1
    limits = _limits(len(records))
    picture, rates = picture_of(content), rates_of(records)
    return Page(
        title=title or _title(content),
        lead=_lead(records, content),
        version=__version__,
        results=results_table(records, on_page),
        answers=answers_rows(records, on_page),
        picture=picture,
        attention=[one for one in found if one.kind != "good"],
        confirmed=[one for one in found if one.kind == "good"],
        facts=machine_facts(content),
        migration=_migration_table(migrations(records, versus)),
        versus=tables.versus_table(versus),
        figures=[figure for figure in figures if picture is None or figure.name != "versus"],
        comparisons=tables.comparisons(content),
        against=tables.against(content),
        columns=columns(rates),
        rows=[
            case_row(record, numbers[id(record)], id(record) in folded, several, rates) for record in records
        ],
        scenarios=sorted({record.scenario for record in records}),
        quantizations=sorted({record.model.quantization for record in records}),
        outcomes=sorted({str(record.outcome) for record in records}),
        details=[case_detail(r, numbers[id(r)], limits) for r in records if id(r) in folded],
        details_note=note,
        problems=content.problems,
    )


def machine_facts(content: Content) -> list[tuple[str, str]]:
    """Names and values of the facts about the machines, the runs and the software."""
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
    machines = {one.machine.fingerprint: one.machine for one in documents}
    if len(machines) > 1:
        return f"{about} on {len(machines)} machines"
    (machine,) = machines.values()
    uses_gpu = any(record.setting.device not in _HOST_DEVICES for record in content.records)
    gpus = list(dict.fromkeys(name.partition(": ")[2] or name for name in machine.devices))
    return f"{about} on {listed([*(gpus if uses_gpu else []), machine.cpu])}"


def _lead(records: Sequence[Record], content: Content) -> str:
    """One line with the outcomes, the machine and the date."""
    outcomes = Counter(record.outcome for record in records)
    parts = []
    if records:
        models = count(len({record.model.identity for record in records}), "model file")
        ends = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in Outcome if outcomes[outcome])
        parts.append(f"{count(len(records), 'case')} of {models}: {ends}.")
    if content.comparisons:
        parts.append(f"{count(len(content.comparisons), 'comparison')} with ggufbench ab.")
    documents: list[Record | Comparison] = [*records, *content.comparisons]
    machines = {one.machine.fingerprint: one.machine for one in documents}
    parts += [
        f"{one.usable_cores} of {one.logical_cores} cores, {one.memory_gib} GiB, {one.operating_system}."
        for one in list(machines.values())[:1]
        if len(machines) == 1
    ]
    return " ".join([*parts, f"Measured until {max(one.created for one in documents)[:10]}."])


def _finding_view(finding: Finding, numbers: dict[str, int]) -> FindingView:
    cases = [(numbers[case_id], case_id) for case_id in finding.case_ids if case_id in numbers]
    shown = cases[:_MOST_LINKS]
    left = len(finding.case_ids) - len(shown) if shown else 0
    return FindingView(finding.kind, finding.sentence, shown, left)


def _migration_table(found: Sequence[Migration]) -> MigrationTable:
    """Build the table, with the models for which transformers cannot be removed first."""
    moves = sorted(found, key=lambda one: ("no", "not measured", "yes").index(one.verdict))
    shown = moves[:_MOST_MIGRATIONS]
    everywhere = _same_answers(shown)
    answers = [[answer for answer in one.answers if answer not in everywhere] for one in shown]
    counts = Counter(answer.sentence for of_row in answers for answer in of_row)
    notes = [text for text, count in counts.items() if count > 1 and len(text) > _LONG_SENTENCE]

    def answered(answer: MigrationAnswer) -> AnswerView:
        note = notes.index(answer.sentence) + 1 if answer.sentence in notes else 0
        return AnswerView(answer.question, answer.answer, "" if note else answer.sentence, note)

    rows = [(one, [answered(answer) for answer in its]) for one, its in zip(shown, answers, strict=True)]
    questions = [answer.question for answer in answers[0]] if answers else []
    return MigrationTable(questions, rows, everywhere, notes, len(moves) - len(shown))


def _same_answers(moves: Sequence[Migration]) -> list[MigrationAnswer]:
    """Answers that every row of a table with several rows has."""
    if len(moves) < 2:
        return []
    return [answer for answer in moves[0].answers if all(answer in one.answers for one in moves)]


def _limits(cases: int) -> DetailLimits:
    characters = min(_LOG_CHARACTERS, _LOGS_CHARACTERS // max(1, cases))
    return DetailLimits(complete=cases <= MOST_COMPLETE, log_characters=characters)


def _folded(records: Sequence[Record]) -> tuple[set[int], str]:
    """The records that the page holds, by id(), and a note if it leaves out something.

    If there are too many, those that need attention come first.
    """
    if len(records) <= MOST_COMPLETE:
        return {id(record) for record in records}, ""
    ordered = sorted(records, key=_attention)[:_MOST_BRIEF]
    all_shown = len(ordered) == len(records)
    which = "All" if all_shown else f"{len(ordered)} of {len(records)}"
    first = "" if all_shown else ", those that need attention first"
    note = (
        f"{which} records are below{first}. Samples, settings and logs are left out, because the page has "
        f"{len(records)} cases. The command in each record shows them."
    )
    return {id(record) for record in ordered}, note


def _attention(record: Record) -> int:
    if record.outcome not in (Outcome.MEASURED, Outcome.SKIPPED):
        return 0
    return 1 if missed(record) else 3 if record.outcome is Outcome.SKIPPED else 2
