"""Comparison of the answers of two records of one model and setting, with their change in speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ggufbench.records.schema import Record

SHOWN = ("decode_tokens_per_second", "prompt_tokens_per_second", "encode_tokens_per_second", "ready_seconds")


@dataclass(frozen=True, slots=True)
class ChangedWork:
    """A change of a model's greedy tokens since an earlier record."""

    case_id: str
    earlier_run_id: str
    earlier_digest: str
    digest: str
    ratios: Mapping[str, float]
    """Median over earlier median, by metric. With one session on each side it is a hint, not a verdict."""


def changed_work(record: Record, earlier: Record | None) -> ChangedWork | None:
    """The change since an earlier record; None if the digests agree or the two cannot be compared."""
    if earlier is None or _subject(record) != _subject(earlier):
        return None
    before, after = _digest(earlier), _digest(record)
    if before is None or after is None or before == after:
        return None
    ratios = {
        name: record.summary[name].median / earlier.summary[name].median
        for name in SHOWN
        if name in record.summary and name in earlier.summary and earlier.summary[name].median
    }
    return ChangedWork(record.case_id, earlier.run_id, before, after, ratios)


def _subject(record: Record) -> object:
    return record.model.identity, record.setting, record.workload, record.seed, record.machine.fingerprint


def _digest(record: Record) -> str | None:
    """Digest of the answer of all launches; None if the answers differ or are missing."""
    digests = {launch.digest for launch in record.launches if launch.digest}
    return digests.pop() if len(digests) == 1 else None
