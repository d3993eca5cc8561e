"""Structured output: parsers and response formats for `ChatLlamaCpp.with_structured_output`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from operator import itemgetter
from typing import Any, Literal, get_args

from langchain_core.messages import AIMessage
from langchain_core.output_parsers import (
    BaseOutputParser,
    JsonOutputKeyToolsParser,
    JsonOutputParser,
    PydanticOutputParser,
    PydanticToolsParser,
)
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass

from ggufbench.chat.errors import ChatModelError
from ggufbench.chat.tools import as_tool
from ggufbench.text import count, printable

Method = Literal["json_schema", "function_calling", "json_mode"]
Schema = dict[str, Any] | type


def check_method(method: str, schema: Schema | None) -> None:
    """Raise ChatModelError if the method is unknown, or needs a schema that is missing."""
    if method not in get_args(Method):
        known = ", ".join(get_args(Method))
        raise ChatModelError(f"method = {printable(repr(method), 80)} is unknown; known methods: {known}.")
    if schema is None and method != "json_mode":
        raise ChatModelError(f'method = "{method}" needs a schema; pass one, or use method = "json_mode".')


def traced(schema: Schema | None, method: Method) -> dict[str, Any]:
    """The requested form, for callbacks."""
    return {"kwargs": {"method": method}, "schema": schema}


def response_format(schema: Schema | None, method: Method, strict: bool | None) -> dict[str, Any]:
    """The `response_format` option. A schema that is not enforced is still described to the model."""
    if schema is None or method == "json_mode":
        return {"type": "json_object"}
    # llama.cpp accepts a schema without a title; LangChain does not, because it needs a tool name.
    unnamed = isinstance(schema, dict) and not {"title", "name", "function"}.intersection(schema)
    made = schema if unnamed else convert_to_json_schema(schema)
    return {"type": "json_schema", "schema": made, "strict": strict is not False}


def tool_name(schema: Schema) -> str:
    """Tool name of a schema."""
    name: str = as_tool(schema)["function"]["name"]
    return name


def parser(schema: Schema | None, method: Method) -> BaseOutputParser[Any]:
    """The parser that turns an answer into an object."""
    kind: Any = schema if isinstance(schema, type) and is_basemodel_subclass(schema) else None
    if method != "function_calling":
        return JsonOutputParser() if kind is None else PydanticOutputParser(pydantic_object=kind)
    if kind is None:
        return JsonOutputKeyToolsParser(key_name=tool_name(schema or {}), first_tool_only=True)
    return PydanticToolsParser(tools=[kind], first_tool_only=True)


def complete() -> Runnable[AIMessage, AIMessage]:
    """A step that passes an answer on, and raises ChatModelError if it was cut off."""
    return RunnableGenerator(_complete, _acomplete)


def _complete(parts: Iterator[AIMessage]) -> Iterator[AIMessage]:
    answer: AIMessage | None = None
    for part in parts:
        yield part
        answer = _joined(answer, part)
    _check_complete(answer)


async def _acomplete(parts: AsyncIterator[AIMessage]) -> AsyncIterator[AIMessage]:
    answer: AIMessage | None = None
    async for part in parts:
        yield part
        answer = _joined(answer, part)
    _check_complete(answer)


def _joined(answer: AIMessage | None, part: AIMessage) -> AIMessage:
    return part if answer is None else answer + part  # type: ignore[return-value]


def _check_complete(answer: AIMessage | None) -> None:
    """Raise ChatModelError if the limit ended the answer before its JSON or its tool call was complete."""
    if answer is None or answer.response_metadata.get("finish_reason") != "length":
        return
    if answer.tool_calls and not answer.invalid_tool_calls:
        return
    try:
        json.loads(answer.text, strict=False)
    except ValueError:
        tokens = answer.usage_metadata["output_tokens"] if answer.usage_metadata else 0
        raise ChatModelError(
            f"The answer was cut off after {count(tokens, 'token')}, before its JSON was complete; raise "
            "max_tokens, or load the model with a larger n_ctx."
        ) from None


def with_raw(model: Runnable[Any, Any], parse: Runnable[Any, Any]) -> Runnable[Any, dict[str, Any]]:
    """The raw message with the parsed object, or with the parsing error."""
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parse, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")
