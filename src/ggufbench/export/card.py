"""A result in about ten lines of plain text, to paste into an issue.

It holds no name of a host, user or process, no path and no log: only what is needed to read the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ggufbench.analysis.wording import work
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
    cores = count(machine.physical_cores, "core")
    builds = dict.fromkeys(build for record in records if (build := build_of(record)))
    yield _line("ggufbench run", records[0].run_id)
    yield _line("Processor", f"{machine.cpu}, {machine.architecture}, {cores}")
    yield _line("Memory", f"{machine.memory_gib} GiB")
    if machine.devices:
        yield _line("Devices", ", ".join(machine.devices))
    yield _line("System", f"{machine.operating_system}, {machine.virtualization}")
    yield _line("Build", listed(list(builds)))


def _case_lines(records: Sequence[Record]) -> Iterator[str]:
    if len(records) > 1:
        for record in records:
            yield _line(_label(record), "; ".join(_measured(record).values()))
        return
    (record,) = records
    sizes = f"{size(record.loaded_bytes)}, {parameters(record.model.parameters)} parameters"
    yield _line("Model", f"{_label(record)}, {sizes}")
    yield _line("Work", work(record))
    for name, text in _measured(record).items():
        yield _line(name, text.partition(" ")[2])


def _label(record: Record) -> str:
    model = record.model
    synthetic = ", random weights" if model.synthetic else ""
    return f"{model.name} {model.quantization}{synthetic}, scenario {record.scenario}"


_METRICS = {
    "Load": {"ready_seconds": "", "cold_ready_seconds": " from the disk"},
    "Peak": {"peak_rss_bytes": "", "device_bytes": " on the device"},
    "Prompt": {"prompt_tokens_per_second": ""},
    "Encode": {"encode_tokens_per_second": ""},
    "Decode": {"decode_tokens_per_second": ""},
    "Answers": {"kl_divergence": " from the reference"},
}
"""Name of a line to its metrics, and what is written after each."""


def _measured(record: Record) -> dict[str, str]:
    """Name to one line about it, which begins with the name in small letters."""
    lines = {}
    for name, metrics in _METRICS.items():
        known = {metric: words for metric, words in metrics.items() if metric in record.summary}
        amounts = [METRICS[one].amount(record.summary[one].median) + words for one, words in known.items()]
        if amounts:
            lines[name] = f"{name.lower()} {', '.join(amounts)}"
    if lines:
        found = record.environment
        share = f"{found.disturbed} of {found.judged} samples" if found else "none"
        lines["Interference"] = f"interference {share}"
    return {**lines, "Outcome": f"outcome {record.outcome.value}"}


def _line(name: str, text: str) -> str:
    return f"{printable(name, 120)}: {printable(text)}"
