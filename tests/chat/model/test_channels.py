"""Control tokens of gpt-oss and Granite in a real file; each test chooses the tokens of the answer itself."""

import gguf
import pytest
from langchain_core.tools import tool

from ggufbench.chat import completion
from ggufbench.chat.model import ChatLlamaCpp

NAMES = ("start", "channel", "message", "constrain", "end", "call", "return", "tool_call")
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}"
    "{% if tools %}{% endif %}<|start|>assistant{# <|channel|> #}"
)
THINKS = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:\n<think>\n"


@tool
def get_weather(location: str) -> str:
    """The weather of a place."""
    return f"sunny in {location}"


@pytest.fixture(scope="module")
def channels_path(model_folder, tmp_path_factory):
    """The tiny llama with these control tokens instead of some of its words."""
    path = tmp_path_factory.mktemp("channels") / "channels.gguf"
    reader = gguf.GGUFReader(model_folder / "llama-tiny-Q8_0.gguf")
    writer = gguf.GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value, kind = field.contents(), field.types[0]
        if field.name == "tokenizer.ggml.tokens":
            value[300 : 300 + len(NAMES)] = [f"<|{name}|>" for name in NAMES]
        elif field.name == "tokenizer.ggml.token_type":
            value[300 : 300 + len(NAMES)] = [gguf.TokenType.CONTROL] * len(NAMES)
        elif field.name == "tokenizer.chat_template":
            value = TEMPLATE
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, kind, inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def say(channels_path, monkeypatch):
    """A function that makes the model say a text: the text's tokens are sampled, whatever their logits."""
    chat = ChatLlamaCpp(model_path=str(channels_path), n_ctx=512, n_gpu_layers=0, n_threads=1)

    def script(text: str, **options):
        tokens = [*chat.get_token_ids(text), chat._engine.api.llama_vocab_eos(chat._engine.vocabulary)]

        class Script:
            ignores_end = False

            def __init__(self, *_arguments):
                self.next = iter(tokens).__next__

            def close(self):
                """Nothing to free."""

        monkeypatch.setattr(completion, "Sampler", Script)
        return chat.bind(**options)

    yield script
    chat.close()


def test_channels_of_control_tokens_are_separated(say):
    chat = say(
        "<|channel|>analysis<|message|>We need 2+2.<|end|><|start|>assistant<|channel|>final<|message|>4"
    )
    chunks = list(chat.stream("2+2"))
    for answer in (chat.invoke("2+2"), sum(chunks[1:], chunks[0])):
        assert answer.content == "4"
        assert answer.additional_kwargs == {"reasoning_content": "We need 2+2."}
    assert len([chunk for chunk in chunks if chunk.additional_kwargs]) > 3, "reasoning is streamed"


def test_call_in_a_channel(say):
    text = (
        "<|channel|>analysis<|message|>Look it up.<|end|><|start|>assistant<|channel|>commentary "
        'to=functions.get_weather <|constrain|>json<|message|>{"location": "Rome"}'
    )
    chat = say(text)
    answer = chat.bound.bind_tools([get_weather]).invoke("Weather?")
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [
        ("get_weather", {"location": "Rome"})
    ]
    assert (answer.content, answer.response_metadata["finish_reason"]) == ("", "tool_calls")


def test_control_token_before_a_call_is_read_only_with_tools(say):
    chat = say('<|tool_call|>[{"name": "get_weather", "arguments": {"location": "Rome"}}]').bound
    answer = chat.bind_tools([get_weather]).invoke("Weather?")
    assert [call["args"] for call in answer.tool_calls] == [{"location": "Rome"}]
    assert answer.content == ""
    assert chat.invoke("Weather?").content.startswith('[{"name"'), "without tools it is hidden"


def test_json_is_demanded_after_the_block_that_the_template_opens(make_random):
    chat = make_random(chat_template=THINKS, temperature=2, max_tokens=200)
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    form = {"type": "json_schema", "schema": schema}
    prompts = []
    real = chat._engine.prompt_tokens
    chat._engine.prompt_tokens = lambda text: prompts.append(text) or real(text)
    answer = chat.invoke("x", response_format=form)
    assert prompts[0].endswith("assistant:\n<think>\n\n</think>\n\n")
    assert set(chat.with_structured_output(schema | {"title": "Ok"}).invoke("x")) == {"ok"}
    assert "reasoning_content" not in answer.additional_kwargs
    chat.invoke("x", max_tokens=1)
    assert prompts[-1].endswith("<think>"), "without a form it stays open"
