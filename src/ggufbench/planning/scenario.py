"""Scenarios: how a model is loaded, its workload, and its targets.

One TOML file each. A list in `[setting]` or `[workload]` makes a matrix: one scenario for each combination,
named after the file and the keys that vary (`cpu-n_threads4-depth1024`).
"""

from __future__ import annotations

import copy
import itertools
import math
import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, Field, JsonValue, ValidationError, model_validator

from ggufbench.discovery.model import ModelKind
from ggufbench.errors import GgufbenchError
from ggufbench.metrics import METRICS
from ggufbench.paths import read_regular, shipped_folder
from ggufbench.text import did_you_mean, printable
from ggufbench.thresholds import Count, MetricTolerance, Table, Targets, Tolerance, default_tolerance
from ggufbench.values import complaint
from ggufbench.worker.compatibility import MOST_SEQUENCES, provider_problem
from ggufbench.worker.job import (
    DIRECT,
    ENCODER,
    ENCODER_DECODER,
    ENGINE,
    RATES,
    SCORER,
    SHIPPED,
    TRANSFORMERS,
)

TARGETS_FILE = "targets.toml"

_MOST_COMBINATIONS = 1000
"""Maximum number of combinations of the lists in one file: more is a mistake and would take hours."""

# llama.cpp stores these in 32 bits and would truncate a larger number.
Positive = Annotated[int, Field(gt=0, lt=2**31)]
KvType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl"]
Threads = Positive | Literal["auto", "physical", "physical-1"]

_MOST_BYTES = 2**20
"""Maximum size of a scenario file; the shipped ones have at most 2 KB."""


class ScenarioError(GgufbenchError):
    """A scenario file is not usable; the message names the file, the key and the fix."""


class SettingSpec(Table):
    """`[setting]` as written: names as in llama.cpp, threads possibly as a word."""

    device: Literal["cpu", "metal", "cuda", "rocm", "vulkan", "sycl", "opencl", "rpc", "mps"]
    n_ctx: Positive = 4096
    n_gpu_layers: Annotated[int, Field(ge=-1, lt=2**31)] = -1
    n_batch: Positive = 512
    n_ubatch: Positive = 512
    n_threads: Threads = "auto"
    n_threads_batch: Threads | None = None
    """Same as `n_threads` if not given."""
    load_mode: Literal["auto", "none", "mmap", "mlock", "mmap+mlock", "dio"] | None = None
    use_mmap: bool | None = None
    """Together with `use_mlock`, the older form of `load_mode`; not both."""
    use_mlock: bool | None = None
    flash_attn: Literal["auto", "on", "off"] = "auto"
    type_k: KvType = "f16"
    type_v: KvType = "f16"
    offload_kqv: bool = True
    split_mode: Literal["none", "layer", "row"] = "layer"
    main_gpu: Count = 0
    repack: bool = True
    rpc_servers: str = ""
    weights: Literal["gguf", "safetensors"] = "gguf"
    dtype: Literal["", "float32", "bfloat16"] = ""
    chat_template_kwargs: dict[str, JsonValue] = {}
    """Variables of the chat template, such as `enable_thinking = false`; for chat models that apply them."""

    @model_validator(mode="after")
    def _consistent(self) -> SettingSpec:
        if self.load_mode is not None and not (self.use_mmap is None and self.use_mlock is None):
            raise ValueError("load_mode already sets how the file is read; leave out use_mmap and use_mlock")
        if self.n_ubatch > self.n_batch:
            raise ValueError(f"n_ubatch = {self.n_ubatch} is more than n_batch = {self.n_batch}; lower it")
        if (self.device == "rpc") != bool(self.rpc_servers):
            raise ValueError(
                'rpc_servers = "host:port" and device = "rpc" need each other; set both or neither'
            )
        if self.type_v not in ("f32", "f16", "bf16") and self.flash_attn == "off":
            raise ValueError(f'type_v = "{self.type_v}" needs flash attention; set flash_attn = "auto"')
        return self

    @property
    def effective_load_mode(self) -> str:
        """`load_mode`, or its value from `use_mmap` and `use_mlock`."""
        if self.load_mode is not None:
            return self.load_mode
        if self.use_mmap is None and self.use_mlock is None:
            return "auto"
        parts = [word for word, on in (("mmap", self.use_mmap is not False), ("mlock", self.use_mlock)) if on]
        return "+".join(parts) or "none"


