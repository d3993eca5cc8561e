"""Tables for the terminal. Text from files is never interpreted as markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ggufbench.analysis.verdicts import Kind
from ggufbench.analysis.wording import label
from ggufbench.discovery.model import Discovery, Model, Rejected
from ggufbench.discovery.names import portable_path
from ggufbench.metrics import METRICS
from ggufbench.outcomes import Outcome
from ggufbench.planning.plan import Case
from ggufbench.records.samples import rates_of
from ggufbench.records.schema import Record
from ggufbench.report.text.names import Name, NameTable
from ggufbench.text import context_tokens, count, duration, escaped, parameters, size

SYNTHETIC_NOTE = "~ synthetic: random weights; speed and size are valid, answers are not."

_WIDE, _MIDDLE = 144, 100
"""Columns of a terminal that shows all nine columns of a case on one line, and of one that shows seven."""

KIND_STYLE: dict[Kind, str] = {"bad": "red", "warn": "yellow", "good": "green"}

_OUTCOME_STYLE = {
    Outcome.MEASURED: "green",
    Outcome.SKIPPED: "yellow",
    Outcome.NO_ANSWER: "yellow",
    Outcome.ENVIRONMENT: "yellow",
}


def models_table(found: Discovery) -> RenderableType:
    """Every model with its facts, then the files that cannot be benchmarked and the reasons."""
    shown = table("Model", ">Size", ">Params", ">Context", "Arch", "Source")
    for model in found.models:
        shown.add_row(
            _name(model.label, model.synthetic),
            Text(size(model.file_size_bytes)),
            Text(parameters(model.parameters)),
            Text(context_tokens(model.trained_context)),
            text(_architecture(model)),
            Name(model.repository or model.source),
        )
    return stack(
        shown if found.models else None,
        _synthetic_note(model.synthetic for model in found.models),
        _rejected(found.rejected),
    )


def plan_table(cases: Sequence[Case]) -> RenderableType:
    """Every case that would run with its needs, then the skipped cases and the reasons."""
    shown = table("Case", ">Size", ">Memory", ">Device", ">Time", "Estimate")
    run = [case for case in cases if case.skip is None]
    for case in run:
        estimate = case.estimate
        shown.add_row(
            _name(case.id, case.model.synthetic),
            Text(size(case.model.file_size_bytes)),
            Text(size(estimate.host_bytes)),
            Text(size(estimate.device_bytes) if estimate.device_bytes else "-"),
            Text(duration(estimate.seconds)),
            Text("last record" if estimate.from_record else "header"),
        )
    total = sum(case.estimate.seconds for case in run)
    line = f"{len(run)} of {count(len(cases), 'case')} would run, in about {duration(total)}."
    return stack(
        shown if run else None,
        _synthetic_note(case.model.synthetic for case in run),
        _skipped((case.scenario.name, case.model.label, case.skip) for case in cases if case.skip),
        Text(line),
    )


def results_table(
    records: Sequence[Record], rejected: Sequence[Rejected] = (), width: int = _WIDE
) -> RenderableType:
    """The measured cases, then the skipped ones and the files that cannot be benchmarked, with reasons.

    On a narrow terminal some figures are left out or written on a second line.
    """
    shown = [record for record in records if record.outcome is not Outcome.SKIPPED and not is_scored(record)]
    skipped = [record for record in records if record.outcome is Outcome.SKIPPED]
    return stack(
        _results(shown, width) if shown else None,
        _synthetic_note(record.model.synthetic for record in shown),
        _skipped((r.scenario, label(r), r.reason or "") for r in skipped),
        _rejected(rejected),
    )


def is_scored(record: Record) -> bool:
    """True for a case whose answers were compared: it has nothing that a table of speeds shows."""
    return record.reference is not None and record.outcome is Outcome.MEASURED


def _results(records: Sequence[Record], width: int) -> RenderableType:
    if width >= _WIDE:
        return _wide_results(records)
    if width >= _MIDDLE:
        left_out = f"Left out: file size, cold load and machine limits, which need {_WIDE} columns."
        return Group(_middle_results(records), Text(left_out, style="dim"))
    return Group(_narrow_results(records), Text(_NARROW_NOTE, style="dim"))


_NARROW_NOTE = "On the second line: cold load, peak / file size, rate / limit of the machine."


def _wide_results(records: Sequence[Record]) -> Table:
    rates = rates_of(records)
    headings = [f">{name.capitalize()}" for name in rates]
    shown = table("Model", ">Size", "Scenario", ">Load", ">Cold load", ">Peak memory", *headings, "Result")
    for record in records:
        shown.add_row(
            _name(label(record), record.model.synthetic),
            Text(size(record.model.file_size_bytes)),
            Name(record.scenario),
            _value(record, "ready_seconds"),
            _value(record, "cold_ready_seconds"),
            _peak_on_one_line(record),
            *(_rated(record, name, " ") for name in rates),
            _result(record),
        )
    return shown


def _middle_results(records: Sequence[Record]) -> Table:
    rates = rates_of(records)
    headings = [f">{name.capitalize()}" for name in rates]
    shown = table("Model", "Scenario", ">Load", ">Peak memory", *headings, "Result")
    for record in records:
        shown.add_row(
            _name(label(record), record.model.synthetic),
            Name(record.scenario),
            _value(record, "ready_seconds"),
            _peak_on_one_line(record),
            *(_value(record, f"{name}_tokens_per_second") for name in rates),
            _result(record),
        )
    return shown


def _narrow_results(records: Sequence[Record]) -> Table:
    rates = rates_of(records)
    headings = [f">{name.capitalize()}\nof limit" for name in rates]
    shown = table("Model\nscenario", ">Load\ncold", ">Peak\nof file", *headings, "Result")
    for record in records:
        peak, ratio = _peak(record)
        shown.add_row(
            _name(label(record), record.model.synthetic, record.scenario),
            _value(record, "ready_seconds") + Text("\n") + _value(record, "cold_ready_seconds"),
            Text(f"{peak}\n{ratio}"),
            *(_rated(record, name, "\n") for name in rates),
            _result(record),
        )
    return shown


def render(content: RenderableType, width: int, color: bool) -> str:
    """The content as text for a terminal of that width."""
    console = Console(width=width, force_terminal=color, no_color=not color, highlight=False)
    with console.capture() as capture:
        console.print(content)
    return capture.get()


def width_of() -> int:
    """Columns of this terminal."""
    return Console().width


def table(*columns: str) -> NameTable:
    """A table. A `>` before a heading aligns the column to the right, and its figures never wrap."""
    shown = NameTable(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in columns:
        right = heading.startswith(">")
        shown.add_column(
            heading.lstrip(">"),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=right,
            min_width=max(map(len, heading.lstrip(">").split("\n"))),
        )
    return shown


def stack(*parts: RenderableType | None) -> Group:
    """The parts that are not None, with an empty line between them."""
    present = [part for part in parts if part is not None]
    spaced: list[RenderableType] = []
    for part in present:
        spaced += [part, Text()]
    return Group(*spaced[:-1])


def text(words: str, style: str = "") -> Text:
    """Text from a file or a library, with control characters escaped."""
    return Text(escaped(words), style=style)


def _name(name: str, synthetic: bool, below: str = "") -> Name:
    return Name(name, "~" if synthetic else "", below)


def _synthetic_note(flags: Iterable[bool]) -> Text | None:
    return Text(SYNTHETIC_NOTE, style="dim") if any(flags) else None


def _rejected(rejected: Sequence[Rejected]) -> RenderableType | None:
    if not rejected:
        return None
    shown = table("Not benchmarked", ">Size", "Reason")
    for file in rejected:
        shown.add_row(Name(portable_path(file.path)), Text(size(file.file_size_bytes)), text(file.reason))
    return shown


def _skipped(skipped: Iterable[tuple[str, str, str]]) -> RenderableType | None:
    """One line for each scenario and reason, with the number of models."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for scenario, model, reason in skipped:
        reasons.setdefault((scenario, reason), []).append(model)
    if not reasons:
        return None
    shown = table("Skipped", "Models", "Reason")
    for (scenario, reason), labels in reasons.items():
        models = labels[0] if len(labels) == 1 else str(len(labels))
        shown.add_row(Name(scenario), Name(models), text(reason))
    return shown


