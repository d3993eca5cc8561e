"""What the stored records say about a file on this machine."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggufbench.text import printable
from ggufbench.worker.job import ENGINE

if TYPE_CHECKING:
    from ggufbench.outcomes import Outcome
    from ggufbench.records.schema import Record

_RUNS_LOOKED_AT = 100
"""The newest ones: an application shall not wait for the history of years."""

# The scenarios of RPC servers come last: a chat model that is made of a config uses none.
_DEVICES = {"metal": 3, "cuda": 3, "vulkan": 2, "cpu": 1}

_BESIDE_THE_HARDWARE = {"fingerprint", "devices"}
"""What of a machine is not compared: to learn its devices, llama.cpp would have to be started."""


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
    """When the case ended, UTC, ISO 8601."""

    @property
    def broke(self) -> bool:
        """Whether it failed, crashed, hung or ran out of memory."""
        return self.outcome not in ("measured", "environment")


def results_folder(given: Path | None = None, env: Mapping[str, str] = os.environ) -> Path | None:
    """Where records lie: the folder given, that of GGUFBENCH_RESULTS, or `results` here; None without."""
    stated = env.get("GGUFBENCH_RESULTS", "").strip()
    folder = given or (Path(stated).expanduser() if stated else Path("results"))
    return folder if folder.is_dir() else None


def measured_here(identities: Collection[str], results: Path | None = None) -> dict[str, Measured]:
    """By the identity of the file, what was measured of it on this machine; never raises.

    Of a file's records those of the best device count first, then llama.cpp alone before an application's
    own code, an ordinary workload before a deep context or a packed cache, and of these the newest one. What
    is not readable, was skipped or is of transformers does not count.
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
    from ggufbench.records.record_summary import BriefRecord
    from ggufbench.records.store import StoreError, read_document, read_regular, run_folders

    # Most records are of other files, and a search in the text is a hundred times quicker than reading them.
    wanted = [identity.encode() for identity in identities]
    for run in run_folders(folder)[-_RUNS_LOOKED_AT:]:
        for path in sorted(run.glob("*.json")):
            try:
                content = read_regular(path)
                if not any(identity in content for identity in wanted):
                    continue
                record = read_document(path, BriefRecord)
            except (OSError, StoreError):
                continue
            counts = record.outcome is not Outcome.SKIPPED and not record.is_baseline
            if counts and record.model.identity in identities and _is_from_here(record):
                yield record


def _is_from_here(record: Record) -> bool:
    return record.machine.model_dump(exclude=_BESIDE_THE_HARDWARE) == _this_machine()


@cache
def _this_machine() -> dict[str, Any]:
    from ggufbench.machine.facts import read_machine

    return read_machine().model_dump(exclude=_BESIDE_THE_HARDWARE)


def _weight(record: Record) -> tuple[int, bool, bool, str]:
    """What counts more is larger."""
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
