"""Tables for the terminal. Text from files is shown as text, never as markup."""

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
from ggufbench.records.schema import Record
from ggufbench.text import context_tokens, duration, escaped, parameters, size

SYNTHETIC_NOTE = "~ synthetic: random weights; speed and size mean something, answers do not"

_WIDE = 144
"""Columns of a terminal that shows every figure in a column of its own."""

_FIRST_COLUMN = 22

KIND_STYLE: dict[Kind, str] = {"bad": "red", "warn": "yellow", "good": "green"}

_OUTCOME_STYLE = {Outcome.MEASURED: "green", Outcome.SKIPPED: "yellow", Outcome.ENVIRONMENT: "yellow"}


def models_table(found: Discovery) -> RenderableType:
    """Every model with its facts, then what is not benchmarked and why."""
    shown = table("Model", ">Size", ">Params", ">Context", "Arch", "Source")
    for model in found.models:
        shown.add_row(
            _name(model.label, model.synthetic),
            Text(size(model.file_size_bytes)),
            Text(parameters(model.parameters)),
            Text(context_tokens(model.trained_context)),
            text(_architecture(model)),
            text(model.repository or model.source),
        )
    return stack(
        shown if found.models else None,
        _synthetic_note(model.synthetic for model in found.models),
        _rejected(found.rejected),
    )


def plan_table(cases: Sequence[Case]) -> RenderableType:
    """Every case that would run with what it needs, then what is skipped and why."""
    shown = table("Case", ">Size", ">Memory", ">On device", ">About", "From")
    run = [case for case in cases if case.skip is None]
    for case in run:
        estimate = case.estimate
        shown.add_row(
            _name(case.id, case.model.synthetic),
            Text(size(case.model.file_size_bytes)),
            Text(size(estimate.host_bytes)),
            Text(size(estimate.device_bytes) if estimate.device_bytes else "-"),
            Text(duration(estimate.seconds)),
            Text("its last record" if estimate.from_record else "the header"),
        )
    total = sum(case.estimate.seconds for case in run)
    line = f"{len(run)} of {len(cases)} cases would run, in about {duration(total)}."
    return stack(
        shown if run else None,
        _synthetic_note(case.model.synthetic for case in run),
        _skipped((case.scenario.name, case.model.label, case.skip) for case in cases if case.skip),
        Text(line),
    )


def results_table(
    records: Sequence[Record], rejected: Sequence[Rejected] = (), width: int = _WIDE
) -> RenderableType:
    """What was measured, then what was skipped or is not benchmarked, and why.

    On a narrow terminal the ten columns become six, of two lines each.
    """
    shown = [record for record in records if record.outcome is not Outcome.SKIPPED]
    skipped = [record for record in records if record.outcome is Outcome.SKIPPED]
    return stack(
        (_wide_results(shown) if width >= _WIDE else _narrow_results(shown)) if shown else None,
        _synthetic_note(record.model.synthetic for record in shown),
        _skipped((r.scenario, label(r), r.reason or "") for r in skipped),
        _rejected(rejected),
    )


def _wide_results(records: Iterable[Record]) -> Table:
    shown = table(
        "Model",
        ">Size",
        "Scenario",
        ">Load",
        ">Cold",
        ">Peak memory",
        ">Prompt",
        ">Decode",
        "Targets",
        "Outcome",
    )
    for record in records:
        peak, ratio = _peak(record)
        shown.add_row(
            _name(label(record), record.model.synthetic),
            Text(size(record.model.file_size_bytes)),
            text(record.scenario),
            _value(record, "ready_seconds"),
            _value(record, "cold_ready_seconds"),
            Text(f"{peak} ({ratio})" if ratio else peak),
            _rated(record, "prompt", " "),
            _rated(record, "decode", " "),
            _targets(record),
            _ended(record),
        )
    return shown


