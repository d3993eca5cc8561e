"""The plan of a run: each model with each scenario, its needs, its duration, and why it is skipped."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ggufbench.discovery.model import KIND_NAMES, Model, ModelKind, OriginalCheckpoint
from ggufbench.discovery.names import spelled
from ggufbench.discovery.quantization_choice import quantizations_of, with_quantization
from ggufbench.errors import GgufbenchError
from ggufbench.machine.devices import AvailableDevices
from ggufbench.machine.facts import resolve_threads
from ggufbench.paths import FileIdentity, file_identity
from ggufbench.planning.reference import family_reference, plain_setting
from ggufbench.planning.scenario import Scenario, WorkloadSpec
from ggufbench.text import did_you_mean, listed, printable, size
from ggufbench.worker import questions
from ggufbench.worker.job import (
    ENCODER,
    ENCODER_DECODER,
    ENGINE,
    LANGCHAIN,
    LAYERS,
    SCORER,
    TRANSFORMERS,
    Job,
    Setting,
    Workload,
)
from ggufbench.worker.provider import DIGESTED_TOKENS

_IDENTITY_DIGITS = 6
_INTERPRETER_BYTES = 40 * 2**20
_ACTIVATION_BYTES = 64 * 2**20

# Deliberately modest machines: an estimate is for the order of magnitude before anything was measured.
_LOAD_BYTES_PER_SECOND = 1.5e9
_MEMORY_BYTES_PER_SECOND = {"cpu": 10e9, "rpc": 8e9}
_GPU_BYTES_PER_SECOND = 150e9
_FLOPS = {"cpu": 150e9, "rpc": 100e9}
_GPU_FLOPS = 8e12
_START_SECONDS = 0.5
_SCORED_ROWS = 512
"""Most rows of logits in memory while answers are scored: 256 by llama.cpp, and those of the reference."""
_SCORED_TEXT_TOKENS = 12_000
"""Tokens of the texts that `scorer` reads: 11,500 with the tokenizer of SmolLM2."""
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
    identities: tuple[FileIdentity | None, ...] = ()
    """Identity of each loaded file when the case was planned; empty if it is not checked."""
    reference: Case | None = None
    """For `scorer`: the model and setting whose distributions it is compared with."""

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

    def changed_file(self) -> str | None:
        """Reason why a loaded file is not the one that was planned; None if all are the same."""
        for path, planned in zip(self.files, self.identities, strict=False):
            if file_identity(path) != planned:
                return (
                    f"{printable(str(path))} was replaced, changed or removed after it was found; "
                    "start the run again when the file is complete"
                )
        return None

    def job(self, seed: int, *, load_only: bool = False) -> Job:
        """The job of one launch."""
        path = str((self.original or self.model).path)
        return Job(self.scenario.provider, path, self.setting, self.workload, seed, load_only)


@dataclass(frozen=True, slots=True)
class Selection:
    """Selection of the models that were found. Empty means all of them."""

    match: Sequence[str] = ()
    """Patterns for the name, the label, the repository or an alias, or parts of them; case is ignored."""
    quantizations: Sequence[str] = ()

    def choose(self, models: Sequence[Model]) -> list[Model]:
        """The selected models. Raises PlanError for a pattern or quantization that matches none of them."""
        for pattern in self.match:
            if models and not any(_matches(model, pattern) for model in models):
                labels = sorted({model.label for model in models})
                near = did_you_mean(
                    pattern, [*labels, *(alias for model in models for alias in model.aliases)]
                )
                raise PlanError(f"no model matches {pattern!r}{near}; found: {listed(labels, 12)}")
        wanted = self._of_quantizations(models) if self.quantizations else models
        return [
            model
            for model in wanted
            if not self.match or any(_matches(model, pattern) for pattern in self.match)
        ]

    def _of_quantizations(self, models: Sequence[Model]) -> list[Model]:
        chosen: set[str] = set()
        for wanted in self.quantizations:
            found = with_quantization(wanted, models)
            if models and not found:
                known = sorted({name for model in models for name in quantizations_of(model)})
                near = did_you_mean(spelled(wanted), known)
                raise PlanError(f"no model has the quantization {wanted!r}{near}; found: {listed(known, 12)}")
            chosen.update(model.identity for model in found)
        return [model for model in models if model.identity in chosen]


@dataclass(frozen=True, slots=True)
class Host:
    """Facts about the machine that the plan needs."""

    environments: Mapping[str, AvailableDevices]
    """The probed libraries, by `environment_key`."""
    available_bytes: int
    past_seconds: Mapping[tuple[str, str], float]
    """Wall time of the last record on this machine, by (model identity, scenario name)."""
    models: Sequence[Model] = ()
    """All models found here, also those that were not selected."""


def make_plan(models: Sequence[Model], scenarios: Sequence[Scenario], host: Host) -> list[Case]:
    """Every model with every scenario, in the order of the models; skipped cases stay in the list."""
    cases = [case for model in models for case in _cases_of(model, scenarios, host)]
    return _each_original_once(cases)


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
    variables = spec.chat_template_kwargs
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
        chat_template_kwargs=json.dumps(variables, sort_keys=True) if variables else "",
    )


def kv_bytes(model: Model, setting: Setting) -> int:
    """Bytes of the KV cache of a context with this setting."""
    ubatch = min(setting.n_ubatch, setting.n_batch, setting.n_ctx)
    return model.cache_bytes(setting.n_ctx, ubatch, setting.type_k, setting.type_v)


def _plan_case(model: Model, scenario: Scenario, host: Host) -> Case:
    setting = resolve_setting(scenario)
    if not scenario.is_encoder:  # which divides its context among several sequences
        setting = replace(setting, n_ctx=model.bounded_context(setting.n_ctx))
    if scenario.provider == SCORER:  # beyond its trained context a model has no answers to compare
        setting = replace(setting, n_ctx=min(setting.n_ctx, model.trained_context or setting.n_ctx))
    spec = scenario.workload
    generated = spec.generated_tokens if scenario.generates else 0
    workload = Workload(spec.prompt_tokens, generated, spec.depth, spec.repetitions, spec.sequences)
    estimate = _estimate(model, scenario, setting, workload, host)
    environment = host.environments[environment_key(scenario)]
    skip = (
        _lacks_weights(model, scenario)
        or _too_long(model, scenario)
        or _lacks_template(model, scenario)
        or environment.lacks(setting.device)
        or environment.lacks_layer(scenario.provider)
        or _lacks_positions(model, scenario)
        or _does_not_fit(model, setting, estimate, environment, host)
    )
    case = Case(_case_id(model, scenario), model, scenario, setting, workload, estimate, skip)
    case = replace(case, identities=tuple(map(file_identity, case.files)))
    return _with_reference(case, host) if scenario.provider == SCORER and skip is None else case


def _with_reference(case: Case, host: Host) -> Case:
    """The case of `scorer` with the one that it is compared with, or skipped without one."""
    setting, model = case.setting, case.model
    if case.scenario.reference == "setting":
        setting = plain_setting(setting)
        if setting == case.setting:
            return replace(case, skip="this is the plain setting, with which the others are compared")
    else:
        largest = family_reference(model, host.models)
        if isinstance(largest, str):
            return replace(case, skip=largest)
        model = largest
    estimate = _estimate(model, case.scenario, setting, case.workload, host)
    environment = host.environments[environment_key(case.scenario)]
    too_large = _does_not_fit(model, setting, estimate, environment, host)
    if too_large is not None:
        return replace(case, skip=f"its reference, {model.label}, {too_large}")
    files = tuple(map(file_identity, model.shards))
    reference = replace(case, model=model, setting=setting, estimate=estimate, identities=files)
    both = replace(case.estimate, seconds=case.estimate.seconds + estimate.seconds)
    return replace(case, reference=reference, estimate=case.estimate if both.from_record else both)


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
    """Why a text of this length cannot be read: positions end with the trained context."""
    length = scenario.workload.prompt_tokens
    reads_whole_texts = scenario.is_encoder or scenario.provider == SCORER
    if not reads_whole_texts or length <= model.trained_context:
        return None
    kind = "sequence" if scenario.is_encoder else "chunk"
    return f"its context is {model.trained_context} tokens, and a {kind} of this scenario has {length}"


def _lacks_template(model: Model, scenario: Scenario) -> str | None:
    """Why a layer for chat has no prompt for this model; the user's own callable may bring a template."""
    if scenario.provider not in LAYERS or model.chat_template:
        return None
    return f"the model has no chat template, which provider {scenario.provider} needs; measure it with `cpu`"


