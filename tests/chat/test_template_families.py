"""Prompts of templates in the style of each family of models, against transformers on the same template.

The templates in `templates/` were written for these tests.
"""

import copy
import json
import re
from pathlib import Path

import pytest
from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from ggufbench.chat.errors import ChatModelError
from ggufbench.chat.forms import tools_as_text
from ggufbench.chat.template import Template

from .conversations import CONVERSATIONS, TIME, WEATHER, assistant, call, parts, result, system, user

SOURCES = {path.stem: path.read_text() for path in sorted(Path(__file__).parent.glob("templates/*.jinja"))}


CALLS = {
    "tool result", "several calls", "call without arguments", "remark and call", "nested arguments",
    "reasoning and call",
}  # fmt: skip
REWRITTEN = {
    "chatml": {"list content"},
    "command": {"list content"},
    "deepseek": {"list content", *CALLS},
    "gemma": {"system", "list content", "late system", "same role twice", "several calls"},
    "glm": set(),
    "gpt_oss": {"list content", "late system", "several calls"},
    "granite": {"list content"},
    "llama3": {"list content", "several calls", "remark and call"},
    "mistral": {"list content", "late system", "same role twice", *CALLS},
    "phi": {"list content"},
    "qwen35": {"late system"},
    "qwen3_coder": {"list content"},
    "vision": CONVERSATIONS.keys() - {"list content"},
}
"""Conversations that the template refuses, or from which it omits a text."""


def as_transformers(source: str, messages: list, tools: list = (), **variables) -> str:
    given = {"bos_token": "<s>", "eos_token": "</s>", **variables}
    prompts, _ = render_jinja_template(
        [messages], tools=tools or None, chat_template=source, add_generation_prompt=True, **given
    )
    return prompts[0]


def texts(messages: list) -> list[str]:
    """Every text that the model must read."""
    found = []
    for message in messages:
        content = message["content"]
        found += (
            [part["text"] for part in content]
            if isinstance(content, list)
            else [content.split("</think>")[-1]]
        )
        for made in message.get("tool_calls", []):
            found += [made["function"]["name"], *leaves(made["function"]["arguments"])]
    return [text.strip() for text in found if text]


def leaves(value) -> list[str]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in leaves(inner)]
    return [] if value is None else [str(value)]


@pytest.fixture(scope="module")
def templates() -> dict[str, Template]:
    return {name: Template(source, "<s>", "</s>", name) for name, source in SOURCES.items()}


def for_template(template: Template, name: str) -> tuple[list, list]:
    """The conversation as the chat model passes it."""
    messages, tools = CONVERSATIONS[name]
    return (messages, tools) if template.takes_tools else (tools_as_text(messages), [])


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("family", SOURCES)
def test_prompt_equals_that_of_transformers_or_has_every_text(family, conversation, templates):
    messages, tools = for_template(templates[family], conversation)
    before = copy.deepcopy(messages)
    prompt = templates[family].render(messages, tools)
    assert messages == before
    try:
        reference = as_transformers(SOURCES[family], messages, tools)
    except (TemplateError, TypeError):
        reference = None
    assert (prompt != reference) == (conversation in REWRITTEN[family])
    for text in texts(messages):
        written = (text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1])
        assert any(form in prompt for form in written), text


@pytest.mark.parametrize("conversation", sorted(REWRITTEN["vision"]))
def test_text_becomes_a_part_for_a_template_that_needs_parts(conversation, templates):
    messages, _ = for_template(templates["vision"], conversation)
    with_parts = [{**message, "content": parts(message["content"])} for message in messages]
    assert templates["vision"].render(messages) == as_transformers(SOURCES["vision"], with_parts)


