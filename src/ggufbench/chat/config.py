"""Configuration of a chat model: the model, the library that runs it, and its settings."""

from __future__ import annotations

import os
import sys
import warnings
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from ggufbench.chat.options import PLAIN_KV_TYPES, ModelOptions, Positive, Temperature
from ggufbench.discovery.hub import is_repository_name
from ggufbench.errors import GgufbenchError
from ggufbench.text import printable
from ggufbench.values import complaint

AUTO = "auto"


def _as_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


_Path = Annotated[str, BeforeValidator(_as_text), Field(min_length=1)]


class Provider(StrEnum):
    """The library that runs a model."""

    LLAMACPP = "llamacpp"
    TRANSFORMERS = "transformers"


class ModelConfigError(GgufbenchError, ValueError):
    """Invalid config. The message is one sentence that names the key, the value and the remedy."""


class _Config(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )

    if not TYPE_CHECKING:  # type checkers need to see the fields

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise ModelConfigError(_sentence(type(self), error)) from None


class _Gguf(_Config):
    """Selection of the file."""

    provider: Annotated[Literal["llamacpp", Provider.LLAMACPP], AfterValidator(Provider)] = Provider.LLAMACPP
    model: Annotated[str, Field(min_length=1)]
    """`owner/name` of a repository in the Hugging Face cache; with a `model_path`, any name for that file."""
    model_path: _Path = AUTO
    """A GGUF file, or the first part of a split model; `auto`: the file that `find_gguf_in_cache` finds."""
    quantization: Annotated[str, Field(min_length=1)] | None = None
    """Quantization that `auto` selects, such as `Q4_K_M`; None: the preferred one."""


class LlamaCppModelConfig(ModelOptions, _Gguf):
    """A model run by llama.cpp. Every field is applied; names and units are those of `ChatLlamaCpp`.

    Raises ModelConfigError, or inside another pydantic model a ValidationError with the same sentence.
    """

    verbose: bool = False
    """Let llama.cpp write its log to stderr."""

    @model_validator(mode="after")
    def _consistent(self) -> LlamaCppModelConfig:
        _check_name(self)
        if self.model_path != AUTO and self.quantization is not None:
            raise ValueError(
                'quantization is only valid with model_path = "auto"; leave it out, the file determines it'
            )
        if self.type_v not in PLAIN_KV_TYPES and self.flash_attn is False:
            raise ValueError(f'type_v = "{self.type_v}" needs flash attention; set flash_attn = "auto"')
        return self

    def options(self) -> dict[str, Any]:
        """Arguments of `ChatLlamaCpp`, except the file."""
        return self.model_dump(exclude={"provider", "model", "model_path", "quantization"})


class TransformersModelConfig(_Config):
    """A model run by transformers, from safetensors on this machine; nothing is downloaded.

    On macOS the first instance warns that llama.cpp is recommended. Raises the same errors as
    LlamaCppModelConfig.
    """

    provider: Annotated[Literal["transformers", Provider.TRANSFORMERS], AfterValidator(Provider)] = (
        Provider.TRANSFORMERS
    )
    model: Annotated[str, Field(min_length=1)]
    """`owner/name` of a repository in the Hugging Face cache; with a `model_path`, any name for it."""
    model_path: _Path = AUTO
    """A folder that holds config.json, safetensors and a tokenizer; `auto`: the newest one in the cache."""
    device: Literal["auto", "cpu", "mps", "cuda"] = "auto"
    """`auto`: cuda or mps if PyTorch supports them, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto`: the type of the files."""
    temperature: Temperature = 0.8
    """0 always takes the most likely token."""
    max_tokens: Positive | None = None
    """Limit of an answer; None: until the model ends it or the context is full."""

    @model_validator(mode="after")
    def _consistent(self) -> TransformersModelConfig:
        _check_name(self)
        return self

    def model_post_init(self, _context: Any, /) -> None:
        """Warn once per process that llama.cpp is recommended on macOS."""
        if sys.platform == "darwin":
            _warn_once()


def _check_name(config: LlamaCppModelConfig | TransformersModelConfig) -> None:
    """Raise ValueError if `auto` is used with a model that is not a repository name."""
    if config.model_path == AUTO and not is_repository_name(config.model):
        shown = printable(config.model)
        raise ValueError(
            f'model = {shown!r} is not owner/name, which model_path = "auto" requires; set one of the two'
        )


@cache
def _warn_once() -> None:
    """Warn once per process; the filters of `warnings` could repeat the text for each caller."""
    # A FutureWarning, because users of an application do not see a DeprecationWarning.
    warnings.warn(
        "On macOS transformers is deprecated and llama.cpp is recommended: use "
        'LlamaCppModelConfig(model="owner/name", model_path="auto") with a GGUF of the model, which '
        "`ggufbench pull owner/name --quant Q4_K_M` downloads",
        FutureWarning,
        stacklevel=2,
    )


def _sentence(kind: type[BaseModel], error: ValidationError) -> str:
    complaints = error.errors(include_url=False)
    other = next((found for found in complaints if found["loc"][:1] == ("provider",)), None)
    if other is None:
        return complaint(error, kind)
    # A wrong provider explains all other errors.
    usual = kind.model_fields["provider"].default
    shown = printable(repr(other["input"]))
    return f"provider = {shown} is invalid for {kind.__name__}; write {usual}, or use the other config class"
