"""The forms in which models write tool calls, and the calls parsed from them.

A model may write anything: no text raises here, and no text becomes a call without a name.
"""

# ruff: noqa: RUF001 (the marks of DeepSeek have a wide bar)
from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from langchain_core.messages import InvalidToolCall, ToolCall
from langchain_core.messages.tool import ToolCallChunk, invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.utils.json import parse_partial_json

Tools = Mapping[str, Mapping[str, Any]]
"""The JSON schema of the arguments of each tool, by the tool's name."""

_MOST_PYTHON = 10_000
"""Characters that are parsed as Python: a call is short, and the parser's work grows with the text."""
_MOST_DEPTH = 8
"""References and alternatives that are followed to the type of an argument."""
_REFUSED = (ValueError, TypeError, SyntaxError, RecursionError, MemoryError)
"""Errors of the parsers of JSON and Python for text that is neither."""
_INCOMPLETE = "its JSON is not complete"

CALL_MARKS = (
    "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<|tool_call_begin|>",
    "<|tool_call_end|>", "<|tool_call_argument_begin|>", "[ARGS]", "[CALL_ID]", "<escape>", '<|"|>',
)  # fmt: skip
"""Markers inside a block of calls."""

_NAME_IN_JSON = re.compile(r'"(?:name|tool_name)"\s*:\s*"([^"\\]{1,256})"')
_ONE_CALL = re.compile(r"<｜tool▁call▁begin｜>|<\|tool_call_begin\|>|\[TOOL_CALLS\]|(?<![\w.])call:")
_NAME_BEFORE_JSON = re.compile(
    r"\s*(?:function<｜tool▁sep｜>)?(?:functions\.)?([\w.-]{1,256})(?::\d{1,9})?"
    r"(?:<｜tool▁sep｜>|<\|tool_call_argument_begin\|>|\[CALL_ID\][\w-]{0,99}|\[ARGS\]|```(?:json)?|\s)*(?=\{)"
)
_BARE_KEY = re.compile(r"([{,]\s*)([A-Za-z_]\w{0,255})\s*:")
_TAGGED_NAME = re.compile(r'<(?:function=|invoke name=)"?([^<>"\s]{1,256})"?>')
_TAGGED_ARGUMENT = re.compile(r'<parameter(?:=| name=)"?([^<>"\s]{1,256})"?[^<>]{0,99}>')
_PYTHON_NAME = re.compile(r"\s*\[?\s*([A-Za-z_][\w.]{0,255})\(")
_WORDS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call, as the model wrote it."""

    id: str
    name: str
    arguments: str
    """JSON of an object; the raw text if `error` is set."""
    error: str | None = None

    def valid(self) -> ToolCall | None:
        """The call for LangChain; None if it is invalid."""
        if self.error is not None:
            return None
        return tool_call(name=self.name, args=json.loads(self.arguments, strict=False), id=self.id)

    def invalid(self) -> InvalidToolCall:
        """The entry for LangChain's list of invalid calls."""
        return invalid_tool_call(name=self.name, args=self.arguments, id=self.id, error=self.error)

    def chunk(self, index: int) -> ToolCallChunk:
        """The chunk for a stream; `index` is its position among the calls."""
        return tool_call_chunk(name=self.name, args=self.arguments, id=self.id, index=index)


def read_calls(text: str, tools: Tools) -> list[Call]:
    """The calls in a text that a model marked as calls; empty if it does not name a tool."""
    forms: tuple[Callable[[str, Tools], list[Call]], ...] = (
        _json_calls, _tagged_calls, _calls_with_argument_tags, _named_json_calls, _python_calls,
    )  # fmt: skip
    return next((calls for form in forms if (calls := form(text, tools))), [])


def bare_calls(text: str, tools: Tools) -> list[Call]:
    """The calls in a text that consists only of calls without a marker.

    Empty for anything else, such as JSON that does not name one of these tools.
    """
    values, rest = _json_values(text)
    calls = [_call(value) for value in values] if values and not rest else _python_calls(text, tools)
    named = [call for call in calls if call is not None and call.name in tools]
    return named if len(named) == len(calls) else []


def named_call(name: str, arguments: str) -> Call:
    """A call whose arguments are this JSON."""
    try:
        value = json.loads(arguments, strict=False)
    except _REFUSED:
        return _broken(name, arguments, _INCOMPLETE)
    return _made(name, value)


