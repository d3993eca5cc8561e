"""What the harness asks of a worker: a setting, a workload and the file, every value concrete.

These classes are shared with the harness, which stores them in the record: what was asked, as it was asked.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

ENGINE = "engine"
"""The provider that is llama.cpp's C interface."""

TRANSFORMERS = "transformers"
"""The provider that llama.cpp is compared with."""

LLAMACPP = "llamacpp"
"""The provider that is llama-cpp-python's `Llama.create_chat_completion`, streaming."""

LANGCHAIN = "langchain"
"""The provider that is this package's own chat model for LangChain."""

LANGCHAIN_COMMUNITY = "langchain-community"
"""The provider that is the chat model of the package of that name."""

LAYERS = (LLAMACPP, LANGCHAIN, LANGCHAIN_COMMUNITY)
"""Providers that answer questions through what applications build on, all of them over llama.cpp."""

SHIPPED = (ENGINE, TRANSFORMERS, *LAYERS)
"""Providers that are no code of the user's. Any other is a `package.module:callable`."""

_UBATCH = 512

DEVICE_PREFIXES = {"metal": ("MTL", "Metal"), "cuda": ("CUDA",), "vulkan": ("Vulkan",), "rpc": ("RPC",),
                   "mps": ("mps",)}  # fmt: skip
"""How ggml's device names begin, for each device that a setting can ask for beside `cpu`."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a model is loaded. Names as in llama.cpp; nothing here is left for a library to choose silently."""

    device: str
    """`cpu`, or the backend whose devices may be used: `metal`, `cuda`, `vulkan`, `rpc`; PyTorch's `mps`."""
    n_ctx: int = 4096
    n_gpu_layers: int = -1
    """Layers on the device; -1 is all of them. Not used on `cpu`, where no layer leaves the processor."""
    n_batch: int = 512
    n_ubatch: int = _UBATCH
    n_threads: int = 1
    n_threads_batch: int = 1
    load_mode: str = "auto"
    """`auto` (mmap unless a device cannot), `none`, `mmap`, `mlock`, `mmap+mlock` or `dio`."""
    flash_attn: str = "auto"
    type_k: str = "f16"
    type_v: str = "f16"
    offload_kqv: bool = True
    split_mode: str = "layer"
    main_gpu: int = 0
    repack: bool = True
    """Let the CPU copy and reorder weights at loading (llama.cpp's extra buffer types)."""
    rpc_servers: str = ""
    """`host:port`, several separated by commas; only for `rpc`."""
    weights: str = "gguf"
    """`gguf`, or `safetensors` for the original that the GGUF was made of; only `transformers` reads that."""
    dtype: str = ""
    """`float32` or `bfloat16`, in which `transformers` computes; empty for all others."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked of the loaded model."""

    prompt_tokens: int = 512
    generated_tokens: int = 128
    depth: int = 0
    """Tokens already in the context before each timed part."""
    repetitions: int = 3
    """Timed samples of each kind in one launch."""


@dataclass(frozen=True, slots=True)
class Job:
    """One launch."""

    provider: str
    model_path: str
    """The file, or the original's folder for `weights = "safetensors"`."""
    setting: Setting
    workload: Workload
    seed: int = 1
    load_only: bool = False
    """End after the first token: all that is asked is how long loading takes."""
    hidden_work: float = 0.0
    """This share more is done and timed, and not reported: a comparison must find it. No file can set it."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for the pipe."""
        return {"task": "measure", **asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Job:
        """Build the job again; an unknown name raises TypeError, so that none is accepted and not applied."""
        given = {key: value for key, value in values.items() if key != "task"}
        given["setting"] = Setting(**given["setting"])
        given["workload"] = Workload(**given["workload"])
        return cls(**given)


_CHAT_TAKES = ("device", "n_ctx", "n_gpu_layers", "n_batch", "n_threads", "load_mode", "rpc_servers")
_LAYER_TAKES = (*_CHAT_TAKES, "flash_attn")
_TRANSFORMERS_TAKES = ("device", "n_threads", "weights", "dtype")
_DTYPES = ("float32", "bfloat16")


def provider_problem(provider: str, setting: Any, workload: Any) -> str | None:
    """Why a provider cannot be measured like this, in one sentence; None where it can.

    Both may be what a scenario's tables say, whose names are the same. What a provider is not given and does
    not have as it is by default would be accepted and not applied.
    """
    if provider == TRANSFORMERS:
        return _transformers_problem(setting)
    if setting.device == "mps":
        return 'device = "mps" is PyTorch\'s name, for provider = "transformers"; write "metal"'
    if setting.weights != "gguf" or setting.dtype:
        return 'weights and dtype are for provider = "transformers" alone; leave them out'
    return None if provider == ENGINE else _chat_problem(provider, setting, workload)


def _chat_problem(provider: str, setting: Any, workload: Any) -> str | None:
    refused = _unusual(setting, _LAYER_TAKES if provider in LAYERS else _CHAT_TAKES)
    if setting.load_mode == "dio":
        refused["load_mode"] = "dio"
    if workload.depth:
        refused["depth"] = workload.depth
    if refused and provider in LAYERS:
        return f"provider {provider} cannot be given {_listed(refused)}; leave it out"
    if refused:
        remedy = "leave it out, and set it in the callable"
        return f"a provider of your own cannot be given {_listed(refused)}; {remedy}"
    needed = workload.prompt_tokens + workload.generated_tokens
    if needed > setting.n_ctx:
        return f"n_ctx = {setting.n_ctx} has no room for question and answer of {needed} tokens; raise it"
    return None


def _transformers_problem(setting: Any) -> str | None:
    if setting.device not in ("cpu", "mps", "cuda"):
        return f'transformers has no device "{setting.device}"; write cpu, mps or cuda'
    if setting.dtype not in _DTYPES:
        return f"transformers needs a dtype; write one of {', '.join(_DTYPES)}"
    if setting.weights == "gguf" and setting.dtype != "float32":
        return 'transformers computes with the weights of a GGUF in float32; write dtype = "float32"'
    refused = _unusual(setting, _TRANSFORMERS_TAKES)
    if setting.device == "cpu" and setting.n_gpu_layers == 0:
        refused.pop("n_gpu_layers", None)
    if setting.load_mode is None:
        refused.pop("load_mode", None)
    return f"transformers cannot be given {_listed(refused)}; leave it out" if refused else None


def _unusual(setting: Any, taken: tuple[str, ...]) -> dict[str, Any]:
    """What is not taken and is not as it always is."""
    usual = {field.name: field.default for field in fields(Setting) if field.name not in taken}
    usual["n_ubatch"] = min(_UBATCH, setting.n_batch)
    asked = {name: getattr(setting, name) for name in usual}
    if asked["n_threads_batch"] in (None, setting.n_threads):
        del asked["n_threads_batch"]
    return {name: value for name, value in asked.items() if value != usual[name]}


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {json.dumps(value)}" for name, value in settings.items())
