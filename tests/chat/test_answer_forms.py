"""Calls and reasoning in the forms of many models, whole and in pieces, finished and not."""

# ruff: noqa: RUF001 (the marks of DeepSeek have a wide bar)
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufbench.chat import reasoning
from ggufbench.chat.call_formats import CALL_MARKS, Call
from ggufbench.chat.completion import _parts
from ggufbench.chat.engine import AnswerUsage
from ggufbench.chat.reasoning import Reasoning, reader_for, without_reasoning
from ggufbench.chat.tools import CONTROL_TEXTS, ToolReader

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "exact": {"type": "boolean"},
        "unit": {"$ref": "#/$defs/Unit"},
        "note": {"type": ["string", "null"]},
        "places": {"type": "array", "items": {"type": "string"}},
        "limit": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "any": {},
    },
    "$defs": {"Unit": {"enum": ["C", "5"]}},
}
TOOLS = {"weather": WEATHER, "now": {}}
ROME = ("weather", {"city": "Rome", "days": 3})
ARGUMENTS = '{"city": "Rome", "days": 3}'


def read(text, size=1000, *, template="", prompt="", tools=TOOLS):
    """Text, reasoning, calls as (name, arguments or None) and finish reason of an answer in pieces."""
    pieces = (text[start : start + size] for start in range(0, len(text), size))
    split = reader_for(prompt, template, has_tools=bool(tools))
    tally = AnswerUsage()
    parts = list(_parts(pieces, split, ToolReader(tools) if tools else None, tally))
    calls = [part for part in parts if isinstance(part, Call)]
    return (
        "".join(part for part in parts if isinstance(part, str)),
        "".join(part.text for part in parts if isinstance(part, Reasoning)),
        [(call.name, None if call.error else call.valid()["args"]) for call in calls],
        tally.finish,
    )


FORMS = {
    "hermes": f'<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}}}\n</tool_call>',
    "hermes unclosed": f'<tool_call>\n{{"name": "weather", "arguments": {ARGUMENTS}}}',
    "qwen3-coder": "<tool_call>\n<function=weather>\n<parameter=city>\nRome\n</parameter>\n"
    "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
    "qwen3-coder without the tag": "<function=weather>\n<parameter=city>\nRome\n</parameter>\n"
    "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
    "glm": "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n<arg_key>days</arg_key>"
    "\n<arg_value>3</arg_value>\n</tool_call>",
    "minimax": '<minimax:tool_call>\n<invoke name="weather">\n<parameter name="city">Rome</parameter>\n'
    '<parameter name="days">3</parameter>\n</invoke>\n</minimax:tool_call>',
    "llama json": f'{{"name": "weather", "parameters": {ARGUMENTS}}}',
    "llama python tag": f'<|python_tag|>{{"name": "weather", "parameters": {ARGUMENTS}}}',
    "llama function": f"<function=weather>{ARGUMENTS}</function>",
    "llama pythonic": '[weather(city="Rome", days=3)]',
    "mistral list": f'[TOOL_CALLS] [{{"name": "weather", "arguments": {ARGUMENTS}}}]',
    "mistral name": f"[TOOL_CALLS]weather[ARGS]{ARGUMENTS}",
    "mistral id": f"[TOOL_CALLS]weather[CALL_ID]a1B2c3D4e[ARGS]{ARGUMENTS}",
    "deepseek r1": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
    f"{ARGUMENTS}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "deepseek v3.1": f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{ARGUMENTS}"
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>"
    f"{ARGUMENTS}<|tool_call_end|><|tool_calls_section_end|>",
    "granite": f'<|tool_call|>[{{"name": "weather", "arguments": {ARGUMENTS}}}]',
    "phi functools": f'functools[{{"name": "weather", "arguments": {ARGUMENTS}}}]',
    "phi tags": f'<|tool_call|>[{{"name": "weather", "arguments": {ARGUMENTS}}}]<|/tool_call|>',
    "nemotron": f'<TOOLCALL>[{{"name": "weather", "arguments": {ARGUMENTS}}}]</TOOLCALL>',
    "command": f'<|START_ACTION|>[{{"tool_name": "weather", "parameters": {ARGUMENTS}}}]<|END_ACTION|>',
    "gemma 3": '```tool_code\nprint(weather(city="Rome", days=3))\n```',
    "gemma 4": '<|tool_call>call:weather{city:<|"|>Rome<|"|>,days:3}<tool_call|>',
    "function gemma": "<start_function_call>"
    "call:weather{city:<escape>Rome<escape>,days:3}<end_function_call>",
    "lfm": '<|tool_call_start|>[weather(city="Rome", days=3)]<|tool_call_end|>',
}
CHANNELS = "{{ '<|channel|>' }}"
GPT_OSS = (
    "<|channel|>analysis<|message|>We need the weather.<|end|><|start|>assistant"
    f"<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{ARGUMENTS}<|call|>"
)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("form", FORMS)
def test_call_in_the_form_of_each_model(form, size):
    assert read(FORMS[form], size) == ("", "", [ROME], "tool_calls")


