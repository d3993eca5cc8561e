"""The request from the harness to a worker: a setting, a workload and the file, with concrete values only.

The harness uses the same classes and stores them unchanged in the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

ENGINE = "engine"
"""The provider that uses llama.cpp's C interface."""

ENCODER = "encoder"
"""The engine for models that compute one vector or score for each sequence."""

ENCODER_DECODER = "encoder-decoder"
"""The engine for models that encode a text once and then generate another one."""

SCORER = "scorer"
"""The engine for the distributions of the next token, which are compared and not timed."""

DIRECT = (ENGINE, ENCODER, ENCODER_DECODER, SCORER)
"""Providers over llama.cpp's C interface alone."""

TRANSFORMERS = "transformers"
"""The provider that is the baseline for llama.cpp."""

LLAMACPP = "llamacpp"
"""The provider that uses llama-cpp-python's `Llama.create_chat_completion`, streaming."""

LANGCHAIN = "langchain"
"""The provider that uses this package's own chat model for LangChain."""

LANGCHAIN_COMMUNITY = "langchain-community"
"""The provider that uses the chat model of the package with that name."""

LAYERS = (LLAMACPP, LANGCHAIN, LANGCHAIN_COMMUNITY)
"""Providers that answer questions through the layers that applications use, all of them over llama.cpp."""

SHIPPED = (*DIRECT, TRANSFORMERS, *LAYERS)
"""Providers that ship with ggufbench. Any other name is a `package.module:callable`."""

RATES = {ENCODER: ("encode",), ENCODER_DECODER: ("encode", "decode"), SCORER: ()}
"""Rates that these providers measure; all others measure `prompt` and `decode`."""

DEFAULT_UBATCH = 512

DEVICE_PREFIXES = {
    "metal": ("MTL", "Metal"), "cuda": ("CUDA",), "rocm": ("ROCm",), "vulkan": ("Vulkan",),
    "sycl": ("SYCL",), "opencl": ("GPUOpenCL",), "rpc": ("RPC",), "mps": ("mps",),
}  # fmt: skip
"""Prefixes of ggml's device names, for each device of a setting other than `cpu`."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Load settings of a model. Names as in llama.cpp; nothing is left to a silent choice of a library."""

    device: str
    """`cpu`, or the backend whose devices may be used: `metal`, `cuda`, `rocm`, `vulkan`, `sycl`, `opencl`,
    `rpc`; PyTorch's `mps`.
    """
    n_ctx: int = 4096
    n_gpu_layers: int = -1
    """Layers on the device; -1 means all of them. Not used on `cpu`, where every layer stays on the
    processor.
    """
    n_batch: int = 512
    n_ubatch: int = DEFAULT_UBATCH
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
    """`gguf`, or `safetensors` for the GGUF's original checkpoint; only `transformers` reads that."""
    dtype: str = ""
    """`float32` or `bfloat16`, in which `transformers` computes; empty for all other providers."""
    chat_template_kwargs: str = ""
    """Variables of the chat template, as JSON; empty for none. Only chat models get them."""


def without_integrated(types: Mapping[T, str]) -> list[T]:
    """The devices of one backend that llama.cpp would use: no integrated GPU (`igpu`) beside another GPU.

    With both, layers would follow the free memory, most of which the integrated one shares with the system.
    """
    mixed = "gpu" in types.values()
    return [device for device, kind in types.items() if not (mixed and kind == "igpu")]


@dataclass(frozen=True, slots=True)
class Workload:
    """The work for the loaded model."""

    prompt_tokens: int = 512
    """Length of the prompt; for `encoder` of each sequence."""
    generated_tokens: int = 128
    """0 for `encoder`, which generates nothing."""
    depth: int = 0
    """Tokens already in the context before each timed part."""
    repetitions: int = 3
    """Timed samples of each kind in one launch."""
    sequences: int = 1
    """Batch size: sequences that `encoder` encodes at once."""


@dataclass(frozen=True, slots=True)
class Job:
    """One launch."""

    provider: str
    model_path: str
    """The file, or the folder of the original checkpoint for `weights = "safetensors"`."""
    setting: Setting
    workload: Workload
    seed: int = 1
    load_only: bool = False
    """End after the first token: only the load is measured."""
