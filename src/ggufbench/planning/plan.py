"""The plan of a run: each model with each scenario, its needs, its duration, and why it is skipped."""

from __future__ import annotations

import fnmatch
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ggufbench.discovery.model import KIND_NAMES, Model, ModelKind, OriginalCheckpoint
from ggufbench.discovery.tables import bytes_per_element
from ggufbench.errors import GgufbenchError
from ggufbench.machine.devices import AvailableDevices
from ggufbench.machine.facts import resolve_threads
from ggufbench.planning.scenario import Scenario, WorkloadSpec
from ggufbench.text import did_you_mean, listed, size
from ggufbench.worker.job import ENCODER, ENCODER_DECODER, ENGINE, TRANSFORMERS, Job, Setting, Workload

_INTERPRETER_BYTES = 40 * 2**20
_ACTIVATION_BYTES = 64 * 2**20

# Deliberately modest machines: an estimate is for the order of magnitude before anything was measured.
_LOAD_BYTES_PER_SECOND = 1.5e9
_MEMORY_BYTES_PER_SECOND = {"cpu": 10e9, "rpc": 8e9}
_GPU_BYTES_PER_SECOND = 150e9
_FLOPS = {"cpu": 150e9, "rpc": 100e9}
_GPU_FLOPS = 8e12
_START_SECONDS = 0.5
_TORCH_START_SECONDS = 8.0
_TORCH_BYTES = 300 * 2**20

PROVIDERS: dict[ModelKind, str] = {
    "generator": ENGINE,
    "embedding": ENCODER,
    "reranker": ENCODER,
    "encoder-decoder": ENCODER_DECODER,
}
"""The provider that measures each kind of model through llama.cpp's C interface."""


class PlanError(GgufbenchError):
    """The selection names something that does not exist; the message lists what does."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Expected needs of a case."""

    host_bytes: int
    device_bytes: int
    seconds: float
    from_record: bool
    """True if `seconds` is the duration of an earlier run of the same case here."""


@dataclass(frozen=True, slots=True)
class Case:
    """A model with a scenario, ready to run, or skipped with a reason."""

    id: str
    model: Model
    scenario: Scenario
    setting: Setting
    workload: Workload
    estimate: Estimate
    skip: str | None

    @property
    def original(self) -> OriginalCheckpoint | None:
        """The original checkpoint that is loaded instead of the GGUF; None if it is the GGUF."""
        return self.model.original if self.setting.weights == "safetensors" else None

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that are loaded."""
        return self.original.files if self.original else self.model.shards

    @property
    def loaded_bytes(self) -> int:
        """Total size of those files."""
        return (self.original or self.model).file_size_bytes

    @property
    def output_bytes(self) -> int:
        """Bytes of the logits that llama.cpp reserves for each token of an encoded batch (`output_reserve`).

        They are 4 bytes for each entry of the vocabulary. A generator has them for its last token only.
        """
        tokens = self.workload.sequences * self.workload.prompt_tokens
        return 4 * tokens * self.model.vocabulary if self.scenario.is_encoder else 0

    def job(self, seed: int, *, load_only: bool = False) -> Job:
        """The job of one launch."""
        path = str((self.original or self.model).path)
        return Job(self.scenario.provider, path, self.setting, self.workload, seed, load_only)


@dataclass(frozen=True, slots=True)
class Selection:
    """Selection of the models that were found. Empty means all of them."""

    match: Sequence[str] = ()
    """Patterns for the name, the label or the repository, or parts of them; case is ignored."""
    quantizations: Sequence[str] = ()

    def choose(self, models: Sequence[Model]) -> list[Model]:
        """The selected models. Raises PlanError for a pattern or quantization that matches none of them."""
        for pattern in self.match:
            if models and not any(_matches(model, pattern) for model in models):
                labels = sorted({model.label for model in models})
                near = did_you_mean(pattern, labels)
                raise PlanError(f"no model matches {pattern!r}{near}; found: {listed(labels, 12)}")
        found = sorted({model.quantization for model in models})
        for wanted in self.quantizations:
            if models and wanted.upper() not in (name.upper() for name in found):
                near = did_you_mean(wanted.upper(), found)
                raise PlanError(f"no model has the quantization {wanted!r}{near}; found: {listed(found, 12)}")
        quantizations = {name.upper() for name in self.quantizations}
        return [
            model
            for model in models
            if (not self.match or any(_matches(model, pattern) for pattern in self.match))
            and (not quantizations or model.quantization.upper() in quantizations)
        ]


@dataclass(frozen=True, slots=True)
class Host:
    """Facts about the machine that the plan needs."""

    environments: Mapping[str, AvailableDevices]
    """The probed libraries, by `environment_key`."""
    available_bytes: int
    past_seconds: Mapping[tuple[str, str], float]
    """Wall time of the last record on this machine, by (model identity, scenario name)."""


def make_plan(models: Sequence[Model], scenarios: Sequence[Scenario], host: Host) -> list[Case]:
    """Every model with every scenario, in the order of the models; skipped cases stay in the list."""
    cases = [case for model in models for case in _cases_of(model, scenarios, host)]
    return _each_original_once(_with_unique_ids(cases))


def _cases_of(model: Model, scenarios: Sequence[Scenario], host: Host) -> list[Case]:
    """The model with each scenario for its kind; one skipped case if there are only others."""
    fitting = [scenario for scenario in scenarios if model.kind in scenario.kinds]
    if fitting or not scenarios:
        return [_plan_case(model, scenario, host) for scenario in fitting]
    provider = PROVIDERS[model.kind]
    reason = f"{KIND_NAMES[model.kind]}, which needs a scenario with provider = {json.dumps(provider)}"
    return [replace(_plan_case(model, scenarios[0], host), skip=reason)]


def environment_key(scenario: Scenario) -> str:
    """Key of the probe for a scenario's library: its RPC servers, empty, or transformers."""
    return TRANSFORMERS if scenario.is_baseline else scenario.setting.rpc_servers


