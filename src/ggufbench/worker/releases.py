"""Differences between releases of llama-cpp-python: other names for a setting, and missing features.

A ctypes structure accepts an attribute of any name: a setting written to a field that a release does not have
would be accepted and not applied. So each name is looked up first, translated if the release expresses it in
another way, and refused otherwise.
"""

from __future__ import annotations

import ctypes
from typing import Any

from .channel import ProviderError
from .compatibility import sequence_slots
from .job import Setting

_LOAD_MODES = {"auto": -1, "none": 0, "mmap": 1, "mlock": 2, "mmap+mlock": 3, "dio": 4}
_LOAD_FLAGS = {
    "none": {"use_mmap": False, "use_mlock": False},
    "mmap": {"use_mmap": True, "use_mlock": False},
    "mlock": {"use_mmap": False, "use_mlock": True},
    "mmap+mlock": {"use_mmap": True, "use_mlock": True},
    "dio": {"use_direct_io": True, "use_mmap": False, "use_mlock": False},
}
"""The fields of releases before `load_mode` (such as 0.3.20); with `auto` they keep their own default."""

_SPLIT_MODES = {"none": 0, "layer": 1, "row": 2}
_FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}
_KV_TYPES = {
    "f32": 0,
    "f16": 1,
    "bf16": 30,
    "q8_0": 8,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "iq4_nl": 20,
}

_NEEDED = (
    "llama_get_memory",
    "llama_init_from_model",
    "llama_memory_clear",
    "llama_memory_seq_pos_max",
    "llama_model_get_vocab",
    "llama_model_load_from_file",
    "llama_supports_rpc",
)
"""Functions that releases of several years ago lack without an equivalent."""


def refuse_too_old(api: Any, release: str) -> None:
    """Raise ProviderError if this release lacks a required function."""
    missing = next((name for name in _NEEDED if not hasattr(api, name)), None)
    if missing is not None:
        raise ProviderError(
            f"llama-cpp-python {release} has no {missing}, which ggufbench needs; install a newer release"
        )


class _Fields:
    """A structure of parameters whose existing fields alone can be set."""

    def __init__(self, params: Any, release: str) -> None:
        self._params, self._release = params, release
        self._known = {name for name, *_ in params._fields_}

    def has(self, name: str) -> bool:
        """True if this release's structure has that field."""
        return name in self._known

    def set(self, asked: str, **values: Any) -> None:
        """Set the fields for a setting. Raises ProviderError if one of them does not exist."""
        missing = next((name for name in values if name not in self._known), None)
        if missing is not None:
            raise self.refusal(asked, f"it has no {missing}")
        for name, value in values.items():
            setattr(self._params, name, value)

    def refusal(self, asked: str, why: str) -> ProviderError:
        """The error for a setting that this release does not support."""
        return ProviderError(
            f"llama-cpp-python {self._release} does not support {asked}: {why}; change it or upgrade"
        )


def model_params(api: Any, setting: Setting, devices: Any, release: str) -> Any:
    """The parameters for loading a model on these devices, a list from `native.device_list`.

    Raises ProviderError for values that this release does not support.
    """
    params = api.llama_model_default_params()
    fields, on_cpu = _Fields(params, release), setting.device == "cpu"
    fields.set(f'device = "{setting.device}"', devices=ctypes.cast(devices, ctypes.c_void_p))
    # With n_gpu_layers = 0 alone, large batches still use the GPU; only a model without devices avoids that.
    fields.set("n_gpu_layers", n_gpu_layers=0 if on_cpu else setting.n_gpu_layers)
    fields.set("split_mode", split_mode=_SPLIT_MODES["none" if on_cpu else setting.split_mode])
    fields.set("main_gpu", main_gpu=-1 if on_cpu else setting.main_gpu)
    _set_load_mode(fields, setting.load_mode)
    if fields.has("use_extra_bufts") or not setting.repack:
        fields.set(f"repack = {str(setting.repack).lower()}", use_extra_bufts=setting.repack)
    return params


def context_params(api: Any, setting: Setting, release: str) -> Any:
    """The parameters of a context. Raises ProviderError for values that this release does not support."""
    params = api.llama_context_default_params()
    fields = _Fields(params, release)
    for name in ("n_ctx", "n_batch", "n_ubatch", "n_threads", "n_threads_batch", "offload_kqv"):
        fields.set(name, **{name: getattr(setting, name)})
    for name in ("type_k", "type_v"):
        fields.set(name, **{name: _KV_TYPES[getattr(setting, name)]})
    _set_flash_attn(fields, setting.flash_attn)
    if fields.has("swa_full"):  # older releases always have the full-size cache
        # A full-size cache for sliding-window layers only serves prefix reuse, which no workload here does.
        fields.set("swa_full", swa_full=False)
    return params


def encoder_context_params(api: Any, setting: Setting, sequences: int, release: str) -> Any:
    """The parameters of a context that returns vectors, with the file's own pooling.

    One KV cache for all sequences, as in llama.cpp's own example: any sequence may have the whole context.
    """
    params = context_params(api, setting, release)
    fields = _Fields(params, release)
    fields.set("sequences", n_seq_max=sequence_slots(sequences, setting.n_ubatch))
    fields.set("an encoder", embeddings=True)
    if fields.has("kv_unified"):  # older releases have no other cache
        fields.set("an encoder", kv_unified=True)
    return params


def expect_one_output(params: Any) -> None:
    """Set a context's parameters for batches of which only the last token has logits.

    Without this llama.cpp reserves n_ubatch x vocabulary x 4 bytes, on a GPU for nothing. Releases without
    the field always reserve them.
    """
    if any(name == "n_outputs_max" for name, *_ in params._fields_):
        params.n_outputs_max = 1


def vocabulary_params(api: Any, release: str) -> Any:
    """The parameters for loading only the tokenizer of a file."""
    params = api.llama_model_default_params()
    _Fields(params, release).set("vocab_only", vocab_only=True)
    return params


def _set_load_mode(fields: _Fields, mode: str) -> None:
    asked = f'load_mode = "{mode}"'
    if fields.has("load_mode"):
        fields.set(asked, load_mode=_LOAD_MODES[mode])
    elif mode != "auto":
        off = {"use_direct_io": False} if fields.has("use_direct_io") else {}
        fields.set(asked, **{**off, **_LOAD_FLAGS[mode]})


def _set_flash_attn(fields: _Fields, wanted: str) -> None:
    asked = f'flash_attn = "{wanted}"'
    if fields.has("flash_attn_type"):
        fields.set(asked, flash_attn_type=_FLASH_ATTN[wanted])
    elif wanted == "auto":
        raise fields.refusal(asked, 'it has only "on" and "off"')
    else:
        fields.set(asked, flash_attn=wanted == "on")
