"""Variables of the chat template, from the config and from a question."""

import pytest
from pydantic import ValidationError

from ggufbench.chat import LlamaCppModelConfig, ModelConfigError
from ggufbench.chat.model import ChatModelError

THINKING = (
    "{% for m in messages %}{{ m.content }}{% endfor %}"
    "{{ 'think' * 5 if enable_thinking is not defined or enable_thinking }}"
    "{{ ' effort' * (effort | default(0)) }}"
)


@pytest.fixture
def count(make_random):
    """A function that loads the model and returns the number of prompt tokens of a question."""

    def count(variables: dict | None = None, **question) -> int:
        more = {} if variables is None else {"chat_template_kwargs": variables}
        chat = make_random(chat_template=THINKING, max_tokens=1, **more)
        return chat.invoke("Hi", **question).usage_metadata["input_tokens"]

    return count


def test_model_and_question_set_variables(count):
    usual, quiet = count(), count({"enable_thinking": False})
    assert quiet < usual
    assert count(None, chat_template_kwargs={"enable_thinking": False}) == quiet
    assert count({"enable_thinking": False}, chat_template_kwargs={"enable_thinking": True}) == usual
    # Those of the question are added to those of the model.
    both = count({"enable_thinking": False}, chat_template_kwargs={"effort": 3})
    assert quiet < both < count(None, chat_template_kwargs={"effort": 30})
    assert both == count(None, chat_template_kwargs={"enable_thinking": False, "effort": 3})


def test_bound_variables_and_stream(make_random):
    chat = make_random(chat_template=THINKING, max_tokens=1)
    bound = chat.bind(chat_template_kwargs={"enable_thinking": False})
    [*_, last] = bound.stream("Hi")
    assert last.usage_metadata["input_tokens"] < chat.invoke("Hi").usage_metadata["input_tokens"]


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        (
            {"enable_thinkin": False},
            r"does not read 'enable_thinkin', .* ignored; did you mean enable_thinking\?",
        ),
        ({"x": 1}, r"does not read 'x', so the value would be ignored; it reads effort, enable_thinking"),
        ({"messages": []}, "does not read 'messages'"),
        ({"tools": []}, "does not read 'tools'"),
        ({"range": 1}, "does not read 'range'"),
        ({"a\x1b[2J": 1}, "does not read"),
        ({"effort": 9999999999}, "makes a text of more than"),
    ],
)
def test_variable_that_cannot_be_applied(make_random, variables, reason):
    chat = make_random(chat_template=THINKING)
    with pytest.raises(ChatModelError, match=reason) as caught:
        chat.invoke("Hi", chat_template_kwargs=variables)
    assert str(caught.value).isprintable()
    if "effort" not in variables:
        with pytest.raises(ChatModelError, match=reason):
            make_random(chat_template=THINKING, chat_template_kwargs=variables)


@pytest.mark.parametrize("wrong", ["no", None, [1], {"a": object()}])
def test_variables_must_be_a_table_of_json_values(make_random, wrong):
    with pytest.raises(ChatModelError, match="chat_template_kwargs"):
        make_random(chat_template=THINKING).invoke("Hi", chat_template_kwargs=wrong)
    with pytest.raises(ChatModelError, match="chat_template_kwargs"):
        make_random(chat_template_kwargs=wrong)
    with pytest.raises((ModelConfigError, ValidationError), match="chat_template_kwargs"):
        LlamaCppModelConfig(model="owner/name", chat_template_kwargs=wrong)


def test_config_passes_variables_on():
    config = LlamaCppModelConfig(model="owner/name", chat_template_kwargs={"enable_thinking": False})
    assert config.options()["chat_template_kwargs"] == {"enable_thinking": False}
    assert LlamaCppModelConfig.model_validate_json(config.model_dump_json()) == config
