"""Conversion of a supervised launch to the launch of a record."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict

from ggufbench.checks.interference import environment_sentence, main_reason
from ggufbench.checks.native_log import LoadLog
from ggufbench.discovery.model import Model
from ggufbench.discovery.names import portable_path
from ggufbench.machine.parts import BusyProcess
from ggufbench.measuring.supervisor import LaunchSupervisor
from ggufbench.outcomes import Outcome
from ggufbench.planning.plan import Case
from ggufbench.quality.corpus import corpus_for
from ggufbench.records.schema import (
    ChunkScores,
    Effective,
    Environment,
    Launch,
    MemoryMark,
    ModelIdentity,
    Original,
    Reference,
)
from ggufbench.worker import protocol

_NOISE = ("create_tensor: loading tensor", "llama_model_loader: - tensor", "load: control token:")
"""Lists of tensors and vocabulary entries in the native log; the file itself contains them."""

_INSTALLED = re.compile(r'"[^"\n]{0,500}?[/\\](site-packages|dist-packages|ggufbench)[/\\]')


def build_launch(supervisor: LaunchSupervisor, *, keep_log: bool) -> Launch:
    """The launch as the record keeps it."""
    ended, imported, loaded = supervisor.ended, supervisor.imported, supervisor.loaded
    measured = ended.outcome is Outcome.MEASURED
    return Launch(
        load_only=supervisor.load_only,
        outcome=ended.outcome,
        phase=ended.phase,
        reason=ended.reason,
        signal=ended.signal,
        wall_seconds=ended.wall_seconds,
        import_seconds=imported.seconds if imported else None,
        model_seconds=loaded.model_seconds if loaded else None,
        context_seconds=loaded.context_seconds if loaded else None,
        page_cache=supervisor.page_cache,
        conditions=supervisor.conditions,
        loop_overhead_seconds=supervisor.loop_overhead_seconds,
        chunks=_chunks(supervisor),
        effective=_effective(loaded, supervisor.log) if loaded else None,
        samples=supervisor.samples,
        marks=[_mark(event) for event in supervisor.marks],
        device_bytes=supervisor.log.device_bytes(supervisor.case.model.tensor_bytes),
        digest=supervisor.digest,
        log=_kept_lines(loaded, supervisor.case.model) if loaded and (keep_log or not measured) else [],
        stderr="" if measured else _shareable(ended.stderr),
    )


def _chunks(supervisor: LaunchSupervisor) -> list[ChunkScores]:
    results = supervisor.scoring.results if supervisor.scoring is not None else []
    return [chunk for result in results for chunk in result or []]


def describe_reference(case: Case) -> Reference | None:
    """Reference of the case, as the record keeps it."""
    reference = case.reference
    if reference is None:
        return None
    model, corpus = reference.model, corpus_for(case.scenario.text)
    return Reference(
        name=model.name,
        quantization=model.quantization,
        identity=model.identity,
        file_size_bytes=model.file_size_bytes,
        setting=reference.setting,
        corpus=corpus.name,
        corpus_digest=corpus.digest,
        chunk_tokens=case.workload.prompt_tokens,
    )


def identify(model: Model) -> ModelIdentity:
    """The identity of a model as the record keeps it."""
    kept = ModelIdentity.model_fields
    values = {name: getattr(model, name) for name in kept if name not in ("path", "original")}
    original = None
    if found := model.original:
        where, size = portable_path(found.path), found.file_size_bytes
        original = Original(repository=found.repository, path=where, file_size_bytes=size)
    return ModelIdentity(path=portable_path(model.path), original=original, **values)


def describe_environment(launches: Iterable[Launch], processes: list[BusyProcess]) -> Environment | None:
    """Interference with the samples of a case, in numbers and in one sentence; None without interference."""
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


def _mark(event: protocol.Mark) -> MemoryMark:
    return MemoryMark(after=event.after, figures=event.memory, device_free_bytes=event.device_free_bytes)


def _effective(loaded: protocol.Loaded, log: LoadLog) -> Effective:
    placement = loaded.placement or protocol.Placement(log.layers, log.buffers)
    return Effective(
        devices=loaded.devices,
        layers=placement.layers,
        buffers=placement.buffers,
        load_mode=log.load_mode,
        flash_attn=log.flash_attn,
        type_k=log.type_k,
        type_v=log.type_v,
        graph_splits=log.graph_splits,
        fused_elsewhere=log.fused_elsewhere,
        **asdict(loaded.effective),
    )


def _shareable(stderr: str) -> str:
    """The text with shortened file paths, so that it does not reveal where this user installed packages."""
    return _INSTALLED.sub(r'"\1/', stderr)


def _kept_lines(loaded: protocol.Loaded, model: Model) -> list[str]:
    """The log without its noise.

    The model's folder is written as in the rest of the record, so that a record can be shared.
    """
    folder, shown = str(model.path.parent), portable_path(model.path.parent)
    return [line.replace(folder, shown) for line in loaded.log if not line.startswith(_NOISE)]
