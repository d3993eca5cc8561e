"""What can be said of a model and its answers: with the model for all, or with a question for that one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ggufbench.chat.errors import ChatModelError
from ggufbench.chat.sampling import Sampling
from ggufbench.values import complaint

# llama.cpp keeps these in 32 bits, and would take a larger number for a small one.
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


class ModelOptions(BaseModel):
    """How a model is loaded and how it answers: the same in a config and in `ChatLlamaCpp`."""

    n_ctx: Positive = 4096
    """Tokens of prompt and answer together."""
    n_gpu_layers: int = Field(default=-1, ge=-1, lt=2**31)
    """Layers on the GPU: -1 for all of them, 0 for the processor alone."""
    n_batch: Positive = 512
    """Tokens of a prompt that are evaluated at once."""
    n_threads: Positive | None = None
    """For prompts and answers; None: one for each physical core."""
    use_mlock: bool = False
    """Keep the weights in memory, never swapped out."""
    use_mmap: bool = True
    """Map the file instead of reading it."""
    flash_attn: bool | Literal["auto"] = "auto"
    type_k: KvType = "f16"
    type_v: KvType = "f16"
    temperature: Temperature = 0.8
    """0 takes the likeliest token each time."""
    top_p: Share = 0.95
    top_k: Count = 40
    """The likeliest tokens that are considered; 0 considers all."""
    min_p: Share = 0.05
    repeat_penalty: Penalty = 1.0
    max_tokens: Positive | None = None
    """Of an answer; None: until the model ends it, or the context is full."""
    stop: list[Stop] | None = None
    """Texts that end an answer, and are left out of it."""
    seed: Seed | None = None
    """The same answers each time; None: others each time."""
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
    tools: list[dict[str, Any]] = Field(default_factory=list)
    """As OpenAI's interface has them."""
    tool_choice: str | None = None
    """None, `auto`, `any`, `none`, or the name of a tool."""
    strict: bool | None = None
    """False: a forced call of a tool may have any arguments."""
    response_format: dict[str, Any] | None = None
    """`{"type": "json_object"}`, or `{"type": "json_schema", "schema": {...}}`."""

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.min_p, self.repeat_penalty, self.seed)


def options(defaults: Mapping[str, Any], asked: Mapping[str, Any]) -> Options:
    """The model's options with those of one question. Raises ChatModelError for what is unknown or wrong."""
    try:
        return Options(**{**defaults, **asked})
    except ValidationError as error:
        raise refusal(error, Options) from None


def refusal(error: ValidationError, kind: type[BaseModel]) -> ChatModelError:
    """The error that says which option cannot be used, and why."""
    said = complaint(error, kind)
    return ChatModelError(said if said.endswith("?") else f"{said}.")
