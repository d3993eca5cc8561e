"""A result in about ten lines of plain text, to paste into an issue.

It holds no name of a host, user or process, no path and no log: only what is needed to read the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ggufbench.errors import GgufbenchError
from ggufbench.metrics import METRICS
from ggufbench.records.runs import StoredRun
from ggufbench.records.schema import Record
from ggufbench.records.tables import build_of
from ggufbench.text import count, listed, parameters, printable, size


def card(run: StoredRun) -> str:
    """The card of a run: the machine, the build, and each case. Raises GgufbenchError without a record."""
    if not run.records:
        raise GgufbenchError(f"{run.folder} holds no record, so there is no card of it; name another run")
    parts = []
    for machine in dict.fromkeys(record.machine.fingerprint for record in run.records):
        records = [record for record in run.records if record.machine.fingerprint == machine]
        parts.append("\n".join([*_machine_lines(records), *_case_lines(records)]))
    return "\n\n".join(parts)


def _machine_lines(records: Sequence[Record]) -> Iterator[str]:
    machine = records[0].machine
    yield _line("ggufbench run", records[0].run_id)
    yield _line(
        "Processor", f"{machine.cpu}, {machine.architecture}, {count(machine.physical_cores, 'core')}"
    )
    yield _line("Memory", f"{machine.memory_gib} GiB")
    if machine.devices:
        yield _line("Devices", ", ".join(machine.devices))
    yield _line("System", f"{machine.operating_system}, {machine.virtualization}")
    yield _line("Build", listed(list(dict.fromkeys(map(build_of, records)))))


def _case_lines(records: Sequence[Record]) -> Iterator[str]:
    if len(records) > 1:
        for record in records:
            yield _line(_label(record), "; ".join(_measured(record).values()))
        return
    (record,) = records
    yield _line(
        "Model", f"{_label(record)}, {size(record.loaded_bytes)}, {parameters(record.model.parameters)}"
    )
    workload = record.workload
    yield _line("Work", f"{workload.prompt_tokens} prompt tokens, {workload.generated_tokens} generated")
    for name, text in _measured(record).items():
        yield _line(name, text.partition(" ")[2])


def _label(record: Record) -> str:
    model = record.model
    synthetic = ", random weights" if model.synthetic else ""
    return f"{model.name} {model.quantization}{synthetic}, {record.scenario} ({record.setting.device})"


def _measured(record: Record) -> dict[str, str]:
    """Name to one line about it, which begins with the name in small letters."""
    shown = {
        "Load": ("ready_seconds", "cold_ready_seconds"),
        "Peak": ("peak_rss_bytes", "device_bytes"),
        "Prompt": ("prompt_tokens_per_second",),
        "Decode": ("decode_tokens_per_second",),
    }
    words = {"cold_ready_seconds": " from the disk", "device_bytes": " on the device"}
    lines = {}
    for name, metrics in shown.items():
        amounts = [
            METRICS[metric].amount(record.summary[metric].median) + words.get(metric, "")
            for metric in metrics
            if metric in record.summary
        ]
        if amounts:
            lines[name] = f"{name.lower()} {', '.join(amounts)}"
    environment = record.environment
    share = f"{environment.disturbed} of {environment.judged} samples" if environment else "none"
    return {**lines, "Interference": f"interference {share}", "Outcome": f"outcome {record.outcome.value}"}


def _line(name: str, text: str) -> str:
    return f"{printable(name, 120)}: {printable(text)}"
