"""Limits of JSON schemas: without them one schema could take all memory and time of an application."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ggufbench.chat.errors import ChatModelError
from ggufbench.text import printable

MOST_DEPTH = 64
"""Levels of a schema: Python's recursion limit of 1000, over about ten calls for each level."""
_MOST_PARTS = 10_000
_MOST_REPEATED = 500
"""Repetitions in a grammar: measured with llama.cpp, 500 take 0.1 s and 2000 are refused as too deep."""
_MOST_CHOICES = 1000
"""Values of an enum: measured, each takes 1 ms for a vocabulary of 49,000 tokens."""
_MOST_PROPERTIES = 300
"""Properties of an object: the converter's work grows with the cube of their number."""

_COUNTS = ("minItems", "maxItems", "minLength", "maxLength")
_CHOICES = ("type", "enum", "anyOf", "oneOf", "allOf")
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
_INNER = ("items", "prefixItems", "additionalProperties", "anyOf", "oneOf", "allOf", "not")
_SCHEMA, _NAMES, _DATA = "schema", "names", "data"
_QUANTIFIER = re.compile(r"\{(\d*),?(\d*)\}")
_REPEATED_NOTHING = re.compile(r"(?:[?*|]|\{0?,\d*\})\)+[*+{]")
"""A repeated group that may be empty: llama.cpp tries every way to divide the text among the repetitions."""


def check_depth(schema: Any) -> None:
    """Raise ChatModelError for a schema that is nested too deep, has too many parts, or is not JSON."""
    for _ in _parts(schema):
        pass


def check_grammar(schema: Any) -> None:
    """Raise ChatModelError for a schema whose grammar would be too large."""
    for part, role in _parts(schema):
        if role == _SCHEMA:
            _check_part(part)


def _check_part(part: Mapping[str, Any]) -> None:
    for key in _COUNTS:
        _check(key, part.get(key, 0), 0, _MOST_REPEATED)
    for key in _CHOICES:
        if isinstance(choices := part.get(key), list):
            _check(f"the number of values of {key}", len(choices), 1, _MOST_CHOICES)
    if isinstance(properties := part.get("properties"), Mapping):
        _check("the number of properties", len(properties), 0, _MOST_PROPERTIES)
    if isinstance(pattern := part.get("pattern"), str):
        _check_pattern(pattern)


def _check(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, int) and least <= value <= most:
        return
    raise ChatModelError(
        f"No grammar can be made for the schema: {name} is {printable(_shown(value), 40)}, and {least} to "
        f"{most} are supported; change it, or remove it from the schema."
    )


def _shown(value: Any) -> str:
    return (
        f"a number of {value.bit_length()} bits" if isinstance(value, int) and value >= 2**64 else repr(value)
    )


def _check_pattern(pattern: str) -> None:
    for found in _QUANTIFIER.finditer(pattern):
        for number in filter(None, found.groups()):
            _check("a repetition of pattern", int(number) if len(number) < 20 else 2**64, 0, _MOST_REPEATED)
    if _REPEATED_NOTHING.search(pattern):
        raise ChatModelError(
            f"No grammar can be made for the pattern {printable(pattern, 80)}: it repeats a group that may "
            "be empty; make the group match at least one character."
        )


def _parts(schema: Any) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Every mapping in a schema with its role; raises ChatModelError beyond the limits."""
    waiting, seen = [(schema, _SCHEMA, 0)], 0
    while waiting:
        part, role, depth = waiting.pop()
        seen += 1
        if depth > MOST_DEPTH or seen > _MOST_PARTS:
            what = f"nested deeper than {MOST_DEPTH} levels" if depth > MOST_DEPTH else "too large"
            raise ChatModelError(f"The schema is {what} ({_MOST_PARTS} parts at most); use a simpler one.")
        if isinstance(part, Mapping):
            yield part, role
            waiting.extend((inner, _role(role, key), depth + 1) for key, inner in part.items())
        elif isinstance(part, list | tuple):
            waiting.extend((inner, role, depth + 1) for inner in part)
        elif not isinstance(part, str | int | float | None):
            raise ChatModelError(
                f"The schema has the value {printable(repr(part), 60)}, which JSON cannot hold; use text."
            )


def _role(role: str, key: str) -> str:
    """The role of the value of a key: a schema, a table of schemas by name, or data such as a default."""
    if role == _SCHEMA:
        return _NAMES if key in _NAMED else _SCHEMA if key in _INNER else _DATA
    return _SCHEMA if role == _NAMES else _DATA