class WorkloadSpec(Table):
    """`[workload]`: numbers of tokens, repetitions and launches."""

    prompt_tokens: Positive = 512
    generated_tokens: Positive = 128
    depth: Count = 0
    repetitions: Positive = 3
    sequences: Annotated[int, Field(gt=0, le=MOST_SEQUENCES)] = 1
    """Batch size of an encoder."""
    launches: Positive = 3
    cold_launches: Count = 1
    """Launches that only load, after the pages of the file were dropped."""


_GATED = {
    ENCODER: ("encode_tokens_per_second",),
    ENCODER_DECODER: ("decode_tokens_per_second", "encode_tokens_per_second"),
}
"""Rates that the gate judges by default instead of those of `GateSpec`."""
_KINDS: dict[str, tuple[ModelKind, ...]] = {
    ENCODER: ("embedding", "reranker"),
    ENCODER_DECODER: ("encoder-decoder",),
}
"""Kinds of models that a provider measures; all others measure generators."""


def _gateable(metric: str) -> bool:
    """True if each launch of a comparison has a value above zero, whose logarithm can be compared.

    `kl_divergence` has one value for a comparison.
    """
    if METRICS[metric].unit in ("nats", "share") or metric == "perplexity":
        return metric == DIVERGENCE
    return not metric.startswith("cold_") and not metric.endswith("_slope_seconds")


DIVERGENCE = "kl_divergence"
"""The metric of answers that a gate can judge."""


class GateSpec(Table):
    """`[gate]`: the metrics that decide whether a change passes, and their tolerances."""

    metrics: list[str] = [
        "decode_tokens_per_second",
        "prompt_tokens_per_second",
        "ready_seconds",
        "peak_rss_bytes",
    ]
    """Each additional metric reduces the power for all: with many, a false alarm must be rarer in each."""
    tolerance: dict[str, MetricTolerance] = {}
    most_kl_divergence: Annotated[float, Field(gt=0, lt=100)] = 0.01
    """Divergence in nats from the baseline up to which `kl_divergence` passes.

    Above rounding, which gives 0.002 to 0.005 (docs/quality.md), and at the bound of what is called nearly
    lossless.
    """

    @property
    def timed(self) -> list[str]:
        """The metrics of which each launch has a value."""
        return [name for name in self.metrics if name != DIVERGENCE]

    @model_validator(mode="after")
    def _known_metrics(self) -> GateSpec:
        known = [name for name in METRICS if _gateable(name)]
        for name in (*self.metrics, *self.tolerance):
            if name not in known:
                hint = did_you_mean(name, known) or f"; known: {', '.join(known)}"
                raise ValueError(f"gate: {printable(repr(name), 60)} is not a metric that can be gated{hint}")
        if not self.timed:
            raise ValueError("gate.metrics has no speed or size; name one, such as decode_tokens_per_second")
        if DIVERGENCE in self.tolerance:
            raise ValueError(f"the tolerance of {DIVERGENCE} is in nats; write gate.most_kl_divergence")
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError("gate.metrics names a metric twice; leave one out")
        return self

    def tolerance_of(self, metric: str) -> MetricTolerance:
        """Tolerance of this metric."""
        return self.tolerance.get(metric) or default_tolerance(metric)


def gated_by_default() -> list[str]:
    """Every metric that the gate of some provider judges by default."""
    return list(dict.fromkeys([*GateSpec().metrics, *itertools.chain.from_iterable(_GATED.values())]))


def _provider(text: str) -> str:
    own = re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*(\.\w+)*", text, re.ASCII)
    if own or text in SHIPPED:
        return text
    near, known = did_you_mean(text, SHIPPED), f"{', '.join(map(repr, SHIPPED))} or 'package.module:callable'"
    raise ValueError(f"provider = {printable(repr(text), 60)} is not usable{near}; known: {known}")