@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("llama json", "llama pythonic")])
def test_text_before_a_call_is_kept(form):
    text, _, calls, _ = read(f"I look it up.\n\n{FORMS[form]}", 3)
    assert (text, calls) == ("I look it up.", [ROME])


def test_several_calls():
    two = [ROME, ("now", {})]
    for text in (
        f'[TOOL_CALLS]weather[ARGS]{ARGUMENTS}[TOOL_CALLS]now[ARGS]{{}}',
        FORMS["glm"] + "\n<tool_call>now\n</tool_call>",
        FORMS["qwen3-coder"] + "\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
        FORMS["hermes unclosed"] + '<tool_call>{"name": "now"}</tool_call>',
        '[weather(city="Rome", days=3), now()]',
        FORMS["deepseek v3.1"].replace(
            "<｜tool▁calls▁end｜>",
            "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        ),
    ):  # fmt: skip
        assert read(text, 5)[2] == two


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("city", "007", "007"), ("city", '"Rome"', '"Rome"'), ("city", "a\n  b", "a\n  b"),
        ("city", "true", "true"),
        ("days", "5", 5), ("days", "5.0", 5), ("days", "five", "five"), ("exact", "True", True),
        ("exact", "false", False), ("unit", "5", "5"), ("note", "null", None), ("note", "5", "5"),
        ("places", '["a"]', ["a"]), ("places", "['a']", ["a"]), ("limit", "2", 2), ("limit", "1.5", 1.5),
        ("limit", "null", None), ("any", "{\"a\": 1}", {"a": 1}), ("any", "text", "text"), ("other", "5", 5),
    ],
)  # fmt: skip
def test_values_have_the_types_of_the_schema(key, written, value):
    coder = f"<tool_call><function=weather><parameter={key}>\n{written}\n</parameter></function></tool_call>"
    glm = f"<tool_call>weather<arg_key>{key}</arg_key><arg_value>{written}</arg_value></tool_call>"
    for text in (coder, glm):
        assert read(text)[2] == [("weather", {key: value})]
        assert type(read(text)[2][0][1][key]) is type(value)


@pytest.mark.parametrize("size", [1, 9, 1000])
def test_channels_are_separated(size):
    final = (
        "<|channel|>analysis<|message|>We need 2+2.<|end|><|start|>assistant<|channel|>final<|message|>four"
    )
    assert read(final, size, template=CHANNELS, tools={}) == ("four", "We need 2+2.", [], "stop")
    assert read(final, size, template=CHANNELS) == ("four", "We need 2+2.", [], "stop")
    assert read(GPT_OSS, size, template=CHANNELS) == ("", "We need the weather.", [ROME], "tool_calls")
    recipient_first = f" to=functions.weather<|channel|>commentary json<|message|>{ARGUMENTS}<|call|>"
    assert read(recipient_first, size, template=CHANNELS)[2] == [ROME]
    preamble = "<|channel|>commentary<|message|>I look it up.<|end|><|start|>assistant" + recipient_first
    assert read(preamble, size, template=CHANNELS)[::2] == ("I look it up.", [ROME])
    assert read('{"a": 1}', size, template=CHANNELS, tools={})[0] == '{"a": 1}', (
        "after an opened final channel"
    )