@pytest.mark.parametrize(
    ("family", "variables"),
    [
        ("qwen35", {"enable_thinking": False}),
        ("qwen35", {"enable_thinking": True}),
        ("glm", {"enable_thinking": False}),
        ("gpt_oss", {"reasoning_effort": "high"}),
        ("granite", {"controls": {"length": "short", "limit": 20260101}}),
    ],
)
def test_variables_reach_the_template(family, variables, templates):
    messages, _ = CONVERSATIONS["one question"]
    prompt = templates[family].render(messages, variables=variables)
    assert prompt == as_transformers(SOURCES[family], messages, **variables)
    assert set(variables) <= templates[family].variables


ASK, LATE = user("Which city?"), system("Rhyme from now on.")


def test_late_system_message_goes_to_the_turn_of_the_user(templates):
    prompt = templates["qwen35"].render([system("Be kind."), ASK, assistant("Bern"), LATE, user("And?")])
    assert prompt == as_transformers(
        SOURCES["qwen35"],
        [system("Be kind."), ASK, assistant("Bern"), user("Rhyme from now on.\n\nAnd?")],
    )


@pytest.mark.parametrize(
    "messages",
    [
        [ASK, assistant("Bern"), LATE, user("And?")],
        [ASK, LATE],
        [ASK, LATE, assistant("Bern"), user("And?")],
        [LATE],
        [system("Be kind."), LATE, ASK],
        [system("Be kind."), ASK, assistant("", WEATHER), LATE, result(WEATHER["id"], "Fog")],
        [{"role": "developer", "content": "Be kind."}, ASK, LATE],
        [system(parts("Be ", "kind.")), ASK, system(parts("Rhyme."))],
    ],
)
@pytest.mark.parametrize("family", ["qwen35", "mistral", "gemma"])
def test_every_system_message_reaches_the_model(family, messages, templates):
    template = templates[family]
    messages = messages if template.takes_tools else tools_as_text(messages)
    prompt = template.render(messages)
    assert all(text in prompt for text in texts(messages))


@pytest.mark.parametrize("family", SOURCES)
def test_several_changes_at_once(family, templates):
    messages = [
        user(parts("Weather ", "and time?")), LATE, assistant("One moment.", WEATHER, TIME),
        result(WEATHER["id"], "Fog"), result(TIME["id"], "six"), assistant("Foggy"), LATE, user("Thanks"),
    ]  # fmt: skip
    template = templates[family]
    prompt = template.render(messages if template.takes_tools else tools_as_text(messages))
    assert all(
        text in prompt or json.dumps(text)[1:-1] in prompt for text in texts(messages)[2:] if text.isascii()
    )
    assert "Weather and time?" in " ".join(prompt.split())
    assert prompt.count(LATE["content"]) == 2


def identifiers(prompt: str) -> tuple[list[str], list[str]]:
    return re.findall(r'"id": "(\w+)"', prompt), re.findall(r'"call_id": "(\w+)"', prompt)


def each(source: str) -> str:
    return f"{{% for m in messages %}}{source}{{% endfor %}}"


class TestIdentifiersOfCalls:
    def test_same_in_call_and_result_and_distinct_for_distinct_calls(self, templates):
        messages, tools = CONVERSATIONS["several calls"]
        again = [
            user("Again"),
            assistant("", TIME, WEATHER),
            result(WEATHER["id"], "Rain"),
            result(TIME["id"], "1"),
        ]
        calls, results = identifiers(templates["mistral"].render([*messages, *again], tools))
        assert len(set(calls)) == 4
        assert all(len(one) == 9 and one.isalnum() for one in calls)
        assert results == [calls[0], calls[1], calls[3], calls[2]]

    def test_one_identifier_for_several_calls(self, templates):
        """Some programs number the calls of each answer from the start."""
        same = [call("1", "get_time", zone="CET"), call("1", "get_time", zone="EST")]
        prompt = templates["mistral"].render(
            [ASK, assistant("", *same), result("1", "noon"), result("1", "six")]
        )
        calls, results = identifiers(prompt)
        assert len(set(calls)) == 2
        assert results == calls

    def test_valid_identifiers_are_kept(self, templates):
        valid = {**TIME, "id": "abcDEF123"}
        messages = [ASK, assistant("", valid), result("abcDEF123", "noon")]
        assert templates["mistral"].render(messages) == as_transformers(SOURCES["mistral"], messages)

    @pytest.mark.parametrize(
        "rule", ["id[:10] != 'functions.'", "id[:5] != 'call_' or id | length != 29", "not id.isdigit()"]
    )
    def test_other_rules(self, rule):
        source = each(
            "{{ m.content }}{% for call in m.tool_calls or [] %}{{ call | tojson }}{% set id = call.id %}"
            f"{{% if {rule} %}}{{{{ raise_exception('id') }}}}{{% endif %}}{{% endfor %}}"
        )
        messages = [ASK, assistant("", TIME), result(TIME["id"], "noon")]
        prompt = Template(source, "", "", "some model").render(messages)
        assert "noon" in prompt
        assert "get_time" in prompt


