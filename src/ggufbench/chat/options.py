"""What can be said about an answer: with the model for all of them, or with one question for that one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ggufbench.chat.errors import ChatModelError, shown
from ggufbench.chat.sampling import Sampling

# llama.cpp keeps these in 32 bits, and would take a larger number for a small one.
Positive = Annotated[int, Field(gt=0, lt=2**31)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Share = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[float, Field(ge=0, le=100)]
Penalty = Annotated[float, Field(gt=0, le=100)]
Seed = Annotated[int, Field(ge=0, lt=2**32 - 1)]
Stop = Annotated[str, Field(min_length=1)]


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
        raise ChatModelError(sentence(error, Options)) from None


def sentence(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first complaint in words; an unknown name goes first: it is often why another is missing."""
    complaints = error.errors(include_url=False)
    first = next((found for found in complaints if found["type"] == "extra_forbidden"), complaints[0])
    name = shown(".".join(map(str, first["loc"])) or kind.__name__, 80)
    if first["type"] == "extra_forbidden":
        return f"{name} is no option; known are {', '.join(kind.model_fields)}."
    if first["type"] == "missing":
        return f"{name} is missing; add it."
    reason = first["msg"][:1].lower() + first["msg"][1:]
    return f"{name} = {shown(repr(first['input']), 80)} is not usable: {reason}."
