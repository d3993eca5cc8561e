"""From a worker's events to the launch that a record keeps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ggufbench.checks.interference import Judge, environment_sentence, main_reason
from ggufbench.checks.native_log import LoadLog, parse_load_log
from ggufbench.discovery.model import Model
from ggufbench.discovery.names import portable_path
from ggufbench.launching.launcher import Ended, Event
from ggufbench.machine.parts import BusyProcess, Conditions
from ggufbench.outcomes import Outcome
from ggufbench.records.schema import (
    Effective,
    Environment,
    Launch,
    MemoryMark,
    ModelIdentity,
    Original,
    PageCache,
    Sample,
)

_NOISE = ("create_tensor: loading tensor", "llama_model_loader: - tensor", "load: control token:")
"""Lists of tensors and vocabulary entries in the native log: the file itself holds them."""

_INSTALLED = re.compile(r'"[^"\n]{0,500}?[/\\](site-packages|dist-packages|ggufbench)[/\\]')


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the harness knows of a launch beside what the worker says."""

    judge: Judge
    load_only: bool = False
    page_cache: PageCache | None = None
    conditions: list[Conditions] = field(default_factory=list)


def build_launch(ended: Ended, model: Model, around: Surroundings, *, keep_log: bool) -> Launch:
    """The launch as the record keeps it; each sample with the reasons against it."""
    imported, loaded = ended.find("imported") or {}, ended.find("loaded") or {}
    log = load_log(loaded)
    measured = ended.outcome is Outcome.MEASURED
    return Launch(
        load_only=around.load_only,
        outcome=ended.outcome,
        phase=ended.phase,
        reason=ended.reason,
        signal=ended.signal,
        wall_seconds=ended.wall_seconds,
        import_seconds=imported.get("seconds"),
        model_seconds=loaded.get("model_seconds"),
        context_seconds=loaded.get("context_seconds"),
        page_cache=around.page_cache,
        conditions=around.conditions,
        loop_overhead_seconds=(ended.find("overhead") or {}).get("seconds_per_token"),
        effective=_effective(loaded, log) if loaded else None,
        samples=_samples(ended.events, around.judge),
        marks=[_mark(event) for event in ended.events if event["event"] == "mark"],
        device_bytes=log.device_bytes,
        digest=(ended.find("digest") or {}).get("digest"),
        log=_kept_lines(loaded, model) if keep_log or not measured else [],
        stderr="" if measured else _shareable(ended.stderr),
    )


def load_log(loaded: Event) -> LoadLog:
    """The facts in the native log of a `loaded` event."""
    return parse_load_log(text for _, text in loaded.get("log", []))


def as_sample(event: Event) -> Event:
    """A `loaded` event as the sample that it also is; other events as they are."""
    if event["event"] != "loaded":
        return event
    seconds = event["model_seconds"] + (event["context_seconds"] or 0.0)
    return {"phase": "load", "warmup": False, "tokens": 0, "seconds": seconds, "evidence": event["evidence"]}


def identify(model: Model) -> ModelIdentity:
    """What a record keeps of a model."""
    kept = ModelIdentity.model_fields
    values = {name: getattr(model, name) for name in kept if name not in ("path", "original")}
    original = None
    if found := model.original:
        where, size = portable_path(found.path), found.file_size_bytes
        original = Original(repository=found.repository, path=where, file_size_bytes=size)
    return ModelIdentity(path=portable_path(model.path), original=original, **values)


def describe_environment(launches: Iterable[Launch], processes: list[BusyProcess]) -> Environment | None:
    """What disturbed the samples of a case, in numbers and in one sentence; None where nothing did."""
    judged = [sample for launch in launches for sample in launch.samples if not sample.warmup]
    disturbed = [sample.disturbed for sample in judged if sample.disturbed]
    reason = main_reason(disturbed)
    if reason is None:
        return None
    return Environment(
        disturbed=len(disturbed),
        judged=len(judged),
        kinds=Counter(kind for reasons in disturbed for kind in {reason.kind for reason in reasons}),
        processes=processes,
        sentence=environment_sentence(len(disturbed), len(judged), reason, processes),
    )


def _samples(events: Iterable[Event], judge: Judge) -> list[Sample]:
    found = [as_sample(event) for event in events if event["event"] in ("loaded", "sample")]
    return [
        Sample(
            phase=event["phase"],
            warmup=event["warmup"],
            tokens=event["tokens"],
            seconds=event["seconds"],
            token_seconds=event.get("token_seconds", []),
            native_seconds=event.get("native_seconds", []),
            evidence=event["evidence"],
            disturbed=judge.reasons(event["evidence"], event["phase"]),
        )
        for event in found
    ]


def _mark(event: Event) -> MemoryMark:
    return MemoryMark(
        after=event["after"], figures=event["memory"], device_free_bytes=event["device_free_bytes"]
    )


def _effective(loaded: Event, log: LoadLog) -> Effective:
    values = dict(loaded["effective"])
    placement = loaded.get("placement") or {"layers": log.layers, "buffers": log.buffers}
    return Effective(
        description=values.pop("model"),
        devices=loaded["devices"],
        layers=placement["layers"],
        buffers=placement["buffers"],
        load_mode=log.load_mode,
        flash_attn=log.flash_attn,
        type_k=log.type_k,
        type_v=log.type_v,
        **values,
    )


def _shareable(stderr: str) -> str:
    """A traceback's files by the folders that matter: where they are installed is this user's affair."""
    return _INSTALLED.sub(r'"\1/', stderr)


def _kept_lines(loaded: Event, model: Model) -> list[str]:
    """The log without its noise.

    The model's folder is written as in the rest of the record, so that a record can be shown to others.
    """
    folder, shown = str(model.path.parent), portable_path(model.path.parent)
    lines = (text for _, text in loaded.get("log", []) if not text.startswith(_NOISE))
    return [line.replace(folder, shown) for line in lines]
