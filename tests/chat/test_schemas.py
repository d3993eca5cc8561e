"""Schemas beyond a limit are refused at once, in one sentence; ordinary ones keep their meaning."""

import re
import time
from typing import Any

import pytest
from pydantic import BaseModel, Field

from ggufbench.chat.completion import form_of
from ggufbench.chat.errors import ChatModelError
from ggufbench.chat.grammar import call_grammar, json_grammar
from ggufbench.chat.options import Options
from ggufbench.chat.structured import response_format
from ggufbench.chat.tools import as_tool


def inside(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": schema}, "required": ["x"], "title": "X"}


def nested(levels: int, **kind: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema, **kind}
    return schema


def doubled(levels: int) -> dict[str, Any]:
    """A schema in which every part is used twice: small in memory, without end when it is written."""
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"anyOf": [schema, schema]}
    return schema


def cyclic() -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "array"}
    schema["items"] = schema
    return schema


TOO_LARGE = {
    "minItems": {"type": "array", "items": {"type": "integer"}, "minItems": 10**9},
    "maxItems": {"type": "array", "items": {"type": "integer"}, "maxItems": 10**9},
    "maxLength": {"type": "string", "maxLength": 10**9},
    "minLength": {"type": "string", "minLength": 10**400},
    "negative": {"type": "string", "minLength": -1},
    "not a number": {"type": "string", "maxLength": "10"},
    "fraction": {"type": "string", "maxLength": 1.5},
    "enum": {"enum": list(range(100_000))},
    "anyOf": {"anyOf": [{"const": number} for number in range(5000)]},
    "properties": {"type": "object", "properties": {f"p{n}": {"type": "integer"} for n in range(1000)}},
    "pattern": {"type": "string", "pattern": "^a{1000000000}$"},
    "pattern of ranges": {"type": "string", "pattern": "^(ab){2,99999999999999999999999}$"},
    "empty group": {"type": "string", "pattern": "^(a?){0,100}$"},
    "empty alternative": {"type": "string", "pattern": "^((a|b*))+$"},
    "deep": nested(500),
    "deep lists": {"enum": [eval("[" * 90 + "]" * 90)]},  # noqa: S307 (brackets alone)
    "doubled": doubled(40),
    "cyclic": cyclic(),
}
MALFORMED = {
    "properties": {"type": "object", "properties": ["a"]},
    "property": {"type": "object", "properties": {"a": 5}},
    "anyOf": {"anyOf": 5},
    "enum": {"enum": 5},
    "type": {"type": 5},
    "no types": {"type": []},
    "unknown types": {"type": ["string", "text"]},
    "reference": {"$ref": 5},
    "unknown reference": {"$ref": "#/$defs/nothing"},
    "required": {"type": "object", "properties": {"a": {"type": "string"}}, "required": 5},
    "set": {"enum": {"a"}},
    "bytes": {"const": b"a"},
}


@pytest.mark.parametrize(
    "schema",
    [*TOO_LARGE.values(), *MALFORMED.values()],
    ids=[*TOO_LARGE, *map("malformed {}".format, MALFORMED)],
)
def test_schema_that_cannot_be_enforced_is_refused_in_one_sentence(schema):
    started = time.perf_counter()
    tool = {"type": "function", "function": {"name": "f", "parameters": inside(schema)}}
    for make in (
        lambda: json_grammar(inside(schema)),
        lambda: json_grammar(schema),
        lambda: call_grammar([as_tool(tool)], tagged=True, strict=True),
    ):
        with pytest.raises(ChatModelError) as caught:
            make()
        sentence = str(caught.value)
        assert sentence.isprintable()
        assert len(sentence) < 400
        assert sentence.endswith(".")
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("name", ["deep", "deep lists", "doubled", "cyclic"])
def test_schema_that_is_only_described_is_bounded_too(name):
    schema = inside(TOO_LARGE[name])
    for make in (
        lambda: response_format(schema, "json_schema", strict=False),
        lambda: as_tool(schema),
        lambda: form_of(
            Options(
                temperature=0, top_p=1, top_k=0, min_p=0, repeat_penalty=1, max_tokens=1, seed=1,
                response_format={"type": "json_schema", "schema": schema},
            )
        ),
    ):  # fmt: skip
        with pytest.raises(ChatModelError):
            make()


def test_arguments_that_are_no_schema_are_refused():
    for parameters in ([], "text", 5):
        tool = {"type": "function", "function": {"name": "f", "parameters": parameters or [1]}}
        with pytest.raises(ChatModelError, match="are not a JSON schema"):
            as_tool(tool)


def rules(schema: dict[str, Any]) -> dict[str, str]:
    return dict(line.split(" ::= ", 1) for line in json_grammar(inside(schema)).splitlines())


def test_several_types_keep_their_constraints():
    found = rules({"type": ["string", "null"], "maxLength": 3})
    assert found["x"] == "x-0 | null"
    assert found["x-0"].count("char") == 3
    found = rules({"type": ["object", "null"], "properties": {"a": {"type": "integer"}}, "required": ["a"]})
    assert "x-0-a-kv" in found["x-0"]
    assert rules({"type": ["string", "null"], "enum": ["a", None]})["x"] == r'"\"a\"" | "null"'


def test_limits_leave_room_for_ordinary_schemas():
    class Person(BaseModel):
        name: str = Field(max_length=100)
        tags: list[str] = Field(min_length=1, max_length=50)
        code: str = Field(pattern=r"^[A-Z]{2,3}-(\d{3})+$")
        nickname: str | None = None

    assert re.search("^root ::=", json_grammar(Person.model_json_schema()), re.MULTILINE)
    json_grammar(inside(nested(20)))
    # Names of properties and values of data are not limits.
    names = {name: {"type": "string"} for name in ("minItems", "maxLength", "enum", "pattern", "type")}
    assert "minItems" in json_grammar({"type": "object", "properties": names, "default": {"minItems": -1}})
    json_grammar(inside({"enum": [f"country {number}" for number in range(250)]}))
