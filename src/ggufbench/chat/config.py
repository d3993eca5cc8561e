"""What an application says about a chat model: which one, by which library, and with which settings."""

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
    """A config is not usable; the message is one sentence that names the key, the value and the remedy."""


class _Config(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=()
    )

    if not TYPE_CHECKING:  # type checkers shall see the fields

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise ModelConfigError(_sentence(type(self), error)) from None


class _Gguf(_Config):
    """Which file."""

    provider: Annotated[Literal["llamacpp", Provider.LLAMACPP], AfterValidator(Provider)] = Provider.LLAMACPP
    model: Annotated[str, Field(min_length=1)]
    """`owner/name` of a repository in the Hugging Face cache; with a `model_path`, any name for that file."""
    model_path: _Path = AUTO
    """A GGUF file, of a split model the first part; `auto`: the file that `find_gguf_in_cache` finds."""
    quantization: Annotated[str, Field(min_length=1)] | None = None
    """Which one `auto` shall find, such as `Q4_K_M`; None: the one that it prefers."""


class LlamaCppModelConfig(ModelOptions, _Gguf):
    """A model that llama.cpp runs. Every field is applied; names and units are those of `ChatLlamaCpp`.

    Raises ModelConfigError; inside another pydantic model a ValidationError with the same sentence.
    """

    verbose: bool = False
    """Let llama.cpp write its log to stderr."""

    @model_validator(mode="after")
    def _consistent(self) -> LlamaCppModelConfig:
        _check_name(self)
        if self.model_path != AUTO and self.quantization is not None:
            raise ValueError('quantization is for model_path = "auto"; leave it out, the file has its own')
        if self.type_v not in PLAIN_KV_TYPES and self.flash_attn is False:
            raise ValueError(f'type_v = "{self.type_v}" needs flash attention; set flash_attn = "auto"')
        return self

    def options(self) -> dict[str, Any]:
        """Everything but the file, as the arguments of `ChatLlamaCpp`."""
        return self.model_dump(exclude={"provider", "model", "model_path", "quantization"})


class TransformersModelConfig(_Config):
    """A model that transformers runs, from safetensors that lie on this machine; nothing is downloaded.

    On macOS the first one warns that llama.cpp is recommended. Raises as LlamaCppModelConfig.
    """

    provider: Annotated[Literal["transformers", Provider.TRANSFORMERS], AfterValidator(Provider)] = (
        Provider.TRANSFORMERS
    )
    model: Annotated[str, Field(min_length=1)]
    """`owner/name` of a repository in the Hugging Face cache; with a `model_path`, any name for it."""
    model_path: _Path = AUTO
    """A folder that holds config.json, safetensors and a tokenizer; `auto`: the newest one in the cache."""
    device: Literal["auto", "cpu", "mps", "cuda"] = "auto"
    """`auto`: cuda or mps where PyTorch has them."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto`: that of the files."""
    temperature: Temperature = 0.8
    """0 takes the likeliest token each time."""
    max_tokens: Positive | None = None
    """Of an answer; None: until the model ends it, or the context is full."""

    @model_validator(mode="after")
    def _consistent(self) -> TransformersModelConfig:
        _check_name(self)
        return self

    def model_post_init(self, _context: Any, /) -> None:
        """Say once in a process what is recommended on macOS."""
        if sys.platform == "darwin":
            _warn_once()


def _check_name(config: LlamaCppModelConfig | TransformersModelConfig) -> None:
    """Raise ValueError where `auto` has nothing to look for."""
    if config.model_path == AUTO and not is_repository_name(config.model):
        shown = printable(config.model)
        raise ValueError(
            f'model = {shown!r} is no owner/name, which model_path = "auto" needs; give one of both'
        )


@cache
def _warn_once() -> None:
    """Once in a process; the filters of the module warnings may show the same text for each caller."""
    # A FutureWarning: a DeprecationWarning would be shown to nobody who only uses the application.
    warnings.warn(
        "On macOS transformers is deprecated and llama.cpp is recommended: take "
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
    # It explains all the others.
    usual = kind.model_fields["provider"].default
    shown = printable(repr(other["input"]))
    return f"provider = {shown} is not that of {kind.__name__}; write {usual}, or take the other config"
