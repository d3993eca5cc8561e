"""Scenarios: how a model is loaded, what is asked of it, and what was promised.

One TOML file each. A list in `[setting]` or `[workload]` makes a matrix: one scenario for each combination,
named after the file and the keys that vary (`cpu-n_threads4-depth1024`).
"""

from __future__ import annotations

import copy
import difflib
import itertools
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

TARGETS_FILE = "targets.toml"

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
KvType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl"]
Threads = Positive | Literal["auto", "physical", "physical-1"]


class ScenarioError(ValueError):
    """A scenario file is not usable; the message names the file, the key and the remedy."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SettingSpec(_Table):
    """`[setting]` as written: names as in llama.cpp, threads possibly as a word."""

    device: Literal["cpu", "metal", "cuda", "vulkan", "rpc"]
    n_ctx: Positive = 4096
    n_gpu_layers: Annotated[int, Field(ge=-1)] = -1
    n_batch: Positive = 512
    n_ubatch: Positive = 512
    n_threads: Threads = "auto"
    n_threads_batch: Threads | None = None
    """As `n_threads` where it is not given."""
    load_mode: Literal["auto", "none", "mmap", "mlock", "mmap+mlock", "dio"] | None = None
    use_mmap: bool | None = None
    """With `use_mlock`, the older way to say `load_mode`; not both."""
    use_mlock: bool | None = None
    flash_attn: Literal["auto", "on", "off"] = "auto"
    type_k: KvType = "f16"
    type_v: KvType = "f16"
    offload_kqv: bool = True
    split_mode: Literal["none", "layer", "row"] = "layer"
    main_gpu: Count = 0
    repack: bool = True
    rpc_servers: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> SettingSpec:
        if self.load_mode is not None and not (self.use_mmap is None and self.use_mlock is None):
            raise ValueError("load_mode says how the file is read; leave out use_mmap and use_mlock")
        if self.n_ubatch > self.n_batch:
            raise ValueError(f"n_ubatch = {self.n_ubatch} is more than n_batch = {self.n_batch}; lower it")
        if (self.device == "rpc") != bool(self.rpc_servers):
            raise ValueError('rpc_servers = "host:port" goes with device = "rpc", and is needed there')
        if self.type_v not in ("f32", "f16", "bf16") and self.flash_attn == "off":
            raise ValueError(f'type_v = "{self.type_v}" needs flash attention; set flash_attn = "auto"')
        return self

    @property
    def effective_load_mode(self) -> str:
        """`load_mode`, or what `use_mmap` and `use_mlock` mean together."""
        if self.load_mode is not None:
            return self.load_mode
        if self.use_mmap is None and self.use_mlock is None:
            return "auto"
        parts = [word for word, on in (("mmap", self.use_mmap is not False), ("mlock", self.use_mlock)) if on]
        return "+".join(parts) or "none"


class WorkloadSpec(_Table):
    """`[workload]`: tokens asked for, and how often."""

    prompt_tokens: Positive = 512
    generated_tokens: Positive = 128
    depth: Count = 0
    repetitions: Positive = 3
    launches: Positive = 3


class LoadTarget(_Table):
    """What was promised about loading, in bytes of the file per second."""

    floor_bytes_per_second: Annotated[float, Field(gt=0)]
    promise_bytes_per_second: Annotated[float, Field(gt=0)]
    small_file_seconds: Annotated[float, Field(ge=0)]


class MemoryTarget(_Table):
    """What was promised about memory: at most `ratio * file + allowance`."""

    peak_to_file_ratio: Annotated[float, Field(gt=0)]
    allowance_bytes: Count


class Targets(_Table):
    """Every promise that a record is held against."""

    load: LoadTarget
    memory: MemoryTarget


class Scenario(_Table):
    """One combination of one file's settings and workloads."""

    name: str
    description: str = ""
    provider: Literal["engine"] = "engine"
    setting: SettingSpec
    workload: WorkloadSpec = WorkloadSpec()
    targets: Targets

    @model_validator(mode="after")
    def _fits_its_context(self) -> Scenario:
        workload = self.workload
        needed = workload.depth + max(workload.prompt_tokens, workload.generated_tokens)
        if needed > self.setting.n_ctx:
            raise ValueError(f"n_ctx = {self.setting.n_ctx} has no room for {needed} tokens; raise it")
        return self


