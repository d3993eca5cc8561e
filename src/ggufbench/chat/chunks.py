"""LangChain objects for the parts of an answer.

A chunk of plain text is created for each token. The constructors of its classes validate their arguments,
which takes longer than all other work on a token. A string needs no validation, so the attributes of a valid
chunk are copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGenerationChunk
from pydantic import BaseModel

from ggufbench.chat.call_formats import Call
from ggufbench.chat.engine import AnswerUsage
from ggufbench.chat.reasoning import Reasoning

_Model = TypeVar("_Model", bound=BaseModel)

REASONING = "reasoning_content"
"""Key of the reasoning in `additional_kwargs` of a message."""

_put = object.__setattr__
_MESSAGE = AIMessageChunk(content="")
_CHUNK = ChatGenerationChunk(message=_MESSAGE)


def text_chunk(text: str) -> ChatGenerationChunk:
    """A chunk of text, equal to one made by the constructors."""
    message = _copy(_MESSAGE, {"content"}, {})
    attributes = message.__dict__
    # Every chunk has separate lists, because its receiver may change them.
    attributes["content"] = text
    attributes["additional_kwargs"] = {}
    attributes["response_metadata"] = {}
    attributes["tool_calls"] = []
    attributes["invalid_tool_calls"] = []
    attributes["tool_call_chunks"] = []
    chunk = _copy(_CHUNK, {"message", "text"}, None)
    attributes = chunk.__dict__
    attributes["message"] = message
    attributes["text"] = text
    return chunk


def call_chunk(call: Call, index: int) -> ChatGenerationChunk:
    """A chunk with one complete call; `index` is its position among the calls of the answer."""
    message = AIMessageChunk(content="", tool_call_chunks=[call.chunk(index)])
    return ChatGenerationChunk(message=message)


def reasoning_chunk(text: str) -> ChatGenerationChunk:
    """A chunk of reasoning, under the name that other chat models of LangChain use."""
    return ChatGenerationChunk(message=AIMessageChunk(content="", additional_kwargs={REASONING: text}))


def last_chunk(metadata: dict[str, Any], tally: AnswerUsage) -> ChatGenerationChunk:
    """The final chunk of a stream: finish reason and token usage."""
    message = AIMessageChunk(
        content="", response_metadata=metadata, usage_metadata=usage(tally), chunk_position="last"
    )
    return ChatGenerationChunk(message=message)


def whole_message(
    parts: Sequence[str | Reasoning | Call], metadata: dict[str, Any], tally: AnswerUsage
) -> AIMessage:
    """The answer as one message."""
    calls = [part for part in parts if isinstance(part, Call)]
    reasoning = "".join(part.text for part in parts if isinstance(part, Reasoning))
    valid = [(call, call.valid()) for call in calls]
    return AIMessage(
        content="".join(part for part in parts if isinstance(part, str)),
        additional_kwargs={REASONING: reasoning} if reasoning else {},
        tool_calls=[found for _, found in valid if found is not None],
        invalid_tool_calls=[call.invalid() for call, found in valid if found is None],
        response_metadata=metadata,
        usage_metadata=usage(tally),
    )


def usage(tally: AnswerUsage) -> UsageMetadata:
    """Token counts of the prompt and of the answer."""
    return UsageMetadata(
        input_tokens=tally.prompt,
        output_tokens=tally.answered,
        total_tokens=tally.prompt + tally.answered,
        input_token_details=InputTokenDetails(cache_read=tally.reused),
    )


def _copy(model: _Model, fields: set[str], extra: dict[str, Any] | None) -> _Model:
    made = object.__new__(model.__class__)
    _put(made, "__dict__", model.__dict__.copy())
    _put(made, "__pydantic_fields_set__", fields)
    _put(made, "__pydantic_extra__", extra)
    _put(made, "__pydantic_private__", None)
    return made
