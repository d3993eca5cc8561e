"""The part of a stored document that the history needs: its names and medians.

The whole document is read and validated, so that the history counts exactly the files that are shown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from ggufbench.machine.parts import Machine
from ggufbench.outcomes import Outcome
from ggufbench.records.comparison import Arm, Cell, Comparison, Verdict
from ggufbench.records.schema import ProviderFacts, Record
from ggufbench.records.store import read_document, read_record
from ggufbench.values import moment

Kind = Literal["absolute", "anchored"]

LEAST_PAIRS = 6
"""Minimum number of pairs of a session: the gate's first look. With fewer, chance can exceed a tolerance."""

_MOST_REASON = 300
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Subject:
    """Subject of a series, without its metric."""

    id: int
    """Hash of all fields below that affect speed, and of the anchor."""
    work: int
    """The same hash without the anchor."""
    kind: Kind
    model: str
    scenario: str
    fingerprint: str
    anchor: str
    """The pinned release and its build, as text; empty for an absolute series."""


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """One metric of one session."""

    metric: str
    value: float
    """Absolute: the median, in the metric's unit. Anchored: the change from the anchor, worse above zero."""
    reference: float | None = None
    """Anchored: the anchor's own median, in the metric's unit."""
    tolerance: float | None = None
    """Anchored: the relative change from which a regression matters."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """One document."""

    subject: Subject
    run: str
    case_id: str
    created: int
    """Microseconds since 1970."""
    outcome: str
    """An Outcome; of a comparison also `broken` and `missing`, which refer to the candidate."""
    reason: str
    versions: str
    """JSON: name to version of the measured code, with the commit of its repository."""
    machine: Machine
    points: list[StoredPoint]


def read_excerpt(path: Path, kind: Kind) -> Excerpt | None:
    """The excerpt of a record (`absolute`) or of a comparison (`anchored`).

    None for documents outside the history: a record of a baseline, and a comparison without an anchor or
    of the gate's selftest. Raises StoreError for anything else.
    """
    if kind == "absolute":
        return _of_record(read_record(path))
    return _of_comparison(read_document(path, Comparison))


def _of_record(record: Record) -> Excerpt | None:
    if record.is_baseline:
        return None  # a slower or hanging baseline is not a regression of the gated code
    points = [
        StoredPoint(name, summary.median)
        for name, summary in record.summary.items()
        # Series are judged by their logarithms.
        if summary.median > 0 and record.outcome is Outcome.MEASURED
    ]
    return _excerpt(
        record,
        _subject(record, record, "absolute"),
        record.outcome.value,
        _versions(record.provider, record.source.commit),
        points,
    )


def _of_comparison(comparison: Comparison) -> Excerpt | None:
    arms = {arm.role: arm for arm in comparison.arms}
    candidate = arms.get("candidate")
    # If the baseline is the anchor itself, there is no third arm.
    anchor = arms.get("anchor") or arms.get("baseline")
    cells = [cell for cell in comparison.cells if cell.against == "anchor"]
    if comparison.purpose != "ab" or candidate is None or anchor is None or not ("anchor" in arms or cells):
        return None
    outcome = _ended(comparison, cells)
    return _excerpt(
        comparison,
        _subject(comparison, candidate, "anchored", _anchor_name(anchor)),
        outcome,
        _versions(candidate.provider, candidate.commit or comparison.source.commit),
        [point for cell in cells for point in _points_of(cell)] if outcome == Outcome.MEASURED else [],
    )


def _points_of(cell: Cell) -> Iterable[StoredPoint]:
    usable = cell.verdict not in (Verdict.BROKEN, Verdict.MISSING)
    if usable and cell.pairs >= LEAST_PAIRS and cell.change is not None and cell.change > -1:
        yield StoredPoint(cell.metric, cell.change, cell.reference_median, cell.tolerance)


def _ended(comparison: Comparison, cells: Iterable[Cell]) -> str:
    if comparison.verdict is Verdict.BROKEN:
        return "broken"
    if comparison.verdict is Verdict.MISSING and comparison.lacking != "baseline":
        return "missing"
    measured = any(True for cell in cells for _ in _points_of(cell))
    return (Outcome.MEASURED if measured else Outcome.ENVIRONMENT).value


def _excerpt(
    document: Record | Comparison, subject: Subject, outcome: str, versions: str, points: list[StoredPoint]
) -> Excerpt:
    return Excerpt(
        subject=subject,
        run=document.run_id,
        case_id=document.case_id,
        created=(moment(document.created) - _EPOCH) // timedelta(microseconds=1),
        outcome=outcome,
        reason=(document.reason or "")[:_MOST_REASON],
        versions=versions,
        machine=document.machine,
        points=points,
    )


def _subject(document: Record | Comparison, how: Record | Arm, kind: Kind, anchor: str = "") -> Subject:
    fingerprint = document.machine.fingerprint
    work = {
        "model": document.model.identity,
        "scenario": how.scenario,
        "provider": how.provider.name,
        "fingerprint": fingerprint,
        "setting": asdict(how.setting),
        "workload": asdict(document.workload),
    }
    return Subject(
        id=_hash([work, kind, anchor]),
        work=_hash(work),
        kind=kind,
        model=f"{document.model.name}-{document.model.quantization}",
        scenario=how.scenario,
        fingerprint=fingerprint,
        anchor=anchor,
    )


def _anchor_name(arm: Arm) -> str:
    """The anchor as requested and as built: one version number covers different machine code.

    Python's patch version is left out, as the system's is from the fingerprint.
    """
    versions = {
        name: ".".join(version.split(".")[:2]) if name == "python" else version
        for name, version in arm.provider.versions.items()
    }
    build = hashlib.sha256(json.dumps([versions, arm.provider.system_info], sort_keys=True).encode())
    return f"{arm.name} (build {build.hexdigest()[:6]})"


def _versions(provider: ProviderFacts, commit: str | None) -> str:
    found = {**provider.versions, **({"commit": commit} if commit else {})}
    return json.dumps(found, sort_keys=True)


def _hash(value: Any) -> int:
    """64 bits as a number, which a database compares quickly."""
    canonical = json.dumps(value, sort_keys=True).encode()
    return int.from_bytes(hashlib.sha256(canonical).digest()[:8], "big")
