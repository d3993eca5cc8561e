"""Tools and structured output: requests, enforcement, and parsing of answers."""

import asyncio
import json
import re
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from ggufbench.chat import structured
from ggufbench.chat.call_formats import Call
from ggufbench.chat.completion import _conversation, form_of
from ggufbench.chat.grammar import call_grammar, json_grammar
from ggufbench.chat.model import ChatModelError
from ggufbench.chat.tools import ToolReader

NONE, ONE = ("f", "{}", True), ("f", '{"a": 1}', True)
"""Calls as `read` gives them."""
WHERE = "What is the weather in San Francisco, CA?"


@tool
def get_weather(location: str) -> str:
    """The weather of a place."""
    return f"sunny in {location}"


class Joke(BaseModel):
    setup: str = Field(description="question to set up a joke")
    punchline: str = Field(description="answer to resolve the joke")


def read(
    text: str, size: int, names: tuple[str, ...] = ("f",)
) -> tuple[str, list[tuple[str | None, str, bool]]]:
    """Text and calls of an answer that arrives in pieces of this size."""
    reader, parts = ToolReader({name: {} for name in names}), []
    for start in range(0, len(text), size):
        parts += reader.feed(text[start : start + size])
    parts += reader.end()
    calls = [(part.name, part.arguments, part.error is None) for part in parts if isinstance(part, Call)]
    return "".join(part for part in parts if isinstance(part, str)), calls