def resolve_setting(scenario: Scenario) -> Setting:
    """The concrete setting for this machine, with numbers instead of words."""
    spec = scenario.setting
    threads = resolve_threads(spec.n_threads)
    batch_threads = threads if spec.n_threads_batch is None else resolve_threads(spec.n_threads_batch)
    return Setting(
        device=spec.device,
        n_ctx=spec.n_ctx,
        n_gpu_layers=0 if spec.device == "cpu" else spec.n_gpu_layers,
        n_batch=spec.n_batch,
        n_ubatch=spec.n_ubatch,
        n_threads=threads,
        n_threads_batch=batch_threads,
        load_mode=spec.effective_load_mode,
        flash_attn=spec.flash_attn,
        type_k=spec.type_k,
        type_v=spec.type_v,
        offload_kqv=spec.offload_kqv,
        split_mode=spec.split_mode,
        main_gpu=spec.main_gpu,
        repack=spec.repack,
        rpc_servers=spec.rpc_servers,
        weights=spec.weights,
        dtype=spec.dtype,
    )


def kv_bytes(model: Model, setting: Setting) -> int:
    """Bytes of the KV cache: sliding-window layers keep the window and a ubatch, the others n_ctx tokens."""
    k, v = bytes_per_element(setting.type_k), bytes_per_element(setting.type_v)
    # As llama.cpp does: whole blocks of 256 cells, and no batch larger than the context.
    cells = _round_up(setting.n_ctx, 256)
    ubatch = min(setting.n_ubatch, setting.n_batch, setting.n_ctx)
    window = _round_up(min(cells, model.sliding_window + ubatch), 256)
    full = (model.kv.full_k * k + model.kv.full_v * v) * cells
    sliding = (model.kv.sliding_k * k + model.kv.sliding_v * v) * window
    return round(full + sliding)


def _plan_case(model: Model, scenario: Scenario, host: Host) -> Case:
    setting = resolve_setting(scenario)
    spec = scenario.workload
    generated = spec.generated_tokens if scenario.generates else 0
    workload = Workload(spec.prompt_tokens, generated, spec.depth, spec.repetitions, spec.sequences)
    estimate = _estimate(model, scenario, setting, workload, host)
    environment = host.environments[environment_key(scenario)]
    skip = (
        _lacks_weights(model, scenario)
        or _too_long(model, scenario)
        or environment.lacks(setting.device)
        or environment.lacks_layer(scenario.provider)
        or _does_not_fit(model, setting, estimate, environment, host)
    )
    case_id = f"{_slug(model.label)}-{scenario.name}"
    return Case(case_id, model, scenario, setting, workload, estimate, skip)


def _lacks_weights(model: Model, scenario: Scenario) -> str | None:
    """Why transformers has nothing to load for this model, in one sentence; None if it has."""
    if not scenario.is_baseline:
        return None
    if scenario.setting.weights == "gguf":
        several = len(model.shards) > 1
        return (
            f"transformers cannot read a GGUF of {len(model.shards)} files; merge them" if several else None
        )
    if model.original is None:
        return (
            "its original checkpoint is not in the Hugging Face cache; get it with `hf download OWNER/NAME`"
        )
    return None


def _too_long(model: Model, scenario: Scenario) -> str | None:
    """Why an encoder cannot read a sequence of this length: its positions end with its trained context."""
    length = scenario.workload.prompt_tokens
    if not scenario.is_encoder or length <= model.trained_context:
        return None
    return f"its context is {model.trained_context} tokens, and a sequence of this scenario has {length}"


def _each_original_once(cases: Sequence[Case]) -> list[Case]:
    """Measure an original checkpoint once for all quantizations that were made from it."""
    first: dict[tuple[str, str], str] = {}
    kept = []
    for case in cases:
        original = case.original
        if original is None or case.skip is not None:
            kept.append(case)
            continue
        known = first.setdefault((str(original.path), case.scenario.name), case.id)
        again = None if known == case.id else f"the same original checkpoint is measured as {known}"
        kept.append(replace(case, skip=again))
    return kept