class Scenario(Table):
    """One combination of one file's settings and workloads."""

    name: str
    description: str = ""
    on_request: bool = False
    """True for a question that is not part of every run: it runs only if `--scenario` names it."""
    provider: Annotated[str, AfterValidator(_provider)] = ENGINE
    """`engine`, `encoder`, `encoder-decoder`, `scorer`, `transformers`, a layer over llama.cpp (`llamacpp`,
    `langchain`, `langchain-community`), or a `package.module:callable` of the user's own that makes a chat
    model."""
    reference: Literal["file", "setting"] = "file"
    """Reference of `scorer`: the largest file of the model, or the same file with a plain setting."""
    text: str = ""
    """File with the text that `scorer` reads instead of the shipped texts."""
    setting: SettingSpec
    workload: WorkloadSpec = WorkloadSpec()
    targets: Targets
    tolerance: Tolerance = Tolerance()
    gate: GateSpec = GateSpec()

    @property
    def is_baseline(self) -> bool:
        """True if it measures the baseline for llama.cpp."""
        return self.provider == TRANSFORMERS

    @property
    def is_chat_model(self) -> bool:
        """True if it asks questions to a chat model."""
        return self.provider not in (*DIRECT, TRANSFORMERS)

    @property
    def is_encoder(self) -> bool:
        """True if it encodes whole texts."""
        return self.provider in _KINDS

    @property
    def generates(self) -> bool:
        """True if it measures the speed of generating text."""
        return self.measures("decode")

    def measures(self, what: str) -> bool:
        """True for what its launches measure: `load`, `prompt`, `encode`, `decode`, `chat` or `quality`."""
        if what == "chat":
            return self.is_chat_model
        if what == "quality":
            return self.provider == SCORER or DIVERGENCE in self.gate.metrics
        if what == "load":
            return self.provider != SCORER
        return what in RATES.get(self.provider, ("prompt", "decode"))

    @property
    def kinds(self) -> tuple[ModelKind, ...]:
        """Kinds of models that it measures."""
        return _KINDS.get(self.provider, ("generator",))

    @model_validator(mode="before")
    @classmethod
    def _gates_its_rates(cls, table: Any) -> Any:
        """Gate the rates that the provider measures, if the file does not name others."""
        rates = _GATED.get(str(table.get("provider"))) if isinstance(table, dict) else None
        gate = table.get("gate", {}) if rates else None
        if rates is None or not isinstance(gate, dict) or "metrics" in gate:
            return table
        metrics = [*rates, "ready_seconds", "peak_rss_bytes"]
        return {**table, "gate": {"metrics": metrics, **gate}}

    @model_validator(mode="after")
    def _suits_its_provider(self) -> Scenario:
        scoring = {"reference", "text"} & self.model_fields_set
        if scoring and self.provider != SCORER:
            raise ValueError(f'{min(scoring)} is for provider = "{SCORER}" alone; leave it out')
        if self.provider == SCORER and (unused := self.workload.model_fields_set - {"prompt_tokens"}):
            raise ValueError(f"provider {SCORER} does not use {', '.join(sorted(unused))}; leave it out")
        if DIVERGENCE in self.gate.metrics and self.provider != ENGINE:
            raise ValueError(f'gate: {DIVERGENCE} is for provider = "{ENGINE}" alone; leave it out')
        problem = provider_problem(self.provider, self.setting, self.workload)
        if problem is not None:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _fits_its_context(self) -> Scenario:
        workload = self.workload
        generated = workload.generated_tokens if self.generates else 0
        needed = workload.depth + max(workload.prompt_tokens, generated)
        if needed > self.setting.n_ctx and not self.is_baseline:  # its cache grows as it is used
            raise ValueError(f"n_ctx = {self.setting.n_ctx} is too small for {needed} tokens; raise it")
        return self


def scenario_folder(given: Path | None = None) -> Path:
    """The folder of scenarios: the one given, `scenarios/` here, or the one that ggufbench ships."""
    if given is not None:
        if not given.is_dir():
            raise ScenarioError(f"{given} is not a folder; give one that holds scenario files (*.toml)")
        return given
    for folder in (Path.cwd() / "scenarios", shipped_folder("scenarios")):
        if (folder / TARGETS_FILE).is_file():
            return folder
    raise ScenarioError(f"no scenarios/{TARGETS_FILE} under {Path.cwd()}; give a folder with --scenarios")


def load_scenarios(
    folder: Path, names: Sequence[str] = (), env: Mapping[str, str] = os.environ
) -> list[Scenario]:
    """Read the named scenarios (file stems), or all of them without names. Raises ScenarioError."""
    files = {path.stem: path for path in sorted(folder.glob("*.toml")) if path.name != TARGETS_FILE}
    if not files:
        raise ScenarioError(f"{folder} contains no scenario; copy one of those that ggufbench ships")
    for name in names:
        if name not in files:
            known = ", ".join(files)
            raise ScenarioError(
                f"{folder} has no scenario {name!r}{did_you_mean(name, files)}; known: {known}"
            )
    targets = _read_targets(folder / TARGETS_FILE)
    chosen = dict.fromkeys(names or files)
    expanded = [scenario for name in chosen for scenario in _expand(files[name], targets, env)]
    scenarios = [scenario for scenario in expanded if names or not scenario.on_request]
    twice = [name for name, count in Counter(scenario.name for scenario in scenarios).items() if count > 1]
    if twice:
        raise ScenarioError(f"{folder} has two scenarios called {twice[0]}; rename a file or change a value")
    return scenarios


