"""Answers as objects: what `ChatLlamaCpp.with_structured_output` puts behind the model."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, Literal, get_args

from langchain_core.output_parsers import (
    BaseOutputParser,
    JsonOutputKeyToolsParser,
    JsonOutputParser,
    PydanticOutputParser,
    PydanticToolsParser,
)
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass

from ggufbench.chat.errors import ChatModelError
from ggufbench.chat.tools import as_tool
from ggufbench.text import printable

Method = Literal["json_schema", "function_calling", "json_mode"]
Schema = dict[str, Any] | type


def check_method(method: str, schema: Schema | None) -> None:
    """Raise ChatModelError where there is no such way, or it needs a schema."""
    if method not in get_args(Method):
        known = ", ".join(get_args(Method))
        raise ChatModelError(f"method = {printable(repr(method), 80)} is not usable; known are {known}.")
    if schema is None and method != "json_mode":
        raise ChatModelError(f'method = "{method}" needs a schema; give one, or take method = "json_mode".')


def traced(schema: Schema | None, method: Method) -> dict[str, Any]:
    """What callbacks are told of the form that was asked for."""
    return {"kwargs": {"method": method}, "schema": schema}


def response_format(schema: Schema | None, method: Method, strict: bool | None) -> dict[str, Any]:
    """What the answer shall be. A schema that is not enforced is told all the same."""
    if schema is None or method == "json_mode":
        return {"type": "json_object"}
    # A schema without a title is one for llama.cpp, if not for LangChain, which wants a name for a tool.
    unnamed = isinstance(schema, dict) and not {"title", "name", "function"}.intersection(schema)
    made = schema if unnamed else convert_to_json_schema(schema)
    return {"type": "json_schema", "schema": made, "strict": strict is not False}


def tool_name(schema: Schema) -> str:
    """The name under which a schema is a tool."""
    name: str = as_tool(schema)["function"]["name"]
    return name


def parser(schema: Schema | None, method: Method) -> BaseOutputParser[Any]:
    """What makes the object of an answer."""
    kind: Any = schema if isinstance(schema, type) and is_basemodel_subclass(schema) else None
    if method != "function_calling":
        return JsonOutputParser() if kind is None else PydanticOutputParser(pydantic_object=kind)
    if kind is None:
        return JsonOutputKeyToolsParser(key_name=tool_name(schema or {}), first_tool_only=True)
    return PydanticToolsParser(tools=[kind], first_tool_only=True)


def with_raw(model: Runnable[Any, Any], parse: Runnable[Any, Any]) -> Runnable[Any, dict[str, Any]]:
    """The message beside the object, and the error where there is none."""
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parse, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")
