"""A real chat model: answers, streams, tools, structured output, and reuse of the KV cache."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from ggufbench.chat.model import ChatLlamaCpp

SHORT = {"n_ctx": 1024, "n_gpu_layers": 0, "n_threads": 1, "temperature": 0, "max_tokens": 32}
QUESTION = "What is the capital of France? Answer in one short sentence."


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}, 21 degrees."


class City(BaseModel):
    name: str
    country: str
    inhabitants: int


@pytest.fixture(scope="module")
def chat(smollm2):
    """SmolLM2, loaded once, with greedy sampling."""
    model = ChatLlamaCpp(model_path=str(smollm2), **SHORT)
    yield model
    model.close()


@pytest.fixture
def endless(chat):
    """The same model, which never ends an answer itself."""
    return chat.model_copy(update={"ignore_end": True})


def test_answer_and_stream_are_the_same_text(chat):
    answer = chat.invoke(QUESTION)
    assert "Paris" in answer.content
    assert answer.response_metadata["finish_reason"] == "stop"
    chunks = list(chat.stream(QUESTION))
    assert "".join(chunk.text for chunk in chunks) == answer.content
    assert len(chunks) > 4, "the text arrives while it is generated"


def test_answer_is_as_long_as_the_limit_if_its_end_is_ignored(chat, endless):
    ended = chat.invoke(QUESTION).usage_metadata["output_tokens"]
    answer = endless.invoke(QUESTION)
    assert ended < 32 == answer.usage_metadata["output_tokens"]
    assert answer.response_metadata["finish_reason"] == "length"


def test_tool_is_called_and_its_result_answered(chat):
    bound = chat.bind_tools([get_weather], tool_choice="get_weather")
    asked = HumanMessage("What is the weather in Paris?")
    called = bound.invoke([asked])
    assert [(call["name"], set(call["args"])) for call in called.tool_calls] == [("get_weather", {"city"})]
    assert called.response_metadata["finish_reason"] == "tool_calls"
    result = get_weather.invoke(called.tool_calls[0])
    assert isinstance(result, ToolMessage)
    answer = chat.bind_tools([get_weather], tool_choice="none").invoke([asked, called, result])
    assert answer.content and not answer.tool_calls


def test_structured_output_follows_its_schema_and_ends(endless):
    chat = endless.model_copy(update={"max_tokens": 80}).with_structured_output(City, include_raw=True)
    made = chat.invoke("Paris in France has 2100000 inhabitants.")
    assert isinstance(made["parsed"], City), made["parsing_error"]
    assert "Paris" in made["parsed"].name
    assert made["raw"].response_metadata["finish_reason"] == "stop"


def test_next_turn_evaluates_only_the_new_tokens(chat):
    asked = [HumanMessage("My name is Ada. Remember it.")]
    first = chat.invoke(asked)
    talk = [*asked, AIMessage(first.content), HumanMessage("What is my name?")]
    reused = chat.invoke(talk)
    known = first.usage_metadata["total_tokens"] - 1
    assert reused.usage_metadata["input_token_details"]["cache_read"] >= known - 4
    chat.reset()
    assert chat.invoke(talk).usage_metadata["input_token_details"]["cache_read"] == 0