def load_scenario_file(path: Path, env: Mapping[str, str] = os.environ) -> Scenario:
    """Read one scenario from its file, in any folder. Raises ScenarioError.

    Its targets come from the same folder, or from the scenarios in use if that folder has none.
    """
    beside = path.parent / TARGETS_FILE
    targets = _read_targets(beside if beside.exists() else scenario_folder() / TARGETS_FILE)
    found = list(_expand(path, targets, env))
    if len(found) > 1:
        raise ScenarioError(f"{path} makes {len(found)} scenarios; give each of its lists one value")
    return found[0]


def _read_targets(path: Path) -> dict[str, Any]:
    content = _read(path)
    _validate(Targets, path, content)
    return content


def _expand(path: Path, targets: dict[str, Any], env: Mapping[str, str]) -> Iterable[Scenario]:
    content = _read(path)
    if "name" in content:
        raise ScenarioError(f"{path}: unknown key name; a scenario has the name of its file, so leave it out")
    _apply_environment(content, env)
    content["targets"] = _merge(targets, content.get("targets", {}))
    axes = _axes(path, content)
    for combination in itertools.product(*(values for _, _, values in axes)):
        chosen: dict[str, Any] = copy.deepcopy(content)
        name = path.stem
        for (table, key, _), value in zip(axes, combination, strict=True):
            chosen[table][key] = value
            name += f"-{key}{value}"
        if isinstance(content.get("text"), str):
            chosen["text"] = str(path.parent / content["text"])
        yield _validate(Scenario, path, {"name": re.sub(r"[^A-Za-z0-9._+-]+", "_", name), **chosen})


def _axes(path: Path, content: dict[str, Any]) -> list[tuple[str, str, list[Any]]]:
    """The lists of a file, each with its table and key: the axes of its matrix."""
    axes = [
        (table, key, value)
        for table in ("setting", "workload")
        if isinstance(content.get(table), dict)
        for key, value in content[table].items()
        if isinstance(value, list)
    ]
    for table, key, values in axes:
        if not values:
            raise ScenarioError(f"{path}: {table}.{printable(key, 60)} is an empty list; give it a value")
    count = math.prod(len(values) for _, _, values in axes)
    if count > _MOST_COMBINATIONS:
        raise ScenarioError(
            f"{path}: its lists make {count} scenarios, and the limit is {_MOST_COMBINATIONS}; shorten them"
        )
    return axes


def _apply_environment(content: dict[str, Any], env: Mapping[str, str]) -> None:
    """`GGUFBENCH_RPC` names the RPC servers of this machine's network; the file only has the usual port."""
    setting = content.get("setting")
    if isinstance(setting, dict) and setting.get("device") == "rpc" and env.get("GGUFBENCH_RPC"):
        setting["rpc_servers"] = env["GGUFBENCH_RPC"]


def _merge(base: dict[str, Any], over: Any) -> Any:
    if not isinstance(over, dict):
        return over
    merged = dict(base)
    for key, value in over.items():
        both_tables = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = {**base[key], **value} if both_tables else value
    return merged


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_regular(path, _MOST_BYTES).decode())
    except OSError as error:
        remedy = "; copy the one that ggufbench ships" if path.name == TARGETS_FILE else ""
        raise ScenarioError(f"{path} cannot be read: {error.strerror}{remedy}") from None
    except UnicodeDecodeError as error:
        raise ScenarioError(
            f"{path} is not TOML: not UTF-8 at byte {error.start}; save it as UTF-8"
        ) from None
    except ValueError as error:  # TOMLDecodeError, or a number of thousands of digits
        raise ScenarioError(f"{path} is not TOML: {error}") from None
    except RecursionError:
        raise ScenarioError(f"{path} is not usable, because it is nested too deeply") from None


_T = TypeVar("_T", bound=BaseModel)


def _validate(table: type[_T], path: Path, values: dict[str, Any]) -> _T:
    try:
        return table.model_validate(values)
    except ValidationError as error:
        raise ScenarioError(f"{path}: {complaint(error, table, unlisted=('name',))}") from None