def _architecture(model: Model) -> str:
    if model.kind != "generator":
        pooling = f" ({model.pooling})" if model.kind == "embedding" else ""
        return f"{model.architecture}, {model.kind}{pooling}"
    experts = f" {model.experts_used}/{model.experts}" if model.experts else ""
    return model.architecture + experts + ("" if model.chat_template else ", no template")


def _peak(record: Record) -> tuple[str, str]:
    """Peak memory, and its ratio to the file's size."""
    peak, ratio = record.summary.get("peak_rss_bytes"), record.summary.get("peak_to_file_ratio")
    return (size(peak.median), f"{ratio.median:.2f}x") if peak and ratio else ("-", "")


def _peak_on_one_line(record: Record) -> Text:
    peak, ratio = _peak(record)
    return Text(f"{peak} ({ratio})" if ratio else peak)


def _targets(record: Record) -> Text:
    """`met`, or the names of the missed targets."""
    held = [target for target in record.targets if target.status != "not applicable"]
    missed = [target.name for target in held if target.status == "missed"]
    if missed:
        return Text(f"missed: {', '.join(missed)}", style="red")
    return Text("met", style="green") if held else Text("-")


def ended(record: Record) -> str:
    """`measured`, `crashed (SIGSEGV) in decode`."""
    same = (launch for launch in record.launches if launch.outcome is record.outcome)
    signal = next((launch.signal for launch in same if launch.signal), None)
    how = f"{record.outcome} ({signal})" if signal else str(record.outcome)
    return how + (f" in {record.phase}" if record.phase else "")


def _ended(record: Record) -> Text:
    return text(ended(record), style=_OUTCOME_STYLE.get(record.outcome, "red"))


def _result(record: Record) -> Text:
    """The outcome, or for a measured case its targets, if any apply."""
    targets = _targets(record)
    if record.outcome is not Outcome.MEASURED or targets.plain == "-":
        return _ended(record)
    return Text("targets ", style=targets.style) + targets


def _value(record: Record, metric: str) -> Text:
    summary = record.summary.get(metric)
    return Text(METRICS[metric].amount(summary.median) if summary else "-")


def _rated(record: Record, name: str, between: str) -> Text:
    """A rate, with its share of this machine's limit."""
    shown = _value(record, f"{name}_tokens_per_second")
    limit = next((found for found in record.limits if found.name == name), None)
    return shown if limit is None else shown + Text(f"{between}({100 * limit.fraction:.0f} %)")