@pytest.mark.parametrize("size", [1, 9, 1000])
@pytest.mark.parametrize("mark", reasoning.BLOCKS)
def test_reasoning_blocks_are_separated(mark, size):
    close = reasoning.BLOCKS[mark]
    answer = f"{mark}\nWe need 2+2.\n{close}\n\nfour < five"
    assert read(answer, size, template=mark) == ("four < five", "\nWe need 2+2.\n", [], "stop")
    assert read(f"We need{close}four", size, prompt=f"assistant\n{mark}\n")[:2] == ("four", "We need")
    assert read("four", size, template=mark)[:2] == ("four", "")
    assert read(f"a {mark} b", size, template=mark)[:2] == (f"a {mark} b", "")
    assert read(f"{mark}cut o", size, template=mark)[:2] == ("", "cut o")
    assert read(f"{mark}hm{close}" + FORMS["glm"], size, template=mark) == ("", "hm", [ROME], "tool_calls")


def test_required_form_begins_after_the_reasoning():
    assert (
        without_reasoning("<|im_start|>assistant\n<think>\n")
        == "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert without_reasoning("<|start|>assistant") == "<|start|>assistant<|channel|>final<|message|>"
    assert without_reasoning("<|im_start|>assistant\n") == "<|im_start|>assistant\n"
    closed = "<think>\n\n</think>\n\n"
    assert without_reasoning(closed) == closed


def check(text, size):
    """No text raises, and every call has a name."""
    for template in ("", CHANNELS, "<think>"):
        for part in read(text, size, template=template)[2]:
            assert part[0]
            json.dumps(part[1])


@pytest.mark.parametrize("form", [*FORMS, "gpt-oss"])
def test_unfinished_call_never_raises_and_has_a_name(form):
    text = FORMS.get(form, GPT_OSS)
    for end in range(0, len(text), 3):
        check(text[:end], 1000)


HOSTILE = [
    '<tool_call>{"name": "f", "arguments": {"a": "\\ud800"}}</tool_call>',
    '<tool_call>{"name": "\\ud800"}</tool_call>',
    "<tool_call>" + "[" * 30_000,
    '<tool_call>{"name": "f", "arguments": ' + "[" * 5000,
    "[" * 5000 + "]" * 5000,
    "f(" * 5000,
    "weather(" + "-" * 5000 + "1)",
    "weather(a={1, 2}, b=b'x', c=1j)",
    "<tool_call>" + "<arg_key>" * 20_000,
    "<tool_call>" + "<function=" * 20_000,
    "<function=f>" + "<parameter=" * 20_000,
    "<function=weather><parameter=days>" + "9" * 6000 + "</parameter></function>",
    "[TOOL_CALLS]" * 5000,
    "<|channel|>" * 5000 + "<|message|>",
    "<tool_call>" + "call:" * 20_000 + "{",
    '<tool_call>{"name": 5, "arguments": {}}</tool_call>',
    '<tool_call>{"name": "f", "arguments": NaN}</tool_call>',
    "<tool_call>x" + " " * 20_000 + "</tool_call>",
    "\0<tool_call>\0</tool_call>",
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_text_never_raises(number):
    check(HOSTILE[number], 1000)


@given(st.randoms(use_true_random=False))
def test_mixed_markers_never_raise(source: random.Random):
    words = [
        *CONTROL_TEXTS,
        *CALL_MARKS,
        *reasoning.CONTROL_TEXTS,
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        '"name"',
        '"weather"',
    ]
    words += [
        "weather",
        ":",
        ",",
        "=",
        "'",
        "\n",
        " ",
        "to=functions.",
        "<parameter=city>",
        "<arg_key>",
        "1",
        "</function>",
    ]
    check("".join(source.choice(words) for _ in range(source.randrange(30))), source.randrange(1, 40))
