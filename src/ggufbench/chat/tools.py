"""Tools: their description for the model, and the tool calls parsed from its answer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from langchain_core.messages import InvalidToolCall, ToolCall
from langchain_core.messages.tool import ToolCallChunk, invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.json import parse_partial_json

from ggufbench.chat.errors import ChatModelError
from ggufbench.chat.text_reader import unfinished
from ggufbench.text import printable

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call, as the model wrote it."""

    id: str
    name: str | None
    arguments: str
    """JSON of an object; the raw text if `error` is set."""
    error: str | None = None

    def valid(self) -> ToolCall | None:
        """The call for LangChain; None if it is invalid."""
        if self.error is not None or self.name is None:
            return None
        return tool_call(name=self.name, args=json.loads(self.arguments, strict=False), id=self.id)

    def invalid(self) -> InvalidToolCall:
        """The entry for LangChain's list of invalid calls."""
        return invalid_tool_call(name=self.name, args=self.arguments, id=self.id, error=self.error)

    def chunk(self, index: int) -> ToolCallChunk:
        """The chunk for a stream; `index` is its position among the calls."""
        return tool_call_chunk(name=self.name, args=self.arguments, id=self.id, index=index)


def describe(tools: Sequence[Mapping[str, Any]]) -> str:
    """The instruction that describes the tools to a model whose template does not support them."""
    listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    form = '{"name": "the tool\'s name", "arguments": {"an argument": "its value"}}'
    return (
        f"You can call these tools; each line describes one, with a JSON schema of its arguments:\n{listed}\n"
        f"To call one, answer with nothing but this:\n{_OPEN}\n{form}\n{_CLOSE}\n"
        "Its result comes back in <tool_response> tags. Answer in words where no tool is needed."
    )


def as_tool(tool: Any) -> dict[str, Any]:
    """A function, class or schema in OpenAI's tool format. Raises ChatModelError for anything else."""
    try:
        return convert_to_openai_tool(tool)
    except (ValueError, TypeError, AttributeError) as error:
        first = printable(str(error).strip().partition("\n")[0] or type(error).__name__, 120)
        raise ChatModelError(
            f"{printable(repr(tool), 80)} is not a tool: {first}; pass a function with a docstring, a "
            "pydantic class, or a JSON schema with a title."
        ) from None


class ToolReader:
    """Splits an answer into text and calls, and yields each part as soon as its kind is certain."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)
        self._held = ""
        self._in_call = False
        self._began = False
        """True once text was yielded: JSON that follows is text."""

    def feed(self, text: str) -> Iterator[str | Call]:
        """Yield the parts that are certain after this text."""
        looked = max(0, len(self._held) - len(_CLOSE))
        self._held += text
        while True:
            if self._in_call:
                end = self._held.find(_CLOSE, looked)
                if end < 0:
                    return
                body, self._held = self._held[:end], self._held[end + len(_CLOSE) :]
                self._in_call = False
                yield read_call(body)
            else:
                if not self._began and self._held.lstrip()[:1] in ("{", "["):
                    return
                start = self._held.find(_OPEN, looked)
                if start < 0:
                    yield from self._emit(self._certain())
                    return
                before, self._held = self._held[:start], self._held[start + len(_OPEN) :]
                self._in_call = True
                yield from self._emit(before.rstrip())
            looked = 0

    def end(self) -> Iterator[str | Call]:
        """Yield the parts held back, after the last text."""
        held, self._held = self._held, ""
        if self._in_call:
            yield read_call(held)
            return
        calls = [] if self._began else bare_calls(held, self._names)
        yield from calls
        if not calls and held.strip():
            yield held

    def _emit(self, text: str) -> Iterator[str]:
        if text:
            self._began = True
            yield text

    def _certain(self) -> str:
        """Take the held text, except an unfinished tag and the space before it, which a call would drop."""
        ready = self._held[: len(self._held) - unfinished(self._held, _OPEN)].rstrip()
        self._held = self._held[len(ready) :]
        return ready


def read_call(body: str) -> Call:
    """Parse the call between the tags."""
    try:
        value = json.loads(body, strict=False)
    except ValueError:
        return _broken(None, body.strip(), "it is not JSON")
    return _call(value, body.strip())


def bare_calls(text: str, names: frozenset[str]) -> list[Call]:
    """The calls in a text that consists only of JSON: one after the other, or in a list.

    Empty for anything else, such as JSON that does not name one of these tools.
    """
    decoder = json.JSONDecoder(strict=False)
    values: list[Any] = []
    rest = text.strip()
    while rest:
        try:
            value, end = decoder.raw_decode(rest)
        except ValueError:
            return []
        values.extend(value if isinstance(value, list) else [value])
        rest = rest[end:].lstrip(" \t\r\n;,")
    calls = [_call(value, json.dumps(value, ensure_ascii=False)) for value in values]
    return calls if all(call.name in names for call in calls) else []


def _call(value: Any, raw: str) -> Call:
    if not isinstance(value, dict):
        return _broken(None, raw, "it is not an object")
    function = value.get("function")
    if isinstance(function, dict):  # OpenAI's format
        value = function
    name = value.get("name")
    if not isinstance(name, str) or not name:
        return _broken(None, raw, "it does not name a tool")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):  # JSON in JSON
        try:
            arguments = json.loads(arguments, strict=False)
        except ValueError:
            return _broken(name, arguments, "its arguments are not JSON")
    if not isinstance(arguments, dict):
        return _broken(name, json.dumps(arguments, ensure_ascii=False), "its arguments are not an object")
    return Call(_new_id(), name, json.dumps(arguments, ensure_ascii=False))


def _broken(name: str | None, raw: str, error: str) -> Call:
    """A call that LangChain treats as invalid too, although it repairs unfinished JSON of joined chunks."""
    try:
        repaired = isinstance(parse_partial_json(raw), dict)
    except ValueError:
        repaired = False
    written = json.dumps(raw, ensure_ascii=False) if repaired or not raw else raw
    return Call(_new_id(), name, written, error)


def _new_id() -> str:
    return f"call_{uuid4().hex[:24]}"