def _lacks_positions(model: Model, scenario: Scenario) -> str | None:
    """Why the workload is too long for the model's learned positions, in one sentence; None if it is not."""
    needed = _needed_positions(scenario)
    if scenario.is_encoder or not 0 < model.learned_positions < needed:
        return None
    return (
        f"the model has {model.learned_positions} learned positions, and the workload needs {needed}: lower "
        "depth, prompt_tokens or generated_tokens"
    )


def _needed_positions(scenario: Scenario) -> int:
    """The longest context that a launch of this scenario fills."""
    workload = scenario.workload
    if scenario.is_chat_model:
        return questions.needed_tokens(workload.prompt_tokens, workload.generated_tokens)
    return max(workload.depth + max(workload.prompt_tokens, workload.generated_tokens), DIGESTED_TOKENS)


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
    working = kv_bytes(model, setting) + _ACTIVATION_BYTES
    copies = model.repack_bytes if setting.repack and setting.load_mode != "none" else 0
    on_host = (model.tensor_bytes + copies + working) * (1 - share)
    if scenario.provider == SCORER:
        on_host += _SCORED_ROWS * model.vocabulary * 4
    past = host.past_seconds.get((model.identity, scenario.name))
    seconds = past if past is not None else _seconds(model, scenario, setting, workload)
    return Estimate(
        host_bytes=round(on_host) + _INTERPRETER_BYTES,
        device_bytes=round((model.tensor_bytes + working + _logits_bytes(model, scenario, setting)) * share),
        seconds=seconds,
        from_record=past is not None,
    )


