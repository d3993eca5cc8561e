"""The part of a stored document that the history needs, read quickly and validated.

A record is mostly launches; the index needs its names and medians. Those are validated as strictly as in the
document, and the rest is skipped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ggufbench.machine.parts import Machine
from ggufbench.metrics import METRICS
from ggufbench.outcomes import Outcome
from ggufbench.paths import read_regular
from ggufbench.records.comparison import COMPARISON_VERSION, Purpose, Role, Verdict
from ggufbench.records.schema import SCHEMA_VERSION
from ggufbench.records.store import MOST_BYTES, StoreError
from ggufbench.text import escaped
from ggufbench.values import first_complaint
from ggufbench.worker.job import TRANSFORMERS, Setting, Workload

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
    of the gate's selftest. Raises StoreError, in one sentence, for anything else.
    """
    name = "record" if kind == "absolute" else "comparison"
    try:
        content = read_regular(path, MOST_BYTES)
        if kind == "absolute":
            return _of_record(_RecordView.model_validate_json(content))
        return _of_comparison(_ComparisonView.model_validate_json(content))
    except OSError as error:
        raise StoreError(escaped(f"{path} cannot be read: {error.strerror}")) from None
    except ValidationError as error:
        detail = first_complaint(error)
    except (RecursionError, OverflowError, ValueError) as error:
        detail = str(error) or "nested too deeply"
    raise StoreError(escaped(f"{path} is not a {name} of this version of ggufbench: {detail}"))


class _View(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)


_Name = Annotated[str, Field(max_length=1000)]
_Above = Annotated[float, Field(ge=-1e300, le=1e300)]


class _ModelView(_View):
    name: _Name
    quantization: _Name
    identity: _Name


class _ProviderView(_View):
    name: _Name
    versions: dict[_Name, _Name] = {}
    system_info: str = ""


class _SourceView(_View):
    commit: _Name | None = None


class _SummaryView(_View):
    median: _Above


class _DocumentView(_View):
    run_id: _Name
    case_id: _Name
    created: _Name
    reason: str | None = None
    model: _ModelView
    workload: Workload
    machine: Machine
    source: _SourceView


class _MeasuredView(_View):
    scenario: _Name
    setting: Setting
    provider: _ProviderView


class _RecordView(_DocumentView, _MeasuredView):
    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    outcome: Outcome
    summary: dict[str, _SummaryView]


class _ArmView(_MeasuredView):
    role: Role
    name: _Name
    commit: _Name | None = None


class _CellView(_View):
    metric: _Name
    against: Literal["baseline", "anchor"] = "baseline"
    verdict: Verdict
    pairs: Annotated[int, Field(ge=0, lt=2**31)]
    reference_median: _Above | None = None
    change: _Above | None = None
    tolerance: _Above | None = None


class _ComparisonView(_DocumentView):
    schema_version: Annotated[int, Field(ge=1, le=COMPARISON_VERSION)] = COMPARISON_VERSION
    purpose: Purpose = "ab"
    verdict: Verdict
    lacking: Role | None = None
    arms: list[_ArmView]
    cells: list[_CellView]


def _of_record(view: _RecordView) -> Excerpt | None:
    if view.provider.name == TRANSFORMERS:
        return None  # a slower or hanging baseline is not a regression of the gated code
    points = [
        StoredPoint(name, summary.median)
        for name, summary in view.summary.items()
        # Series are judged by their logarithms; a metric of another version is skipped.
        if name in METRICS and summary.median > 0 and view.outcome is Outcome.MEASURED
    ]
    return _excerpt(
        view,
        _subject(view, view, "absolute"),
        view.outcome.value,
        _versions(view.provider, view.source.commit),
        points,
    )


def _of_comparison(view: _ComparisonView) -> Excerpt | None:
    arms = {arm.role: arm for arm in view.arms}
    candidate = arms.get("candidate")
    # If the baseline is the anchor itself, there is no third arm.
    anchor = arms.get("anchor") or arms.get("baseline")
    cells = [cell for cell in view.cells if cell.against == "anchor"]
    if view.purpose != "ab" or candidate is None or anchor is None or not ("anchor" in arms or cells):
        return None
    outcome = _ended(view, cells)
    return _excerpt(
        view,
        _subject(view, candidate, "anchored", _anchor_name(anchor)),
        outcome,
        _versions(candidate.provider, candidate.commit or view.source.commit),
        [point for cell in cells for point in _points_of(cell)] if outcome == Outcome.MEASURED else [],
    )


def _points_of(cell: _CellView) -> Iterable[StoredPoint]:
    usable = cell.metric in METRICS and cell.verdict not in (Verdict.BROKEN, Verdict.MISSING)
    if usable and cell.pairs >= LEAST_PAIRS and cell.change is not None and cell.change > -1:
        yield StoredPoint(cell.metric, cell.change, cell.reference_median, cell.tolerance)


def _ended(view: _ComparisonView, cells: Iterable[_CellView]) -> str:
    if view.verdict is Verdict.BROKEN:
        return "broken"
    if view.verdict is Verdict.MISSING and view.lacking != "baseline":
        return "missing"
    measured = any(True for cell in cells for _ in _points_of(cell))
    return (Outcome.MEASURED if measured else Outcome.ENVIRONMENT).value


def _excerpt(
    view: _DocumentView, subject: Subject, outcome: str, versions: str, points: list[StoredPoint]
) -> Excerpt:
    reason = (view.reason or "")[:_MOST_REASON]
    created = _microseconds(view.created)
    return Excerpt(
        subject, view.run_id, view.case_id, created, outcome, reason, versions, view.machine, points
    )


def _subject(view: _DocumentView, how: _MeasuredView, kind: Kind, anchor: str = "") -> Subject:
    work = {
        "model": view.model.identity,
        "scenario": how.scenario,
        "provider": how.provider.name,
        "fingerprint": view.machine.fingerprint,
        "setting": asdict(how.setting),
        "workload": asdict(view.workload),
    }
    return Subject(
        id=_hash([work, kind, anchor]),
        work=_hash(work),
        kind=kind,
        model=f"{view.model.name}-{view.model.quantization}",
        scenario=how.scenario,
        fingerprint=view.machine.fingerprint,
        anchor=anchor,
    )


def _anchor_name(arm: _ArmView) -> str:
    """The anchor as requested and as built: one version number covers different machine code.

    Python's patch version is left out, as the system's is from the fingerprint.
    """
    versions = {
        name: ".".join(version.split(".")[:2]) if name == "python" else version
        for name, version in arm.provider.versions.items()
    }
    build = hashlib.sha256(json.dumps([versions, arm.provider.system_info], sort_keys=True).encode())
    return f"{arm.name} (build {build.hexdigest()[:6]})"


def _versions(provider: _ProviderView, commit: str | None) -> str:
    found = {**provider.versions, **({"commit": commit} if commit else {})}
    return json.dumps(found, sort_keys=True)


def _hash(value: Any) -> int:
    """64 bits as a number, which a database compares quickly."""
    canonical = json.dumps(value, sort_keys=True).encode()
    return int.from_bytes(hashlib.sha256(canonical).digest()[:8], "big")


def _microseconds(created: str) -> int:
    """Microseconds since 1970. Raises ValueError for text that is not ISO 8601."""
    try:
        moment = datetime.fromisoformat(created)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (moment.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        raise ValueError(f"created: {created[:80]!r} is not a time in ISO 8601") from None