def _json_values(text: str) -> tuple[list[Any], str]:
    """The JSON values at the beginning, the members of lists one by one, and the text after them."""
    decoder = json.JSONDecoder(strict=False)
    values: list[Any] = []
    rest = text.strip()
    while rest[:1] in ("{", "["):
        try:
            value, end = decoder.raw_decode(rest)
        except _REFUSED:
            break
        values.extend(value if isinstance(value, list) else [value])
        rest = rest[end:].lstrip(" \t\r\n;,")
    return values, rest


def _json_calls(text: str, _tools: Tools) -> list[Call]:
    values, rest = _json_values(text)
    calls = [call for call in map(_call, values) if call is not None]
    name = _NAME_IN_JSON.search(rest) if rest[:1] in ("{", "[") else None
    return [*calls, _broken(name[1], rest, _INCOMPLETE)] if name else calls


def _call(value: Any) -> Call | None:
    """The call that an object describes; None if it does not name a tool."""
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("function"), dict):  # OpenAI's format
        value = value["function"]
    name = value.get("name", value.get("tool_name"))
    if not isinstance(name, str) or not name:
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    return named_call(name, arguments) if isinstance(arguments, str) else _made(name, arguments)


def _tagged_calls(text: str, tools: Tools) -> list[Call]:
    """Calls as `<function=name><parameter=key>value</parameter></function>`, or with JSON in `<function>`."""
    return [_tagged_call(name, part, tools.get(name, {})) for name, part in _after_each(_TAGGED_NAME, text)]


def _after_each(pattern: re.Pattern[str], text: str) -> list[tuple[str, str]]:
    """The group of each match, and the text between it and the next match."""
    _, *parts = pattern.split(text)
    return list(zip(parts[::2], parts[1::2], strict=True))


def _tagged_call(name: str, text: str, schema: Mapping[str, Any]) -> Call:
    body, *closed = re.split("</(?:function|invoke)>", text, maxsplit=1)
    if body.lstrip()[:1] == "{":
        return named_call(name, body.strip())
    arguments: dict[str, Any] = {}
    finished = bool(closed)
    for key, part in _after_each(_TAGGED_ARGUMENT, body):
        value, close, _ = part.partition("</parameter>")
        finished = bool(closed or close)
        arguments[key] = _typed(_without_line_ends(value), key, schema)
    return _made(name, arguments) if finished else _broken(name, text, "it is not complete")


def _without_line_ends(text: str) -> str:
    return text.removeprefix("\n").removesuffix("\n")


def _calls_with_argument_tags(text: str, tools: Tools) -> list[Call]:
    """A call as `name<arg_key>key</arg_key><arg_value>value</arg_value>`, or as the name of a tool."""
    first, *pairs = text.split("<arg_key>")
    name = first.strip()
    if not re.fullmatch(r"[\w.:/-]{1,256}", name) or not (pairs or name in tools):
        return []
    arguments = {}
    for pair in pairs:
        key, _, rest = pair.partition("</arg_key>")
        value, closed, _ = rest.partition("<arg_value>")[2].partition("</arg_value>")
        if not closed:
            return [_broken(name, text, "it is not complete")]
        arguments[key.strip()] = _typed(_without_line_ends(value), key.strip(), tools.get(name, {}))
    return [_made(name, arguments)]


def _named_json_calls(text: str, _tools: Tools) -> list[Call]:
    """Calls as a name before JSON, with the separators of several models between them."""
    return [call for part in _ONE_CALL.split(text) if (call := _named_json_call(part)) is not None]


def _named_json_call(text: str) -> Call | None:
    found = _NAME_BEFORE_JSON.match(text)
    if found is None:
        return None
    body = text[found.end() :]
    for quote in ("<escape>", '<|"|>'):  # strings between these, and keys without quotes
        if quote in body:
            parts = body.split(quote)
            quoted = [json.dumps(part, ensure_ascii=False) for part in parts[1::2]]
            plain = [_BARE_KEY.sub(r'\1"\2":', part) for part in parts[::2]]
            body = "".join(part for pair in zip(plain, [*quoted, ""], strict=False) for part in pair)
    try:
        value, _ = json.JSONDecoder(strict=False).raw_decode(body)
    except _REFUSED:
        return _broken(found[1], text[found.end() :], _INCOMPLETE)
    return _made(found[1], value)


