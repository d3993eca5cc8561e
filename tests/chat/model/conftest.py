"""A tiny model that has memorized the dialogues of LangChain's standard tests, and other fixtures.

The model is real: a network trained by PyTorch for less than a minute, written as a GGUF, loaded and run by
llama.cpp. It cannot answer anything else.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import llama_cpp
import pytest
from filelock import FileLock
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.utils.function_calling import convert_to_json_schema
from pydantic import BaseModel, Field
from pydantic.v1 import BaseModel as BaseModelV1
from pydantic.v1 import Field as FieldV1
from typing_extensions import Annotated, TypedDict  # noqa: UP035 (pydantic needs this TypedDict)

from ggufbench.chat.completion import form_of
from ggufbench.chat.model import ChatLlamaCpp

TEMPLATE = """
{%- if tools %}{{ '<|im_start|>tools\\n' }}
{%- for tool in tools %}{{ tool.function.name + '\\n' }}{% endfor %}
{{- '<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>\\n' + call.function | tojson + '\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""

HAIKUS = "Rain on the roof,\nthe cat counts drops.\n\nSnow — тихо. 雪。🐈"
SETUP, PUNCHLINE = "What do cats read?", "The mewspaper."
JOKE = json.dumps({"setup": SETUP, "punchline": PUNCHLINE})


class Joke(BaseModel):
    setup: str = Field(description="question to set up a joke")
    punchline: str = Field(description="answer to resolve the joke")


class JokeV1(BaseModelV1):
    setup: str = FieldV1(description="question to set up a joke")
    punchline: str = FieldV1(description="answer to resolve the joke")


JokeV1.__name__ = "Joke"


class JokeDict(TypedDict):
    setup: Annotated[str, ..., "question to set up a joke"]
    punchline: Annotated[str, ..., "answer to resolve the joke"]


class OptionalJoke(BaseModel):
    setup: str = Field(description="question to set up a joke")
    punchline: str | None = Field(default=None, description="answer to resolve the joke")


class OptionalJokeDict(TypedDict):
    setup: Annotated[str, ..., "question to set up a joke"]
    punchline: Annotated[str | None, None, "answer to resolve the joke"]


OptionalJoke.__name__, OptionalJokeDict.__name__ = "Joke", "JokeDict"


def named(*names: str) -> list[dict]:
    """Tools, of which the template renders only the names."""
    return [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in names
    ]


def call(name: str, **arguments) -> str:
    """Text with which the model calls a tool."""
    written = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{written}\n</tool_call>"


def used(name: str, result: str, **arguments) -> list:
    """A call and its result, in a conversation."""
    made = {"name": name, "args": arguments, "id": "1", "type": "tool_call"}
    return [AIMessage("", tool_calls=[made]), ToolMessage(result, name=name, tool_call_id="1")]


def dialogues() -> list[tuple[list, dict, str]]:
    """Conversation, options and answer."""
    ask = HumanMessage
    plain = [
        ([ask("Hello")], "Hello! What shall we do?"),
        ([ask("Hey")], "Hey there."),
        ([ask("hi")], "Hi, how are you today?"),
        ([ask("hello")], "Hello again."),
        ([ask("hello"), AIMessage("hello"), ask("how are you")], "Very well, thanks."),
        (
            [
                *[SystemMessage("hello")] * 2, *[ask("hello")] * 2, *[AIMessage("hello")] * 2,
                ask("how are you"),
            ],
            "Well, and twice so.",
        ),
        ([ask("Write me 2 haikus. Only include the haikus.")], HAIKUS),
        ([ask("Count to ten.")], "one two three four five six seven eight nine ten"),
        ([SystemMessage("You are a pirate."), ask("Who are you?")], "Arr, a pirate."),
        (
            [ask("Hello"), AIMessage("Hello, how are you?"), ask("Well, thanks.")],
            "Good to hear.",
        ),
    ]  # fmt: skip
    return [(messages, {}, answer) for messages, answer in plain] + _with_tools() + _with_schemas()


def _with_tools() -> list[tuple[list, dict, str]]:
    ask = HumanMessage
    adder = [ask("What is 1 + 2")]
    weather = [ask("What is the weather in San Francisco, CA?")]
    weather_call = call("get_weather", location="San Francisco, CA")
    chinese = "Create a customer named '你好啊集团' (Hello Group) - a Chinese technology company"
    japanese = "Create a customer named 'こんにちは株式会社' (Hello Corporation) - a Japanese company"
    magic, no_args = "magic_function", "magic_function_no_args"
    some_text = AIMessage(
        "some text", tool_calls=[{"name": "my_adder_tool", "args": {"a": 1, "b": 2}, "id": "1"}]
    )
    few_shot = [*adder, *used("my_adder_tool", '{"result": 3}', a=1, b=2), AIMessage('{"result": 3}')]
    color = [
        SystemMessage("you're a good assistant"), ask("what's your favorite color in this image"),
        AIMessage(
            "Hmm let me think about that",
            tool_calls=[{"name": "color_picker", "args": {"fav_color": "purple"}, "id": "1"}],
        ),
        ToolMessage("That's a great pick!", tool_call_id="1"),
    ]  # fmt: skip
    asked = [
        ([ask(f"What is the value of {magic}(3)? Use the tool.")], [magic], call(magic, input=3)),
        ([ask(f"What is the value of {no_args}()? Use the tool.")], [no_args], call(no_args)),
        (
            [ask("Using the tool, generate a Pirate greeting.")],
            ["greeting_generator"],
            call("greeting_generator", answer_style="pirate"),
        ),
        (adder + used("my_adder_tool", '{"result": 3}', a=1, b=2), ["my_adder_tool"], "It is 3."),
        (
            [*adder, some_text, ToolMessage('{"result": 3}', name="my_adder_tool", tool_call_id="1")],
            ["my_adder_tool"],
            "It is 3.",
        ),
        (
            adder + used("my_adder_tool", "Error: Missing required argument 'b'.", a=1),
            ["my_adder_tool"],
            "I forgot b.",
        ),
        ([*few_shot, ask("What is 3 + 4")], ["my_adder_tool"], call("my_adder_tool", a=3, b=4)),
        ([ask("Hello!")], [magic, "get_weather"], call(magic, input=1)),
        ([ask("Hello!")], [magic], call(magic, input=1)),
        (weather, ["get_weather"], weather_call),
        (
            weather + used("get_weather", "It's sunny.", location="San Francisco, CA"),
            ["get_weather"],
            "Sunny.",
        ),
        (color, ["color_picker"], "Purple it is."),
        ([ask(chinese)], ["unicode_customer"], _customer("你好啊集团", "technology")),
        ([ask(japanese)], ["unicode_customer"], _customer("こんにちは株式会社", "company")),
        ([ask("Say it, then call it.")], ["get_weather"], f"I look it up.\n{weather_call}"),
        ([ask("Call it twice.")], ["get_weather"], f"{weather_call}\n{call('get_weather', location='Rome')}"),
        ([ask("Call it badly.")], ["get_weather"], "<tool_call>\nget_weather(Rome)\n</tool_call>"),
        (
            [ask("Call it in JSON.")],
            ["get_weather"],
            '{"name": "get_weather", "parameters": {"location": "Oslo"}}',
        ),
        ([ask("Say some JSON.")], ["get_weather"], '{"weather": "sunny"}'),
    ]
    return [(messages, {"tools": named(*names)}, answer) for messages, names, answer in asked]


def _customer(name: str, description: str) -> str:
    return call("unicode_customer", customer_name=name, description=description)


def _with_schemas() -> list[tuple[list, dict, str]]:
    question = "Tell me a joke about cats."
    in_json = "Return the result as a JSON with 'setup' and 'punchline' keys. Return nothing other than JSON."
    schemas = [Joke, Joke.model_json_schema(), JokeDict, JokeV1, JokeV1.schema()]
    optional = [OptionalJoke, OptionalJoke.model_json_schema(), OptionalJokeDict]
    told = {json.dumps(convert_to_json_schema(schema)): schema for schema in schemas + optional}
    asked = [
        ([HumanMessage(question)], {"response_format": json_form(schema)}, JOKE) for schema in told.values()
    ]
    form = {"response_format": json_form(OptionalJoke)}
    asked += [
        (
            [HumanMessage("Give me the setup to a joke about cats, no punchline.")],
            form,
            json.dumps({"setup": SETUP}),
        ),
        ([HumanMessage("Give me a joke about cats, include the punchline.")], form, JOKE),
        (
            [HumanMessage(f"{question} {in_json}")],
            {"response_format": {"type": "json_object"}},
            JOKE,
        ),
    ]
    called = call("Joke", setup=SETUP, punchline=PUNCHLINE)
    return [*asked, ([HumanMessage(question)], {"tools": named("Joke")}, called)]


def json_form(schema) -> dict:
    return {"type": "json_schema", "schema": convert_to_json_schema(schema), "strict": True}


NOT_TRUE_HERE = {
    "test_init_from_env": "a model is not a service with keys in the environment",
    "test_serdes": "a file cannot be loaded because a serialized text says so",
    "test_invoke_with_model_override": "one file is one model",
    "test_ainvoke_with_model_override": "one file is one model",
    "test_stream_with_model_override": "one file is one model",
    "test_astream_with_model_override": "one file is one model",
    "test_image_inputs": "text only",
    "test_image_tool_message": "text only",
    "test_pdf_inputs": "text only",
    "test_pdf_tool_message": "text only",
    "test_audio_inputs": "text only",
    "test_stream_time": "it replays a recorded network, and there is no network",
}
"""Standard tests that would skip themselves, with reasons; deselected, because a skip fails in CI."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Deselect them in this folder, and mark the tests that wait for training of the tiny model."""
    ours = [item for item in items if item.path.parent == Path(__file__).parent]
    for item in ours:
        if "trained_path" in item.fixturenames:
            item.add_marker(pytest.mark.real)
    unfit = [item for item in ours if item.originalname in NOT_TRUE_HERE]
    if unfit:
        config.hook.pytest_deselected(items=unfit)
        items[:] = [item for item in items if item not in unfit]


@pytest.fixture(scope="session")
def trained_path(request, tmp_path_factory) -> Path:
    """The file of the tiny model; kept in pytest's cache folder if there is one."""
    sources = [Path(__file__), Path(__file__).with_name("tiny_network.py")]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    cache = getattr(request.config, "cache", None)
    folder = (
        cache.mkdir("tiny-chat-model") if cache is not None else tmp_path_factory.mktemp("tiny-chat-model")
    )
    path = folder / f"tiny-{key}.gguf"
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            make_trained(path, tmp_path_factory.mktemp("training"))
    return path


def make_trained(path: Path, folder: Path, seconds: int = 300) -> None:
    """Two steps: make a file that can tokenize the dialogues, then train it on their tokens."""
    template = folder / "template.txt"
    template.write_text(TEMPLATE)
    run_program(folder / "random.gguf", template)
    chat = ChatLlamaCpp(model_path=str(folder / "random.gguf"), n_ctx=256, n_gpu_layers=0, n_threads=1)
    tokens = {str(pair): pair for dialogue in dialogues() for pair in [as_tokens(chat, *dialogue)]}
    (folder / "dialogues.json").write_text(json.dumps(list(tokens.values())))
    chat.close()
    part = path.with_suffix(".part")
    run_program(part, template, folder / "dialogues.json", seconds)
    part.replace(path)


def run_program(*arguments: object) -> None:
    command = [sys.executable, str(Path(__file__).with_name("tiny_network.py")), *map(str, arguments)]
    subprocess.run(command, check=True, timeout=600)


def as_tokens(chat: ChatLlamaCpp, messages: list, options: dict, answer: str) -> tuple[list[int], list[int]]:
    """The exact prompt tokens for llama.cpp, and the expected answer tokens."""
    engine, generator = chat._engine, chat._generator
    prompt = generator.prompt(generator._template, messages, form_of(chat._options(options)), {})
    return prompt.tokens, [
        *engine.tokenize(answer),
        engine.api.llama_vocab_eos(engine.vocabulary),
    ]


@pytest.fixture(scope="session")
def known() -> dict[str, str]:
    """Answers of the tiny model, by name."""
    return {"haikus": HAIKUS, "setup": SETUP, "punchline": PUNCHLINE}


@pytest.fixture
def trained(trained_path):
    """The tiny model, loaded, with greedy sampling."""
    chat = ChatLlamaCpp(
        model_path=str(trained_path), n_ctx=1024, temperature=0, n_gpu_layers=0, n_threads=1, max_tokens=300
    )
    yield chat
    chat.close()


@pytest.fixture
def make_random(model_folder):
    """A function that loads a llama with random weights, which generates up to the limit."""
    made = []

    def make(**options) -> ChatLlamaCpp:
        path = model_folder / "llama-tiny-Q8_0.gguf"
        usual = {"model_path": str(path), "n_ctx": 1024, "n_gpu_layers": 0, "n_threads": 1, "seed": 1}
        made.append(ChatLlamaCpp(**{**usual, **options}))
        return made[-1]

    yield make
    for chat in made:
        chat.close()


@pytest.fixture(scope="session")
def sentencepiece_path(tmp_path_factory) -> Path:
    """A model with random weights, a sentencepiece vocabulary and no chat template."""
    path = tmp_path_factory.mktemp("sentencepiece") / "sentencepiece.gguf"
    run_program(path, path.with_name("no-template"))
    return path


@pytest.fixture
def spy(monkeypatch):
    """A function that records each result of a llama.cpp function in a list."""

    def watch(name: str) -> list:
        real, results = getattr(llama_cpp.llama_cpp, name), []

        def call(*arguments):
            results.append(real(*arguments))
            return results[-1]

        monkeypatch.setattr(llama_cpp.llama_cpp, name, call)
        return results

    return watch