LOSSY = {
    "only the last message": "{{ messages[-1].content }}",
    "shortened": "{% for m in messages %}{{ m.role }}{{ m.content[:20] }}{% endfor %}",
    "no system": "{% for m in messages if m.role in ('user', 'assistant') %}{{ m.content }}\n{% endfor %}",
    "parts alone": each("{% for part in m.content if part.type == 'text' %}{{ part.text }}{% endfor %}"),
    "calls if content is null": each(
        "{% if m.content is none %}{{ m.tool_calls | tojson }}"  # prose: allow
        "{% else %}{{ m.content }}{% endif %}"
    ),
    "calls if there is no content": each(
        "{% if m.content is defined %}{{ m.content }}{% else %}{{ m.tool_calls | tojson }}{% endif %}"
    ),
    "arguments as text": each(
        "{{ m.content }}{% for call in m.tool_calls or [] %}"
        "{{ call.function.name + call.function.arguments }}{% endfor %}"
    ),
    "arguments as Python shows them": each(
        "{{ m.content }}{% for call in m.tool_calls or [] %}"
        "{{ call.function.name ~ call.function.arguments }}{% endfor %}"
    ),
    "no tool results": each(
        "{% if m.role != 'tool' %}{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }}{% endif %}"
    ),
    "first call only": each("{{ m.content }}{{ m.tool_calls[0] | tojson if m.tool_calls }}"),
}
NEVER = {"only the last message", "shortened"}


@pytest.mark.parametrize("rule", LOSSY)
def test_no_text_is_omitted_silently(rule):
    template = Template(LOSSY[rule], "", "", "some model")
    messages = [
        system("Answer in verse, always."), user("Tell me about the weather and the time."),
        assistant("", WEATHER, TIME), result(WEATHER["id"], "Snow"), result(TIME["id"], "12:34"),
    ]  # fmt: skip
    if rule in NEVER:
        with pytest.raises(
            ChatModelError, match=r"omits '.*' from the prompt, so the model would not read it"
        ):
            template.render(messages)
        return
    prompt = template.render(messages)
    assert "{'" not in prompt
    for text in texts(messages):
        assert text in prompt or json.dumps(text)[1:-1] in prompt


@pytest.mark.parametrize("text", ["user", "a", "Hi", "?", "20260101", "</think>", "\n.", "<b>x</b> & 'y'"])
def test_omitted_text_is_found_although_the_prompt_has_the_same_words(text):
    """The name of the role, another message and a call have the same text."""
    source = "{% for m in messages[1:] %}<user>{{ m.content | e }}? a {% endfor %}"
    with pytest.raises(ChatModelError, match="omits"):
        Template(source, "", "", "some model").render([user(text), assistant("Hi 20260101"), user(text)])
    complete = "{% for m in messages %}<user>{{ m.content | e }}{% endfor %}"
    assert Template(complete, "", "", "some model").render([user(text), assistant("Hi"), user(text)])
