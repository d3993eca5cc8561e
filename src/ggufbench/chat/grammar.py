"""Grammars that restrict an answer to JSON of a schema, or to a tool call."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from ggufbench.chat.errors import ChatModelError
from ggufbench.chat.schemas import check_grammar
from ggufbench.text import printable

Schema = Mapping[str, Any]
_BODY = "tool-call-in-tags"
"""Name of a rule; properties of a schema never have this name."""
_DEFINITIONS = ("$defs", "definitions")
_NAMED = frozenset({"properties"})
_LISTED = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SINGLE = frozenset({"items", "additionalProperties"})
_MEANINGS = _NAMED | _LISTED | _SINGLE | {"type", "$ref", "const", "enum", "pattern"}
_ANYTHING = [{"type": kind} for kind in ("object", "array", "string", "number", "boolean", "null")]


def json_grammar(schema: Schema) -> str:
    """Grammar for JSON of this schema. Raises ChatModelError if llama.cpp cannot make one."""
    check_grammar(schema)
    definitions: dict[str, Any] = {}
    try:
        fit = _hoisted(schema, "", definitions)
    except (AttributeError, TypeError, RecursionError):
        raise _malformed(schema) from None
    return _rules(json.dumps({**fit, "$defs": definitions}))


def call_grammar(tools: Sequence[Schema], *, tagged: bool, strict: bool) -> str:
    """Grammar for a call of one of the tools, in `<tool_call>` tags or bare.

    With `strict` the arguments follow the tool's schema, otherwise they may be any JSON object. Raises
    ChatModelError like `json_grammar`.
    """
    definitions: dict[str, Any] = {}
    calls = []
    for number, tool in enumerate(tools):
        try:
            calls.append(_call_schema(f"t{number}-", tool, definitions, strict))
        except (AttributeError, TypeError, RecursionError):
            raise _malformed(tool) from None
    either = {"anyOf": calls} if len(calls) > 1 else calls[0]
    rules = _rules(json.dumps({**either, "$defs": definitions}))
    if not tagged:
        return rules
    rules = re.sub(r"^root ::=", f"{_BODY} ::=", rules, flags=re.MULTILINE)
    return f'root ::= "<tool_call>\\n" {_BODY} "\\n</tool_call>"\n{rules}'


def _malformed(schema: Any) -> ChatModelError:
    return ChatModelError(
        f"No grammar can be made for the schema {printable(repr(schema), 80)}: it is not a JSON schema; "
        "check the types of its values."
    )


def _call_schema(prefix: str, tool: Schema, definitions: dict[str, Any], strict: bool) -> dict[str, Any]:
    function = tool["function"]
    arguments: dict[str, Any] = {"type": "object"}
    if strict:
        arguments = function.get("parameters") or {"type": "object", "properties": {}}
        check_grammar(arguments)
        arguments = _hoisted(arguments, prefix, definitions)
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": arguments},
        "required": ["name", "arguments"],
    }


def _hoisted(schema: Schema, prefix: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema without its definitions, which move to `definitions` under names valid for rules."""
    for key in _DEFINITIONS:
        for name, part in schema.get(key, {}).items():
            definitions[_rule_name(prefix, name)] = _fit(part, prefix)
    fit: dict[str, Any] = _fit({k: v for k, v in schema.items() if k not in _DEFINITIONS}, prefix)
    # The converter ignores everything next to a `$ref`, including the definitions.
    return {"anyOf": [fit]} if "$ref" in fit else fit


def _fit(schema: Any, prefix: str) -> Any:
    """The schema adapted to the binding's converter, with references to the hoisted definitions."""
    if not isinstance(schema, dict):
        return schema
    kinds = schema.get("type")
    fit = dict(schema)
    if isinstance(kinds, list):  # the converter would drop everything but the types
        if not {"enum", "const"}.intersection(schema):
            return {"anyOf": [_fit({**schema, "type": kind}, prefix) for kind in kinds]}
        del fit["type"]
    for key in _NAMED.intersection(schema):
        fit[key] = {name: _fit(part, prefix) for name, part in schema[key].items()}
    for key in _LISTED.intersection(schema):
        fit[key] = [_fit(part, prefix) for part in schema[key]]
    for key in _SINGLE.intersection(schema):
        fit[key] = _fit(schema[key], prefix)
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith(tuple(f"#/{key}/" for key in _DEFINITIONS)):
        fit["$ref"] = f"#/$defs/{_rule_name(prefix, reference.rpartition('/')[2])}"
    # The converter rejects a schema without constraints.
    return fit if _MEANINGS.intersection(schema) else {**fit, "anyOf": _ANYTHING}


def _rule_name(prefix: str, name: str) -> str:
    return prefix + re.sub("[^a-zA-Z0-9]+", "-", name)


@lru_cache(maxsize=64)
def _rules(schema: str) -> str:
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        rules: str = json_schema_to_gbnf(schema)
    except Exception as error:  # an AssertionError, KeyError or RecursionError, depending on the schema
        reason = printable(str(error) or type(error).__name__, 120)
        raise ChatModelError(
            f"No grammar can be made for the schema {printable(schema, 80)}: {reason}; use a simpler schema."
        ) from None
    # The binding's rule allows control characters in strings; JSON does not.
    return rules.replace('char ::= [^"\\\\] |', 'char ::= [^"\\\\\\x00-\\x1F\\x7F] |')