def _estimate(model: Model, scenario: Scenario, setting: Setting, workload: Workload, host: Host) -> Estimate:
    if scenario.is_baseline:
        past = host.past_seconds.get((model.identity, scenario.name))
        return _transformers_estimate(model, setting, workload, scenario.workload, past)
    share = _offloaded_share(model, setting)
    working = kv_bytes(model, setting) + setting.n_ubatch * model.vocabulary * 4 + _ACTIVATION_BYTES
    copies = model.repack_bytes if setting.repack and setting.load_mode != "none" else 0
    on_host = (model.tensor_bytes + copies + working) * (1 - share)
    past = host.past_seconds.get((model.identity, scenario.name))
    seconds = past if past is not None else _seconds(model, setting, workload, scenario.workload)
    return Estimate(
        host_bytes=round(on_host) + _INTERPRETER_BYTES,
        device_bytes=round((model.tensor_bytes + working) * share),
        seconds=seconds,
        from_record=past is not None,
    )


def _transformers_estimate(
    model: Model, setting: Setting, workload: Workload, spec: WorkloadSpec, past: float | None
) -> Estimate:
    """Estimate for the baseline: dense weights of 4 or 2 bytes, plus the file's weights while it loads."""
    on_gpu = setting.device != "cpu"
    dense = model.parameters * (4 if setting.dtype == "float32" else 2)
    staged = model.original.file_size_bytes if setting.weights != "gguf" and model.original else dense
    flops = _GPU_FLOPS if on_gpu else _FLOPS["cpu"] / 2
    prompt = 2 * model.parameters * (workload.prompt_tokens + workload.depth) / flops
    decode = workload.generated_tokens * (dense / (_GPU_BYTES_PER_SECOND if on_gpu else 10e9) + 1e-3)
    load = _TORCH_START_SECONDS + (model.parameters / 5e7 if setting.weights == "gguf" else dense / 1e9)
    full = load + prompt * (workload.repetitions + 1) + decode * workload.repetitions
    seconds = spec.launches * full + spec.cold_launches * load
    return Estimate(
        host_bytes=_TORCH_BYTES + max(dense, staged) + (0 if on_gpu else dense // 4),
        device_bytes=dense if on_gpu else 0,
        seconds=seconds if past is None else past,
        from_record=past is not None,
    )


def _seconds(model: Model, setting: Setting, workload: Workload, spec: WorkloadSpec) -> float:
    bandwidth = _MEMORY_BYTES_PER_SECOND.get(setting.device, _GPU_BYTES_PER_SECOND)
    active = model.parameters * model.decode_bytes_per_token / max(1, model.tensor_bytes)
    flops = _FLOPS.get(setting.device, _GPU_FLOPS)
    prompt = 2 * active * (workload.sequences * workload.prompt_tokens + workload.depth) / flops
    decode = workload.generated_tokens * (model.decode_bytes_per_token / bandwidth + 1e-4)
    load = model.file_size_bytes / _LOAD_BYTES_PER_SECOND
    repetitions = workload.repetitions
    full = _START_SECONDS + load + prompt * (repetitions + 1) + decode * repetitions
    return spec.launches * full + spec.cold_launches * (_START_SECONDS + load)


def _does_not_fit(
    model: Model, setting: Setting, estimate: Estimate, environment: AvailableDevices, host: Host
) -> str | None:
    if estimate.host_bytes > host.available_bytes:
        needed, free = size(estimate.host_bytes), size(host.available_bytes)
        return f"does not fit: needs about {needed} of memory; {free} is available"
    free_on_device = environment.free_bytes(setting.device)
    if free_on_device is not None and estimate.device_bytes > free_on_device:
        needed, free = size(estimate.device_bytes), size(free_on_device)
        return f"does not fit: needs about {needed} on {setting.device}; {free} is free there"
    return None


def _offloaded_share(model: Model, setting: Setting) -> float:
    if setting.device == "cpu":
        return 0.0
    if setting.n_gpu_layers < 0:
        return 1.0
    return min(1.0, setting.n_gpu_layers / (model.layers + 1))


def _with_unique_ids(cases: Sequence[Case]) -> list[Case]:
    """Add a part of the identity to both ids if two models would share one: an id is never a position.

    Ids that differ only in case count as the same: on a Mac they would be the same result file.
    """
    counts = Counter(case.id.lower() for case in cases)
    return [
        case
        if counts[case.id.lower()] == 1
        else replace(case, id=f"{_slug(case.model.label)}-{case.model.identity[:6]}-{case.scenario.name}")
        for case in cases
    ]


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", text).strip("._-") or "model"


def _matches(model: Model, pattern: str) -> bool:
    texts = (model.name, model.label, model.repository or "")
    wanted = pattern.lower()
    return any(wanted in text.lower() or fnmatch.fnmatchcase(text.lower(), wanted) for text in texts)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