def _logits_bytes(model: Model, scenario: Scenario, setting: Setting) -> int:
    """Bytes that llama.cpp reserves for the logits of every token of a ubatch.

    The engine and this package's chat model ask for those of one token. The other layers do not, but only a
    device holds what is reserved: the host's memory is taken when it is written, and these never are.
    """
    asks_for_one = scenario.provider in (ENGINE, LANGCHAIN)
    return 0 if asks_for_one else setting.n_ubatch * model.vocabulary * 4


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


def _seconds(model: Model, scenario: Scenario, setting: Setting, workload: Workload) -> float:
    spec = scenario.workload
    bandwidth = _MEMORY_BYTES_PER_SECOND.get(setting.device, _GPU_BYTES_PER_SECOND)
    active = model.parameters * model.decode_bytes_per_token / max(1, model.tensor_bytes)
    flops = _FLOPS.get(setting.device, _GPU_FLOPS)
    prompt = 2 * active * (workload.sequences * workload.prompt_tokens + workload.depth) / flops
    decode = workload.generated_tokens * (model.decode_bytes_per_token / bandwidth + 1e-4)
    load = model.file_size_bytes / _LOAD_BYTES_PER_SECOND
    if scenario.provider == SCORER:
        return _START_SECONDS + load + _SCORED_TEXT_TOKENS * 2 * active / flops
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
    together = estimate.host_bytes + estimate.device_bytes
    if environment.shares_memory(setting.device) and together > host.available_bytes:
        needed, free = size(together), size(host.available_bytes)
        return f"does not fit: needs about {needed} of memory, which the GPU shares; {free} is available"
    return None


def _offloaded_share(model: Model, setting: Setting) -> float:
    if setting.device == "cpu":
        return 0.0
    if setting.n_gpu_layers < 0:
        return 1.0
    return min(1.0, setting.n_gpu_layers / (model.layers + 1))


def _case_id(model: Model, scenario: Scenario) -> str:
    """Id of a case, which depends on its own file and scenario only.

    It ends with a part of the model's identity, because a file of the same name may appear at any time.
    """
    label = _slug(f"{model.file_title}-{model.quantization}")
    return f"{label}-{scenario.name}-{model.identity[:_IDENTITY_DIGITS]}"


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", text).strip("._-") or "model"


def _matches(model: Model, pattern: str) -> bool:
    texts = (model.name, model.label, model.repository or "", *model.aliases)
    wanted = pattern.lower().removesuffix(".gguf")
    return any(wanted in text.lower() or fnmatch.fnmatchcase(text.lower(), wanted) for text in texts)
