"""Options of a model and its answers; those of an answer can be set for the model or per question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ggufbench.chat.errors import ChatModelError
from ggufbench.chat.sampling import Sampling
from ggufbench.values import complaint

# llama.cpp keeps these in 32 bits; a larger number would wrap around to a small one.
Positive = Annotated[int, Field(gt=0, lt=2**31)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Share = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[float, Field(ge=0, le=100)]
Penalty = Annotated[float, Field(gt=0, le=100)]
Seed = Annotated[int, Field(ge=0, lt=2**32 - 1)]
Stop = Annotated[str, Field(min_length=1)]

KvType = Literal["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl"]
PLAIN_KV_TYPES = ("f32", "f16", "bf16")
"""A V cache of any other type needs flash attention."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class ModelOptions(BaseModel):
    """Loading and answer options, shared by the config and `ChatLlamaCpp`."""

    n_ctx: Positive = 4096
    """Context size: tokens of prompt and answer together."""
    n_gpu_layers: int = Field(default=-1, ge=-1, lt=2**31)
    """Layers on the GPU: -1 for all, 0 for CPU only."""
    n_batch: Positive = 512
    """Prompt tokens evaluated at once."""
    n_threads: Positive | None = None
    """Threads for prompts and answers; None: one per physical core."""
    use_mlock: bool = False
    """Lock the weights in memory, so that they are never swapped out."""
    use_mmap: bool = True
    """Map the file instead of reading it."""
    flash_attn: bool | Literal["auto"] = "auto"
    type_k: KvType = "f16"
    type_v: KvType = "f16"
    temperature: Temperature = 0.8
    """0 always takes the most likely token."""
    top_p: Share = 0.95
    top_k: Count = 40
    """Number of most likely tokens considered; 0 considers all."""
    min_p: Share = 0.05
    repeat_penalty: Penalty = 1.0
    max_tokens: Positive | None = None
    """Limit of an answer; None: until the model ends it or the context is full."""
    stop: Annotated[list[Stop] | None, BeforeValidator(_as_list)] = None
    """Texts that end an answer and are removed from it; one string is one text."""
    seed: Seed | None = None
    """Seed for reproducible answers; None: a random seed each time."""
    chat_template: str | None = Field(default=None, min_length=1)
    """A Jinja template instead of the file's own."""


class Options(BaseModel):
    """The options of one answer; the names are those of `ChatLlamaCpp`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    temperature: Temperature
    top_p: Share
    top_k: Count
    min_p: Share
    repeat_penalty: Penalty
    max_tokens: Positive | None
    seed: Seed | None
    ignore_end: bool = False
    """Never end an answer before the limit, unless it must have a form."""
    tools: list[dict[str, Any]] = Field(default_factory=list)
    """Tools in OpenAI's format."""
    tool_choice: str | None = None
    """None, `auto`, `any`, `none`, or the name of a tool."""
    strict: bool | None = None
    """False: a forced tool call may have any arguments."""
    response_format: dict[str, Any] | None = None
    """`{"type": "json_object"}`, or `{"type": "json_schema", "schema": {...}}`."""

    @property
    def sampling(self) -> Sampling:
        """The sampling parameters."""
        return Sampling(
            self.temperature,
            self.top_k,
            self.top_p,
            self.min_p,
            self.repeat_penalty,
            self.seed,
            self.ignore_end,
        )


def options(defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> Options:
    """The model's options, overridden by those of one question. Raises ChatModelError for invalid ones."""
    try:
        return Options(**{**defaults, **overrides})
    except ValidationError as error:
        raise refusal(error, Options) from None


def refusal(error: ValidationError, kind: type[BaseModel]) -> ChatModelError:
    """The error that names the invalid option and the reason."""
    message = complaint(error, kind)
    return ChatModelError(message if message.endswith("?") else f"{message}.")