def _python_calls(text: str, tools: Tools) -> list[Call]:
    """Calls as `name(key=value)`: one, one on each line, or in a list, with or without `print`."""
    found = _PYTHON_NAME.match(text)
    if found is None or len(text) > _MOST_PYTHON:
        return []
    try:
        nodes = [node for statement in ast.parse(text.strip()).body for node in _expressions(statement)]
    except _REFUSED:
        return [_broken(found[1], text, "it is not complete")] if found[1] in tools else []
    calls = [_python_call(node, tools) for node in nodes]
    made = [call for call in calls if call is not None]
    return made if len(made) == len(calls) else []


def _expressions(statement: ast.stmt) -> Iterator[ast.expr]:
    value = statement.value if isinstance(statement, ast.Expr) else ast.Constant(None)
    for node in value.elts if isinstance(value, ast.List) else [value]:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield from node.args
        else:
            yield node


def _python_call(node: ast.expr, tools: Tools) -> Call | None:
    if not isinstance(node, ast.Call):
        return None
    name, text = ast.unparse(node.func), ast.unparse(node)
    if not re.fullmatch(r"[\w.]{1,256}", name):
        return None
    name = name if name in tools else name.removesuffix(".call")
    keys = list(tools.get(name, {}).get("properties", {}))
    if len(node.args) > len(keys):
        return _broken(name, text, "its arguments have no names")
    named = [*zip(keys, node.args, strict=False), *((one.arg or "", one.value) for one in node.keywords)]
    try:
        return _made(name, {key: _literal(value) for key, value in named})
    except _REFUSED:
        return _broken(name, text, "its arguments are not values")


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    return ast.literal_eval(node)


def _typed(text: str, key: str, schema: Mapping[str, Any]) -> Any:
    """The value of an argument that was written without quotes, with a type that its schema allows."""
    properties = schema.get("properties")
    part = properties.get(key) if isinstance(properties, Mapping) else None
    kinds = set(_kinds(part, schema, _MOST_DEPTH))
    if kinds == {"string"}:
        return text
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text.strip()[:_MOST_PYTHON] if parse is ast.literal_eval else text)
        except _REFUSED:
            continue
        if "integer" in kinds and isinstance(value, float) and value.is_integer():
            value = int(value)
        kind = _kind(value)
        if kind and (not kinds or kind in kinds or (kind == "integer" and "number" in kinds)):
            return text if kind == "string" and kinds else value
    return text


def _kind(value: Any) -> str | None:
    """The JSON type of a value; None if JSON has none."""
    types = (
        (bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"),
        (list, "array"), (dict, "object"), (type(None), "null"),
    )  # fmt: skip
    return next((name for kind, name in types if isinstance(value, kind)), None)


def _kinds(part: Any, schema: Mapping[str, Any], depth: int) -> Iterator[str]:
    """The JSON types that a part of a schema names; none if it allows every type."""
    if not isinstance(part, Mapping) or depth == 0:
        return
    named = part.get("type")
    yield from [named] if isinstance(named, str) else named if isinstance(named, list) else ()
    values = part.get("enum", [part["const"]] if "const" in part else [])
    if named is None and isinstance(values, list):
        yield from filter(None, map(_kind, values))
    for key in ("anyOf", "oneOf", "allOf"):
        for other in part.get(key) or ():
            yield from _kinds(other, schema, depth - 1)
    place, _, name = str(part.get("$ref", "")).removeprefix("#/").partition("/")
    if name and isinstance(schema.get(place), Mapping):
        yield from _kinds(schema[place].get(name), schema, depth - 1)


def _made(name: str, arguments: Any) -> Call:
    try:
        written = _clean(json.dumps(arguments, ensure_ascii=False))
    except _REFUSED:
        return _broken(name, str(type(arguments)), "its arguments are not JSON")
    if not isinstance(arguments, dict):
        return _broken(name, written, "its arguments are not an object")
    return Call(_new_id(), _clean(name), written)


def _broken(name: str, raw: str, error: str) -> Call:
    """A call that LangChain treats as invalid too, although it repairs unfinished JSON of joined chunks."""
    raw = _clean(raw.strip())
    try:
        repaired = isinstance(parse_partial_json(raw), dict)
    except _REFUSED:
        repaired = False
    written = json.dumps(raw, ensure_ascii=False) if repaired or not raw else raw
    return Call(_new_id(), _clean(name), written, error)


def _clean(text: str) -> str:
    """The text without halves of characters, which JSON can name and no message can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _new_id() -> str:
    return f"call_{uuid4().hex[:24]}"
