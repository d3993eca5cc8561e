"""Measurements of a file on this machine, from the stored records."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggufbench.paths import expanded
from ggufbench.text import printable
from ggufbench.worker.job import ENGINE

if TYPE_CHECKING:
    from ggufbench.outcomes import Outcome
    from ggufbench.records.schema import Record

_MOST_RUNS = 100
"""Only the newest runs are read, so that an application does not wait for years of history."""

# Scenarios with RPC servers come last: a chat model made from a config never uses one.
_DEVICES = {"metal": 3, "cuda": 3, "rocm": 3, "sycl": 3, "vulkan": 2, "opencl": 2, "cpu": 1}

_NOT_COMPARED = {
    "fingerprint", "devices", "performance_cores", "efficiency_cores", "gpu_wired_limit_mib",
}  # fmt: skip
"""Machine facts that are not compared: reading the devices would require starting llama.cpp, and the
fingerprint does not contain the others.
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """The newest record of a file on this machine; each number is the median of its samples."""

    scenario: str
    outcome: Outcome
    decode_tokens_per_second: float | None
    prompt_tokens_per_second: float | None
    load_seconds: float | None
    peak_rss_bytes: float | None
    created: str
    """End of the case, UTC, ISO 8601."""

    @property
    def broke(self) -> bool:
        """True if it failed, crashed, hung or ran out of memory."""
        return self.outcome not in ("measured", "environment")


def results_folder(given: Path | None = None, env: Mapping[str, str] = os.environ) -> Path | None:
    """The folder of the records: `given`, GGUFBENCH_RESULTS, or `results`; None if it does not exist."""
    stated = env.get("GGUFBENCH_RESULTS", "").strip()
    folder = given or (expanded(stated) if stated else Path("results"))
    return folder if folder.is_dir() else None


def measured_here(identities: Collection[str], results: Path | None = None) -> dict[str, Measured]:
    """The measurements on this machine by file identity; never raises.

    If a file has several records, the best device is preferred, then llama.cpp alone over application code,
    then an ordinary workload over a deep context or a quantized KV cache, then the newest record. Unreadable
    and skipped records and those of transformers are ignored.
    """
    folder = results_folder(results)
    if folder is None or not identities:
        return {}
    best: dict[str, Record] = {}
    for record in _records(folder, identities):
        before = best.setdefault(record.model.identity, record)
        if _weight(record) > _weight(before):
            best[record.model.identity] = record
    return {identity: _as_measured(record) for identity, record in best.items()}


def _records(folder: Path, identities: Collection[str]) -> Iterator[Record]:
    from ggufbench.outcomes import Outcome
    from ggufbench.paths import read_regular
    from ggufbench.records.record_summary import BriefRecord
    from ggufbench.records.store import MOST_BYTES, StoreError, read_document, run_folders

    # Most records belong to other files, and a text search is a hundred times faster than parsing them.
    wanted = [identity.encode() for identity in identities]
    for run in run_folders(folder)[-_MOST_RUNS:]:
        for path in sorted(run.glob("*.json")):
            try:
                content = read_regular(path, MOST_BYTES)
                if not any(identity in content for identity in wanted):
                    continue
                record = read_document(path, BriefRecord)
            except (OSError, StoreError):
                continue
            counts = record.outcome is not Outcome.SKIPPED and not record.is_baseline
            if counts and record.model.identity in identities and _is_from_here(record):
                yield record


def _is_from_here(record: Record) -> bool:
    return record.machine.model_dump(exclude=_NOT_COMPARED) == _this_machine()


@cache
def _this_machine() -> dict[str, Any]:
    from ggufbench.machine.facts import read_machine

    return read_machine().model_dump(exclude=_NOT_COMPARED)


def _weight(record: Record) -> tuple[int, bool, bool, str]:
    """Sort key: the preferred record is larger."""
    setting = record.setting
    ordinary = record.workload.depth == 0 and setting.type_k == setting.type_v == "f16"
    alone = record.provider.name == ENGINE
    return _DEVICES.get(setting.device, 0), alone, ordinary, record.created


def _as_measured(record: Record) -> Measured:
    medians = {name: figures.median for name, figures in record.summary.items()}
    return Measured(
        scenario=printable(record.scenario),
        outcome=record.outcome,
        decode_tokens_per_second=medians.get("decode_tokens_per_second"),
        prompt_tokens_per_second=medians.get("prompt_tokens_per_second"),
        load_seconds=medians.get("load_seconds"),
        peak_rss_bytes=medians.get("peak_rss_bytes"),
        created=printable(record.created),
    )
