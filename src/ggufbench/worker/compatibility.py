"""Settings and workloads that each provider supports, and the error messages for all others."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from .job import (
    DEFAULT_UBATCH,
    ENCODER,
    ENCODER_DECODER,
    ENGINE,
    LANGCHAIN,
    LAYERS,
    SCORER,
    SHIPPED,
    TRANSFORMERS,
    Setting,
    Workload,
)

_CHAT_TAKES = ("device", "n_ctx", "n_gpu_layers", "n_batch", "n_threads", "load_mode", "rpc_servers",
               "chat_template_kwargs")  # fmt: skip
_LAYER_TAKES = (*_CHAT_TAKES, "flash_attn")
_TRANSFORMERS_TAKES = ("device", "n_threads", "weights", "dtype", "chat_template_kwargs")
MOST_SEQUENCES = 256
"""Maximum of `n_seq_max` (LLAMA_MAX_SEQ in llama.cpp)."""
_DTYPES = ("float32", "bfloat16")


def provider_problem(provider: str, setting: Any, workload: Any) -> str | None:
    """Why a provider cannot be measured with this setting and workload, in one sentence; None if it can.

    Both may be the tables of a scenario, which have the same names. A value that a provider does not receive,
    and that differs from its default, would be accepted and not applied.
    """
    if provider == TRANSFORMERS:
        return _foreign_key(provider, setting, workload) or _transformers_problem(setting)
    if setting.device == "mps":
        return 'device = "mps" is PyTorch\'s name, for provider = "transformers"; write "metal"'
    if foreign := _foreign_key(provider, setting, workload):
        return foreign
    if provider in (ENCODER, ENCODER_DECODER):
        return _encoder_problem(provider, setting, workload)
    return None if provider in (ENGINE, SCORER) else _chat_problem(provider, setting, workload)


def _foreign_key(provider: str, setting: Any, workload: Any) -> str | None:
    """Name a value that only another provider takes."""
    if setting.chat_template_kwargs and provider in SHIPPED and provider != LANGCHAIN:
        return f'provider {provider} ignores chat_template_kwargs; leave it out, or write "{LANGCHAIN}"'
    if workload.sequences > 1 and provider != ENCODER:
        return f'sequences = {workload.sequences} is for provider = "{ENCODER}" alone; leave it out'
    if provider != TRANSFORMERS and (setting.weights != "gguf" or setting.dtype):
        return 'weights and dtype are for provider = "transformers" alone; leave them out'
    return None


def sequence_slots(sequences: int, n_ubatch: int) -> int:
    """The least `n_seq_max` for these sequences: a divisor of `n_ubatch`.

    With another one llama.cpp aborts while it reserves the graph of a model with mean pooling.
    """
    return next((slots for slots in range(sequences, n_ubatch) if n_ubatch % slots == 0), n_ubatch)


def _encoder_problem(provider: str, setting: Any, workload: Any) -> str | None:
    if workload.depth:
        return f"provider {provider} cannot be given depth = {workload.depth}; leave it out"
    if provider == ENCODER and workload.generated_tokens not in (0, Workload().generated_tokens):
        return f"provider {provider} generates nothing; leave out generated_tokens"
    tokens = workload.sequences * workload.prompt_tokens
    for name in ("n_ubatch", "n_ctx"):
        if getattr(setting, name) < tokens:
            return (
                f"{name} = {getattr(setting, name)} is too small: an encoder reads all of its "
                f"{workload.sequences} x {workload.prompt_tokens} tokens at once; raise it to {tokens}"
            )
    if sequence_slots(workload.sequences, setting.n_ubatch) > MOST_SEQUENCES:
        return (
            f"n_ubatch = {setting.n_ubatch} has no divisor from {workload.sequences} to {MOST_SEQUENCES}, "
            "which llama.cpp needs for the sequences; write a multiple of sequences"
        )
    return None


def _chat_problem(provider: str, setting: Any, workload: Any) -> str | None:
    refused = _unusual(setting, _LAYER_TAKES if provider in LAYERS else _CHAT_TAKES)
    if setting.load_mode == "dio":
        refused["load_mode"] = "dio"
    if workload.depth:
        refused["depth"] = workload.depth
    if refused and provider in LAYERS:
        return f"provider {provider} cannot be given {_listed(refused)}; leave it out"
    if refused:
        remedy = "leave it out and set it in the callable"
        return f"a provider of your own cannot be given {_listed(refused)}; {remedy}"
    needed = workload.prompt_tokens + workload.generated_tokens
    if needed > setting.n_ctx:
        return f"n_ctx = {setting.n_ctx} is too small for a question and answer of {needed} tokens; raise it"
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
    """Values that the provider does not take and that differ from its fixed ones."""
    usual = {field.name: field.default for field in fields(Setting) if field.name not in taken}
    usual["n_ubatch"] = min(DEFAULT_UBATCH, setting.n_batch)
    asked = {name: getattr(setting, name) for name in usual}
    if asked["n_threads_batch"] in (None, setting.n_threads):
        del asked["n_threads_batch"]
    return {name: value for name, value in asked.items() if value != usual[name]}


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {json.dumps(value)}" for name, value in settings.items())
