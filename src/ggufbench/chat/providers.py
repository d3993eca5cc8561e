"""Create the LangChain chat model that a config describes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ggufbench.chat.config import AUTO, LlamaCppModelConfig, TransformersModelConfig
from ggufbench.paths import expanded

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


def get_chat_model(config: LlamaCppModelConfig | TransformersModelConfig) -> BaseChatModel:
    """Load the model that the config names; this takes as long as reading the file.

    Raises GgufNotFoundError or CheckpointNotFoundError if `model_path = "auto"` finds nothing, ImportError
    if a library is missing, and the chat model's own ValueError if it cannot load the file.
    """
    if isinstance(config, LlamaCppModelConfig):
        return _llamacpp(config)
    if isinstance(config, TransformersModelConfig):
        return _transformers(config)
    raise TypeError(
        f"{type(config).__name__} is not a config; pass a LlamaCppModelConfig or TransformersModelConfig"
    )


def gguf_path(config: LlamaCppModelConfig) -> Path:
    """The file that the config names. Raises GgufNotFoundError."""
    if config.model_path != AUTO:
        return expanded(config.model_path)
    from ggufbench.chat.cache import locate_gguf

    return locate_gguf(config.model, quantization=config.quantization)


def _llamacpp(config: LlamaCppModelConfig) -> BaseChatModel:
    _require(config.provider, {"llama_cpp": "llamacpp", "langchain_core": "langchain"})
    from ggufbench.chat.model import ChatLlamaCpp

    return ChatLlamaCpp(model_path=str(gguf_path(config)), **config.options())


def _transformers(config: TransformersModelConfig) -> BaseChatModel:
    _require(
        config.provider,
        {"torch": "transformers", "transformers": "transformers", "langchain_core": "langchain"},
    )
    from ggufbench.chat.transformers_model import ChatTransformers, checkpoint_folder

    options = config.model_dump(exclude={"provider", "model", "model_path"})
    return ChatTransformers(folder=str(checkpoint_folder(config)), **options)


def _require(provider: str, modules: dict[str, str]) -> None:
    """Raise ImportError for missing modules; `modules` maps each module to the extra that installs it."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        extras = ",".join(dict.fromkeys(modules.values()))
        raise ImportError(
            f"the provider {provider} needs {' and '.join(missing)}; "
            f'install with pip install "ggufbench[{extras}]"'
        )
