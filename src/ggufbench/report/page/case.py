"""Details of one case as text, without markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from ggufbench.analysis.advice import advise, breakdown_of
from ggufbench.analysis.wording import work
from ggufbench.checks.memory import PARTS
from ggufbench.metrics import Metric, Summary, metric_of
from ggufbench.outcomes import Outcome
from ggufbench.records.schema import Effective, Record
from ggufbench.report.page.launches import LogView, launch_line, logs_of, sample_line
from ggufbench.report.text.phrases import repeat_command, show_command
from ggufbench.report.text.terminal import ended
from ggufbench.text import count, duration, size

_MOST_SAMPLES = 40
_CHOSEN = ("auto", -1)
"""Requested values that leave the choice to the library."""


@dataclass(frozen=True, slots=True)
class DetailLimits:
    """Limits for the details of each record."""

    complete: bool
    """True if samples, launches and logs are shown."""
    log_characters: int = 0
    """Most characters of all logs of a record."""


@dataclass(frozen=True, slots=True)
class SettingLine:
    """One value of the setting, requested and effective."""

    name: str
    asked: str
    effective: str
    differs: bool


@dataclass(frozen=True, slots=True)
class MemoryLine:
    """One part of the peak memory."""

    name: str
    meaning: str
    amount: str
    percent: float
    """Share of the measured peak."""


@dataclass(frozen=True, slots=True)
class CaseDetail:
    """Details of a case, which the page shows on request."""

    number: int
    name: str
    outcome: str
    kind: str
    reason: str
    about: Sequence[str]
    """Short facts about model, workload and time."""
    command: str
    show: str
    targets: Sequence[tuple[str, str]]
    """Status and sentence."""
    limits: Sequence[str]
    advice: Sequence[str]
    provenance: Sequence[tuple[str, str]]
    complete: bool = False
    metrics: Sequence[tuple[str, ...]] = ()
    reading: str = ""
    """Name of the rate of reading a text: `Prompt` or `Encode`."""
    launches: Sequence[tuple[str, ...]] = ()
    samples: Sequence[tuple[str, ...]] = ()
    samples_left: int = 0
    settings: Sequence[SettingLine] = ()
    memory: Sequence[MemoryLine] = ()
    memory_sentence: str = ""
    logs: Sequence[LogView] = field(default_factory=list)


def case_detail(record: Record, number: int, limits: DetailLimits) -> CaseDetail:
    """Build the details of a record within the limits."""
    brief = CaseDetail(
        number=number,
        name=record.case_id,
        outcome=ended(record),
        kind=kind_of(record),
        reason=record.reason or "",
        about=_about(record),
        command=repeat_command(record),
        show=show_command(record.run_id, record.case_id),
        targets=[(target.status, target.sentence) for target in record.targets],
        limits=[limit.sentence for limit in record.limits],
        advice=advise(record),
        provenance=_provenance(record),
    )
    if not limits.complete:
        return brief
    samples = [(n, sample) for n, launch in enumerate(record.launches, 1) for sample in launch.samples]
    memory, sentence = _memory(record)
    reading = next(iter(record.rates), "score")
    return replace(
        brief,
        complete=True,
        metrics=_metrics(record),
        reading=reading.capitalize(),
        launches=[launch_line(n, launch, reading) for n, launch in enumerate(record.launches, 1)],
        samples=[sample_line(n, sample) for n, sample in samples[:_MOST_SAMPLES]],
        samples_left=max(0, len(samples) - _MOST_SAMPLES),
        settings=setting_lines(record),
        memory=memory,
        memory_sentence=sentence,
        logs=logs_of(record, limits.log_characters),
    )


def kind_of(record: Record) -> str:
    """Kind of an outcome, which selects its colour: `good`, `warn` or `bad`."""
    if record.outcome is Outcome.MEASURED:
        return "good"
    harmless = (Outcome.SKIPPED, Outcome.NO_ANSWER, Outcome.ENVIRONMENT)
    return "warn" if record.outcome in harmless else "bad"


def setting_lines(record: Record) -> list[SettingLine]:
    """Requested and effective settings, as far as the library reports them."""
    effective = next((launch.effective for launch in record.launches if launch.effective), None)
    lines = [
        _setting_line(one.name, getattr(record.setting, one.name), effective)
        for one in fields(record.setting)
        if getattr(record.setting, one.name) != ""
    ]
    if effective is None:
        return lines
    layers = ", ".join(f"{count} on {device}" for device, count in effective.layers.items())
    buffers = [
        f"{kind} {name} {size(held)}" for kind, by in effective.buffers.items() for name, held in by.items()
    ]
    reported = [
        ("devices", ", ".join(effective.devices)),
        ("layers", layers),
        ("buffers", ", ".join(buffers)),
        ("model", effective.description or ""),
    ]
    return [*lines, *(SettingLine(name, "", shown, False) for name, shown in reported if shown)]


def _setting_line(name: str, asked: object, effective: Effective | None) -> SettingLine:
    found = getattr(effective, name, None)
    differs = found is not None and asked not in _CHOSEN and found != asked
    return SettingLine(name, _plain(asked), "" if found is None else _plain(found), differs)


def _plain(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _about(record: Record) -> list[str]:
    model = record.model
    experts = f", {model.experts_used} of {model.experts} experts" if model.experts else ""
    depth = f" after {record.workload.depth} tokens" if record.workload.depth else ""
    kind = "synthetic " if model.synthetic else ""
    return [
        f"{kind}{model.architecture} of {model.parameters / 1e9:.3g} B parameters{experts}, "
        f"{model.quantization}, {size(record.loaded_bytes)}",
        f"{work(record)}{depth}, {record.workload.repetitions} repetitions in each of "
        f"{count(len(record.launches), 'launch', 'launches')}",
        f"provider {record.provider.name}; total time {duration(record.wall_seconds)}",
    ]


def _provenance(record: Record) -> list[tuple[str, str]]:
    model, provider = record.model, record.provider
    digests = list(dict.fromkeys(launch.digest for launch in record.launches if launch.digest))
    source = record.source.commit or ""
    found = [
        ("Run", record.run_id),
        ("Ended", record.created),
        ("File", model.path),
        ("Repository", model.repository or ""),
        ("Original", model.original.path if model.original else ""),
        ("Model identity", model.identity),
        ("Answer digest", ", ".join(digests)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in provider.versions.items())),
        ("Build", provider.system_info),
        ("Environment", ", ".join(f"{name}={value}" for name, value in provider.environment.items())),
        ("Machine", f"{record.machine.cpu}, {record.machine.fingerprint}"),
        ("Reference", _reference(record)),
        ("Source", source + (" with changes" if source and record.source.dirty else "")),
        ("Interference", record.environment.sentence if record.environment else ""),
    ]
    return [(name, value) for name, value in found if value]


def _reference(record: Record) -> str:
    found = record.reference
    if found is None:
        return ""
    return f"{found.name}-{found.quantization} {found.identity}, texts {found.corpus} {found.corpus_digest}"


def _metrics(record: Record) -> list[tuple[str, ...]]:
    return [_metric_line(metric_of(name), found) for name, found in record.summary.items()]


def _metric_line(metric: Metric, found: Summary) -> tuple[str, ...]:
    return (
        metric.label,
        metric.amount(found.median),
        f"{metric.amount(found.minimum)} to {metric.amount(found.maximum)}",
        str(found.samples),
        ", ".join(map(metric.amount, found.per_launch[:12])),
    )


def _memory(record: Record) -> tuple[list[MemoryLine], str]:
    found = breakdown_of(record)
    if found is None:
        return [], ""
    lines = [
        MemoryLine(name, PARTS[name], size(held), round(100 * held / found.measured_bytes, 1))
        for name, held in found.parts.items()
        if held
    ]
    unused = (
        f"; {size(found.untouched_bytes)} more are reserved but not used" if found.untouched_bytes else ""
    )
    return lines, (
        f"{size(found.measured_bytes)} measured, {size(found.expected_bytes)} expected: "
        f"{100 * found.explained:.1f} % of the peak is explained{unused}"
    )