def scenario_folder(given: Path | None = None) -> Path:
    """Where scenarios are read from: the folder given, `scenarios/` here, or those that ggufbench ships."""
    package = Path(__file__).resolve().parent
    if given is not None:
        if not given.is_dir():
            raise ScenarioError(f"{given} is not a folder; give one that holds scenario files (*.toml)")
        return given
    candidates = (Path.cwd() / "scenarios", package / "scenarios", package.parent.parent / "scenarios")
    for folder in candidates:
        if (folder / TARGETS_FILE).is_file():
            return folder
    raise ScenarioError(f"no scenarios/{TARGETS_FILE} under {Path.cwd()}; give a folder with --scenarios")


def load_scenarios(
    folder: Path, names: Sequence[str] = (), env: Mapping[str, str] = os.environ
) -> list[Scenario]:
    """Read the named scenarios (file stems), all of them where none is named. Raises ScenarioError."""
    files = {path.stem: path for path in sorted(folder.glob("*.toml")) if path.name != TARGETS_FILE}
    if not files:
        raise ScenarioError(f"{folder} holds no scenario; copy one of those that ggufbench ships")
    for name in names:
        if name not in files:
            known = ", ".join(files)
            raise ScenarioError(f"{folder} has no scenario {name!r}{_nearest(name, files)}; known: {known}")
    targets = _read(folder / TARGETS_FILE)
    chosen = dict.fromkeys(names or files)
    return [scenario for name in chosen for scenario in _expand(files[name], targets, env)]


def _expand(path: Path, targets: dict[str, Any], env: Mapping[str, str]) -> Iterable[Scenario]:
    content = _read(path)
    _apply_environment(content, env)
    content["targets"] = _merge(targets, content.get("targets", {}))
    axes = [
        (table, key, value)
        for table in ("setting", "workload")
        if isinstance(content.get(table), dict)
        for key, value in content[table].items()
        if isinstance(value, list)
    ]
    for combination in itertools.product(*(values for _, _, values in axes)):
        chosen: dict[str, Any] = copy.deepcopy(content)
        name = path.stem
        for (table, key, _), value in zip(axes, combination, strict=True):
            chosen[table][key] = value
            name += f"-{key}{value}"
        yield _validate(path, {"name": name, **chosen})


def _apply_environment(content: dict[str, Any], env: Mapping[str, str]) -> None:
    """`GGUFBENCH_RPC` names the servers of this machine's network; the file only knows the usual port."""
    setting = content.get("setting")
    if isinstance(setting, dict) and setting.get("device") == "rpc" and env.get("GGUFBENCH_RPC"):
        setting["rpc_servers"] = env["GGUFBENCH_RPC"]


def _merge(base: dict[str, Any], over: Any) -> Any:
    if not isinstance(over, dict):
        return over
    merged = dict(base)
    for key, value in over.items():
        merged[key] = {**base[key], **value} if isinstance(value, dict) and key in base else value
    return merged


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path} is not TOML: {error}") from None


def _validate(path: Path, values: dict[str, Any]) -> Scenario:
    try:
        return Scenario.model_validate(values)
    except ValidationError as error:
        raise ScenarioError(f"{path}: {_sentence(error)}") from None


def _sentence(error: ValidationError) -> str:
    """The first complaint of pydantic, as one sentence that names the key and the remedy."""
    first = error.errors(include_url=False)[0]
    # Where a key may have one of several types, pydantic adds the type it tried to the key's place.
    where = [str(part) for part in first["loc"] if part in _all_keys() or first["type"] == "extra_forbidden"]
    key = ".".join(where)
    if first["type"] == "extra_forbidden":
        return f"unknown key {key}{_nearest(where[-1], _known_keys(where[:-1]))}"
    if first["type"] == "missing":
        return f"{key} is missing; add it"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    same_key = [found for found in error.errors() if found["loc"][: len(where)] == first["loc"][: len(where)]]
    complaints = dict.fromkeys(found["msg"].lower() for found in same_key)
    return f"{key} = {first['input']!r} is not usable: {' or '.join(complaints)}"


_TABLES: dict[tuple[str, ...], type[BaseModel]] = {
    (): Scenario,
    ("setting",): SettingSpec,
    ("workload",): WorkloadSpec,
    ("targets",): Targets,
    ("targets", "load"): LoadTarget,
    ("targets", "memory"): MemoryTarget,
}


def _known_keys(where: Sequence[str]) -> Iterable[str]:
    table = _TABLES.get(tuple(where))
    return table.model_fields if table else ()


def _all_keys() -> set[str]:
    return {key for table in _TABLES.values() for key in table.model_fields}


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
