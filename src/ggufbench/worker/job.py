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
"""The provider that is what llama.cpp is compared with. Any other is a `package.module:callable` of the user's."""

DEVICE_PREFIXES = {"metal": ("MTL", "Metal"), "cuda": ("CUDA",), "vulkan": ("Vulkan",), "rpc": ("RPC",)}
"""How ggml's device names begin, for each device that a setting can ask for beside `cpu`."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a model is loaded. Names as in llama.cpp; nothing here is left for a library to choose silently."""

    device: str
    """`cpu`, or the backend whose devices may be used: `metal`, `cuda`, `vulkan`, `rpc`; `mps` is PyTorch's Metal."""
    n_ctx: int = 4096
    n_gpu_layers: int = -1
    """Layers on the device; -1 is all of them. Not used on `cpu`, where no layer leaves the processor."""
    n_batch: int = 512
    n_ubatch: int = 512
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


def chat_problem(setting: Any, workload: Any) -> str | None:
    """Why a callable of the user's cannot be measured like this, in one sentence; None where it can.

    Both may be what a scenario's tables say, whose names are the same. What a callable is not given and does
    not have as it is by default would be accepted and not applied.
    """
    batch_threads = (None, setting.n_threads)
    usual = {field.name: field.default for field in fields(Setting) if field.name not in _CHAT_TAKES}
    usual["n_ubatch"] = min(usual["n_ubatch"], setting.n_batch)
    asked = {name: getattr(setting, name) for name in usual}
    if asked["n_threads_batch"] in batch_threads:
        del asked["n_threads_batch"]
    refused = {name: value for name, value in asked.items() if value != usual[name]}
    if setting.load_mode == "dio":
        refused["load_mode"] = "dio"
    if workload.depth:
        refused["depth"] = workload.depth
    if refused:
        listed = ", ".join(f"{name} = {json.dumps(value)}" for name, value in refused.items())
        return f"a provider of your own cannot be given {listed}; leave it out, and set it in the callable"
    needed = workload.prompt_tokens + workload.generated_tokens
    if needed > setting.n_ctx:
        return f"n_ctx = {setting.n_ctx} has no room for question and answer of {needed} tokens; raise it"
    return None