def _narrow_results(records: Iterable[Record]) -> Table:
    shown = table(
        "Model\nsize, scenario", ">Load\ncold", ">Peak\nof file", ">Prompt", ">Decode", "Targets\noutcome"
    )
    for record in records:
        peak, ratio = _peak(record)
        shown.add_row(
            _name(label(record), record.model.synthetic)
            + Text("\n")
            + text(f"{size(record.model.file_size_bytes)}, {record.scenario}", style="dim"),
            _value(record, "ready_seconds") + Text("\n") + _value(record, "cold_ready_seconds"),
            Text(f"{peak}\n{ratio}"),
            _rated(record, "prompt", "\n"),
            _rated(record, "decode", "\n"),
            _targets(record) + Text("\n") + _ended(record),
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


def table(*columns: str, first_column: int = _FIRST_COLUMN) -> Table:
    """A table; a `>` before a heading puts the column to the right.

    The first column is never narrower than `first_column` characters.
    """
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, heading in enumerate(columns):
        right = heading.startswith(">")
        shown.add_column(
            heading.lstrip(">"),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=right,
            # The first column is what a line is about; the others give way to it, and none vanishes.
            min_width=first_column if number == 0 else max(map(len, heading.lstrip(">").split("\n"))),
        )
    return shown


def stack(*parts: RenderableType | None) -> Group:
    """The parts that there are, an empty line between them."""
    present = [part for part in parts if part is not None]
    spaced: list[RenderableType] = []
    for part in present:
        spaced += [part, Text()]
    return Group(*spaced[:-1])


def text(words: str, style: str = "") -> Text:
    """Text from a file or a library: what could steer the terminal is shown as its escape."""
    return Text(escaped(words), style=style)


def _name(name: str, synthetic: bool) -> Text:
    return text(f"{name} ~" if synthetic else name)


def _synthetic_note(flags: Iterable[bool]) -> Text | None:
    return Text(SYNTHETIC_NOTE, style="dim") if any(flags) else None


def _rejected(rejected: Sequence[Rejected]) -> RenderableType | None:
    if not rejected:
        return None
    shown = table("Not benchmarked", ">Size", "Why")
    for file in rejected:
        shown.add_row(text(portable_path(file.path)), Text(size(file.file_size_bytes)), text(file.reason))
    return shown


def _skipped(skipped: Iterable[tuple[str, str, str]]) -> RenderableType | None:
    """One line for each scenario and reason, however many models it meets."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for scenario, model, reason in skipped:
        reasons.setdefault((scenario, reason), []).append(model)
    if not reasons:
        return None
    shown = table("Skipped", "Models", "Why")
    for (scenario, reason), labels in reasons.items():
        models = labels[0] if len(labels) == 1 else str(len(labels))
        shown.add_row(text(scenario), text(models), text(reason))
    return shown


def _architecture(model: Model) -> str:
    experts = f" {model.experts_used}/{model.experts}" if model.experts else ""
    return model.architecture + experts + ("" if model.chat_template else ", no template")


def _peak(record: Record) -> tuple[str, str]:
    """Peak memory, and its ratio to the file's size."""
    peak, ratio = record.summary.get("peak_rss_bytes"), record.summary.get("peak_to_file_ratio")
    return (size(peak.median), f"{ratio.median:.2f}x") if peak and ratio else ("-", "")


def _targets(record: Record) -> Text:
    """`met`, or the targets that were missed by name."""
    held = [target for target in record.targets if target.status != "not applicable"]
    missed = [target.name for target in held if target.status == "missed"]
    if missed:
        return Text(f"missed: {', '.join(missed)}", style="red")
    return Text("met", style="green") if held else Text("-")


def ended(record: Record) -> str:
    """`measured`, `crashed (SIGSEGV) in decode`."""
    signal = next((launch.signal for launch in record.launches if launch.signal), None)
    how = f"{record.outcome} ({signal})" if signal else str(record.outcome)
    return how + (f" in {record.phase}" if record.phase else "")


def _ended(record: Record) -> Text:
    return text(ended(record), style=_OUTCOME_STYLE.get(record.outcome, "red"))


def _value(record: Record, metric: str) -> Text:
    summary = record.summary.get(metric)
    return Text(METRICS[metric].amount(summary.median) if summary else "-")


def _rated(record: Record, name: str, between: str) -> Text:
    """A rate, and which part it is of what this machine can deliver."""
    shown = _value(record, f"{name}_tokens_per_second")
    limit = next((found for found in record.limits if found.name == name), None)
    return shown if limit is None else shown + Text(f"{between}({100 * limit.fraction:.0f} %)")