class TestReading:
    @pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 100])
    @pytest.mark.parametrize(
        ("text", "rest", "calls"),
        [
            ("no call at all", "no call at all", []),
            ('<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>', "", [ONE]),
            ('\n<tool_call>\n{"name": "f"}\n</tool_call>\n', "", [NONE]),
            ('so <tool_call>{"name": "f"}</tool_call>', "so", [NONE]),
            ('<tool_call>{"name": "f"}</tool_call> then', " then", [NONE]),
            ('<tool_call>{"name": "f"}</tool_call>' * 2, "", [NONE] * 2),
            ('<tool_call>{"name": "f"}', "", [NONE]),
            ("a <tool b </tool_call> c", "a <tool b </tool_call> c", []),
            ('{"name": "f", "parameters": {"a": [1, {}]}}', "", [("f", '{"a": [1, {}]}', True)]),
            ('[{"name": "f"}, {"name": "f", "arguments": {"a": 1}}]', "", [NONE, ONE]),
            ('{"name": "f"}; {"name": "f"}', "", [NONE] * 2),
            ('{"function": {"name": "f", "arguments": "{\\"a\\": 1}"}}', "", [ONE]),
            ('{"name": "other"}', '{"name": "other"}', []),
            ('{"some": "json"}', '{"some": "json"}', []),
            ('text first {"name": "f"}', 'text first {"name": "f"}', []),
            ("<tool_call>f(1)</tool_call>", "", [("f", "f(1)", False)]),
            ('<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "", [("f", "[1]", False)]),
            ('<tool_call>{"arguments": {}}</tool_call>', '<tool_call>{"arguments": {}}</tool_call>', []),
            ('<tool_call>{"name": "f", "argum', "", [("f", '"{\\"name\\": \\"f\\", \\"argum"', False)]),
            ("<tool_call></tool_call>", "<tool_call></tool_call>", []),
            ("", "", []),
        ],
    )  # fmt: skip
    def test_every_form_of_call_in_pieces_of_every_size(self, text, rest, calls, size):
        assert read(text, size) == (rest, calls)

    def test_text_is_returned_once_it_cannot_be_a_call(self):
        reader = ToolReader({"f": {}})
        assert list(reader.feed("A word < ")) == ["A word <"]
        assert list(reader.feed("more<tool_")) == [" more"]
        assert list(reader.feed("box>")) == ["<tool_box>"]


class TestCalls:
    def test_model_calls_a_tool_and_gets_the_result(self, trained):
        bound = trained.bind_tools([get_weather])
        asked = HumanMessage(WHERE)
        called = bound.invoke([asked])
        assert called.content == ""
        assert called.response_metadata["finish_reason"] == "tool_calls"
        assert [(call["name"], call["args"]) for call in called.tool_calls] == [
            ("get_weather", {"location": "San Francisco, CA"})
        ]
        result = get_weather.invoke(called.tool_calls[0])
        assert (
            bound.invoke(
                [asked, called, ToolMessage("It's sunny.", tool_call_id=result.tool_call_id)]
            ).content
            == "Sunny."
        )

    @pytest.mark.parametrize(
        ("question", "text", "places"),
        [
            ("Say it, then call it.", "I look it up.", ["San Francisco, CA"]),
            ("Call it twice.", "", ["San Francisco, CA", "Rome"]),
            ("Call it in JSON.", "", ["Oslo"]),
            ("Say some JSON.", '{"weather": "sunny"}', []),
        ],
    )
    def test_text_and_calls_are_separated_in_a_stream(self, trained, question, text, places):
        bound = trained.bind_tools([get_weather])
        whole = bound.invoke(question)
        chunks = list(bound.stream(question))
        joined = chunks[0] + chunks[1:]
        for answer in (whole, joined):
            assert answer.content == text
            assert [call["args"] for call in answer.tool_calls] == [{"location": place} for place in places]
            assert answer.response_metadata["finish_reason"] == ("tool_calls" if places else "stop")
            assert not answer.invalid_tool_calls
        parts = [part for chunk in chunks for part in chunk.tool_call_chunks]
        assert [part["index"] for part in parts] == list(range(len(places)))
        assert len({part["id"] for part in parts}) == len(places)

    def test_malformed_call_becomes_an_invalid_tool_call(self, trained):
        bound = trained.bind_tools([get_weather])
        whole = bound.invoke("Call it badly.")
        chunks = list(bound.stream("Call it badly."))
        for answer in (whole, chunks[0] + chunks[1:]):
            assert not answer.tool_calls
            assert [call["args"] for call in answer.invalid_tool_calls] == ["get_weather(Rome)"]
            assert [call["name"] for call in answer.invalid_tool_calls] == ["get_weather"]
            assert answer.response_metadata["finish_reason"] == "stop"
        assert whole.invalid_tool_calls[0]["error"] == "its arguments are not values"

    def test_tool_choice_none_disables_tools(self, trained):
        prompts = [
            trained.bind_tools([get_weather], tool_choice=choice)
            .invoke("Hello")
            .usage_metadata["input_tokens"]
            for choice in ("none", "auto")
        ]
        assert prompts[0] == trained.invoke("Hello").usage_metadata["input_tokens"] < prompts[1]

    def test_unknown_tool_choice_is_refused(self, trained):
        for tools, choice, message in (
            ([get_weather], "get_time", "does not name a bound tool; bound: get_weather"),
            ([], "any", "needs at least one tool"),
            ([get_weather], {"type": "function"}, "does not name a tool; use its name"),
        ):
            with pytest.raises(ChatModelError, match=message):
                trained.bind_tools(tools, tool_choice=choice)


class Node(BaseModel):
    """A tree, whose schema refers to itself."""

    first_value: int
    next_nodes: list["Node"] = []
    whatever: Any = None


class TestForced:
    """Random weights would never produce these answers without enforcement."""

    @pytest.mark.parametrize(
        "choice", ["any", "required", True, "get_weather", {"function": {"name": "get_weather"}}]
    )
    def test_every_form_of_forced_tool_choice(self, make_random, choice):
        chat = make_random(temperature=2, max_tokens=400)
        answer = chat.bind_tools([get_weather], tool_choice=choice).invoke("Hello")
        if answer.response_metadata["finish_reason"] == "tool_calls":  # otherwise the string would never end
            assert set(answer.tool_calls[0]["args"]) == {"location"}
        else:
            assert len(answer.invalid_tool_calls) == 1

    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("penalty", [1.0, 1.1])
    def test_arguments_follow_their_schema(self, make_random, seed, penalty):
        def pick(count: int, exact: bool) -> None:
            """Pick."""

        chat = make_random(temperature=3, seed=seed, repeat_penalty=penalty, max_tokens=200)
        answer = chat.bind_tools([pick, Joke], tool_choice="pick").invoke("Hello")
        arguments = answer.tool_calls[0]["args"]
        assert isinstance(arguments["count"], int)
        assert isinstance(arguments["exact"], bool)
        assert answer.response_metadata["finish_reason"] == "tool_calls"

    def test_non_strict_call_allows_any_object(self):
        one = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"argument": {}}}}}
        assert "argument-kv" not in call_grammar([one], tagged=True, strict=False)
        assert "arguments-argument-kv" in call_grammar([one], tagged=True, strict=True)

    def test_a_schema_that_refers_to_itself(self, make_random):
        chat = make_random(temperature=1, max_tokens=100)
        for schema in (Node, Node.model_json_schema()):
            asked = {"response_format": structured.response_format(schema, "json_schema", None)}
            assert re.match(r'\{ ?"first_value" ?: ?-?\d', chat.invoke("Hello", **asked).content)
        raw = chat.with_structured_output(Node, method="function_calling", include_raw=True).invoke("Hello")
        assert "first_value" in json.dumps(raw["raw"].tool_calls or raw["raw"].invalid_tool_calls)

    def test_schemas_with_definitions_of_the_same_name(self):
        def of(kind: str) -> dict[str, Any]:
            parameters = {
                "type": "object",
                "properties": {"x": {"$ref": "#/$defs/Some_Part"}},
                "$defs": {"Some_Part": {"type": kind}},
                "required": ["x"],
            }
            return {"type": "function", "function": {"name": kind, "parameters": parameters}}

        rules = call_grammar([of("integer"), of("boolean")], tagged=False, strict=True)
        lines = dict(line.split(" ::= ", 1) for line in rules.splitlines())
        assert lines["alternative-0-arguments-x"] == "integer"
        assert lines["alternative-1-arguments-x"] == "boolean"

    def test_json_strings_have_no_control_characters(self):
        assert '[^"\\\\\\x00-\\x1F\\x7F]' in json_grammar({"type": "string"})

    @pytest.mark.parametrize(
        "schema",
        [{"type": "text"}, {"$ref": "https://example.org/x.json"}, {"pattern": "a", "type": "string"}],
    )
    def test_a_schema_without_a_grammar_is_refused(self, make_random, schema):
        form = {"type": "json_schema", "schema": {"type": "object", "properties": {"x": schema}}}
        with pytest.raises(ChatModelError, match=r"(No|the) grammar (can|of)"):
            make_random().invoke("Hello", response_format=form)


