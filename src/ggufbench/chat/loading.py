"""Load a model from a path and settings, or fail with one sentence that gives the reason."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ggufbench.chat.engine import ChatEngine
from ggufbench.chat.errors import ChatModelError
from ggufbench.chat.native import has_gpu, library, loading, log
from ggufbench.chat.options import PLAIN_KV_TYPES, KvType
from ggufbench.discovery.classify import RefusedError
from ggufbench.discovery.facts import Provenance, describe
from ggufbench.discovery.header import HeaderError, read_header
from ggufbench.discovery.model import KIND_NAMES, Model
from ggufbench.discovery.shards import gather
from ggufbench.discovery.tables import type_id
from ggufbench.machine.facts import available_memory_bytes, resolve_threads
from ggufbench.text import mebibytes, printable

_UBATCH = 512
_NO_DEVICE = -1
_NO_DEVICES = (ctypes.c_void_p * 1)(None)
"""An empty null-terminated list, as llama.cpp expects it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings for loading a model."""

    n_ctx: int
    n_gpu_layers: int
    n_batch: int
    n_threads: int | None
    use_mlock: bool
    use_mmap: bool
    flash_attn: bool | Literal["auto"]
    type_k: KvType
    type_v: KvType
    verbose: bool


def load(path: Path, settings: Settings) -> ChatEngine:
    """Load the model. Raises ChatModelError if it is not a chat model or does not fit into memory."""
    api = library()
    if settings.type_v not in PLAIN_KV_TYPES and settings.flash_attn is False:
        raise ChatModelError(f'type_v = "{settings.type_v}" needs flash attention; set flash_attn = "auto".')
    described = _described(path)
    settings = replace(settings, n_ctx=described.bounded_context(settings.n_ctx))
    kv_bytes = _kv_bytes(described, settings)
    _refuse_beyond_memory(api, path, settings, kv_bytes)
    with loading:
        log().listen(verbose=settings.verbose)
        model = api.llama_model_load_from_file(str(path).encode(), _model_params(api, settings))
        if not model:
            raise ChatModelError(
                f"llama.cpp cannot load {printable(str(path))}{log().why()}; use another file, or a newer "
                "llama-cpp-python."
            )
        context = api.llama_init_from_model(model, _context_params(api, settings))
        if not context:
            why = log().why()
            api.llama_model_free(model)
            raise ChatModelError(
                f"llama.cpp cannot create a context with n_ctx = {settings.n_ctx} for "
                f"{printable(path.name)}, whose KV cache takes {mebibytes(kv_bytes)}{why}; load it with a "
                "smaller n_ctx."
            )
    return ChatEngine(api, path, model, context, described.learned_positions)


def _model_params(api: Any, settings: Settings) -> Any:
    params = api.llama_model_default_params()
    params.n_gpu_layers = settings.n_gpu_layers
    # Flags: MMAP is 1, MLOCK is 2.
    params.load_mode = 2 * settings.use_mlock + settings.use_mmap
    if settings.n_gpu_layers == 0:
        # Without this a GPU still computes the large matrix products and needs memory for them. The empty
        # list also keeps CUDA from creating an unused context, half a gigabyte on the GPU.
        params.devices = ctypes.cast(_NO_DEVICES, ctypes.c_void_p)
        params.split_mode, params.main_gpu = api.LLAMA_SPLIT_MODE_NONE, _NO_DEVICE
    return params


def _context_params(api: Any, settings: Settings) -> Any:
    params = api.llama_context_default_params()
    params.n_ctx = settings.n_ctx
    params.n_batch = min(settings.n_batch, settings.n_ctx)
    params.n_ubatch = min(_UBATCH, params.n_batch)
    # The same number for prompts: threads beyond the physical cores only wait for each other.
    params.n_threads = params.n_threads_batch = resolve_threads(settings.n_threads or "physical")
    params.flash_attn_type = -1 if settings.flash_attn == "auto" else int(settings.flash_attn)
    params.type_k, params.type_v = type_id(settings.type_k), type_id(settings.type_v)
    # As the benchmark's engine does: layers with a sliding window keep only the window, and each batch needs
    # the logits of one token, for which llama.cpp otherwise reserves n_ubatch x vocabulary x 4 bytes.
    params.swa_full, params.n_outputs_max = False, 1
    return params


def _described(path: Path) -> Model:
    """The facts of the file's header. Raises ChatModelError if it is not a chat model."""
    name = printable(str(path))
    if not path.exists():
        raise ChatModelError(f"{name} does not exist; `ggufbench models` lists the available models.")
    if path.is_dir():
        raise ChatModelError(f"{name} is a folder; name the GGUF file in it.")
    try:
        model = describe(gather(path, read_header(path)), Provenance("", path.stem, "path", None))
    except (RefusedError, HeaderError) as error:
        raise ChatModelError(
            f"{name} cannot be used: {printable(str(error))}; `ggufbench models` lists the usable models."
        ) from None
    if model.kind != "generator":
        raise ChatModelError(
            f"{name} cannot be used: {KIND_NAMES[model.kind]} does not chat; `ggufbench run` measures it."
        )
    return model


def _kv_bytes(model: Model, settings: Settings) -> int:
    n_batch = min(settings.n_batch, settings.n_ctx)
    return model.cache_bytes(settings.n_ctx, min(_UBATCH, n_batch), settings.type_k, settings.type_v)


def _refuse_beyond_memory(api: Any, path: Path, settings: Settings, kv_bytes: int) -> None:
    """Refuse early: Linux overcommits memory and kills the process when llama.cpp writes to it."""
    free = available_memory_bytes()
    if kv_bytes > free and (settings.n_gpu_layers == 0 or not has_gpu(api)):
        raise ChatModelError(
            f"n_ctx = {settings.n_ctx} needs {mebibytes(kv_bytes)} for the KV cache of "
            f"{printable(path.name)}, but only {mebibytes(free)} are free; load it with a smaller n_ctx."
        )
