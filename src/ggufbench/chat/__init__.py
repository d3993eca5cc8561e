"""Chat models for applications, run by llama.cpp: a config, GGUFs by name, a LangChain chat model.

Importing this package imports none of the libraries behind it; each name imports what it needs on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ggufbench.chat.cache import (
        CachedModel,
        GgufNotFoundError,
        find_gguf_in_cache,
        get_gguf_models_from_cache,
        rows,
    )
    from ggufbench.chat.config import LlamaCppModelConfig, ModelConfigError, Provider, TransformersModelConfig
    from ggufbench.chat.measurements import Measured
    from ggufbench.chat.providers import get_chat_model

_MODULES = {
    "CachedModel": "cache",
    "GgufNotFoundError": "cache",
    "LlamaCppModelConfig": "config",
    "Measured": "measurements",
    "ModelConfigError": "config",
    "Provider": "config",
    "TransformersModelConfig": "config",
    "find_gguf_in_cache": "cache",
    "get_chat_model": "providers",
    "get_gguf_models_from_cache": "cache",
    "rows": "cache",
}

__all__ = [
    "CachedModel",
    "GgufNotFoundError",
    "LlamaCppModelConfig",
    "Measured",
    "ModelConfigError",
    "Provider",
    "TransformersModelConfig",
    "find_gguf_in_cache",
    "get_chat_model",
    "get_gguf_models_from_cache",
    "rows",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