class TestObjects:
    @pytest.mark.parametrize("schema", [Joke, Joke.model_json_schema()])
    @pytest.mark.parametrize("method", ["json_schema", "function_calling"])
    def test_every_method_returns_the_object(self, trained, known, schema, method):
        chat = trained.with_structured_output(schema, method=method)
        for made in (
            chat.invoke("Tell me a joke about cats."),
            list(chat.stream("Tell me a joke about cats."))[-1],
        ):
            values = made.model_dump() if isinstance(made, BaseModel) else made
            assert isinstance(made, BaseModel) == (schema is Joke)
            assert values == {"setup": known["setup"], "punchline": known["punchline"]}

    def test_json_mode_needs_no_schema(self, trained, known):
        question = (
            "Tell me a joke about cats. Return the result as a JSON with 'setup' and 'punchline' keys. "
            "Return nothing other than JSON."
        )
        made = trained.with_structured_output(method="json_mode").invoke(question)
        assert made == {"setup": known["setup"], "punchline": known["punchline"]}

    def test_include_raw_returns_message_object_and_error(self, trained, known):
        chat = trained.with_structured_output(Joke, include_raw=True)
        made = chat.invoke("Tell me a joke about cats.")
        assert made["parsed"] == Joke(setup=known["setup"], punchline=known["punchline"])
        assert json.loads(made["raw"].content) == made["parsed"].model_dump()
        assert made["parsing_error"] is None

    @pytest.mark.parametrize("schema", [Joke, Joke.model_json_schema()])
    @pytest.mark.parametrize("method", ["json_schema", "function_calling"])
    def test_answer_that_is_cut_off_is_an_error(self, trained, schema, method):
        short, question = trained.model_copy(update={"max_tokens": 20}), "Tell me a joke about cats."
        chat = short.with_structured_output(schema, method=method)
        with pytest.raises(ChatModelError, match="cut off after 20 tokens, before its JSON was complete"):
            chat.invoke(question)
        with pytest.raises(ChatModelError, match="cut off after 20 tokens"):
            list(chat.stream(question))
        with pytest.raises(ChatModelError, match="cut off after 20 tokens"):
            asyncio.run(chat.ainvoke(question))
        failed = short.with_structured_output(schema, method=method, include_raw=True).invoke(question)
        assert failed["parsed"] is None
        assert "raise max_tokens" in str(failed["parsing_error"])
        assert failed["raw"].response_metadata["finish_reason"] == "length"

    def test_limit_that_the_json_just_reaches_is_no_error(self, trained, known):
        whole = trained.with_structured_output(Joke, include_raw=True).invoke("Tell me a joke about cats.")
        tokens = whole["raw"].usage_metadata["output_tokens"]
        exact = trained.model_copy(update={"max_tokens": tokens}).with_structured_output(Joke)
        assert exact.invoke("Tell me a joke about cats.").punchline == known["punchline"]

    def test_schema_that_is_not_enforced_is_described(self, trained):
        strict = trained.with_structured_output(Joke).first.kwargs["response_format"]
        loose = trained.with_structured_output(Joke, strict=False).first.kwargs["response_format"]
        assert form_of(trained._options({"response_format": strict})).enforced == strict["schema"]
        form = form_of(trained._options({"response_format": loose}))
        assert form.described == strict["schema"]
        assert form.enforced == {"type": "object"}

    def test_unknown_arguments_are_refused(self, trained):
        for arguments, message in (
            ({"method": "magic"}, "method = 'magic' is unknown"),
            ({"schema": None}, "needs a schema"),
            ({"made_up": 1}, "does not support made_up"),
        ):
            with pytest.raises(ChatModelError, match=message):
                trained.with_structured_output(**{"schema": Joke, **arguments})
        with pytest.raises(ChatModelError, match="is not a tool: "):
            trained.bind_tools([{"properties": {}}])
        with pytest.raises(ChatModelError, match=r"response_format = .* is invalid"):
            trained.invoke("Hello", response_format={"type": "xml"})
        with pytest.raises(ChatModelError, match="cannot be combined with a forced tool call"):
            trained.bind_tools([get_weather], tool_choice="any").invoke(
                "x", response_format={"type": "json_object"}
            )


class TestWithoutToolsInTheTemplate:
    def test_tools_and_results_become_text(self, make_random):
        chat = make_random()  # its template knows roles and content alone
        call = {"name": "get_weather", "args": {"location": "Oslo"}, "id": "1", "type": "tool_call"}
        messages = [
            SystemMessage("Be brief."), HumanMessage(WHERE), AIMessage("", tool_calls=[call]),
            ToolMessage("rain", tool_call_id="1"),
        ]  # fmt: skip
        options = chat._options({"tools": chat.bind_tools([get_weather]).kwargs["tools"]})
        template = chat._generator._template
        prompt = template.render(*_conversation(template, messages, form_of(options)))
        system, *_, result = prompt.removesuffix("<|im_start|>assistant\n").split("<|im_end|>\n")[:-1]
        assert "<|im_start|>system\nBe brief.\n\nYou can call these tools" in system
        assert '"name": "get_weather"' in system
        assert (
            '<tool_call>\n{"name": "get_weather", "arguments": {"location": "Oslo"}}\n</tool_call>' in prompt
        )
        assert result == "<|im_start|>user\n<tool_response>\nrain\n</tool_response>"
