"""transformers as a chat model, with a tiny real checkpoint."""

import json
import shutil
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from ggufbench.chat import TransformersModelConfig, get_chat_model
from ggufbench.chat.errors import ChatModelError
from ggufbench.chat.transformers_model import CheckpointNotFoundError, until


@pytest.fixture(scope="module")
def model(checkpoint):
    return get_chat_model(
        TransformersModelConfig(model="tiny", model_path=checkpoint, temperature=0, max_tokens=40)
    )


QUESTION = [SystemMessage("Be brief."), HumanMessage([{"type": "text", "text": "What?"}]), AIMessage("That."),
            HumanMessage("And now?")]  # fmt: skip


def test_it_answers_and_streams_the_same(model):
    answer = model.invoke(QUESTION)
    chunks = list(model.stream(QUESTION))
    assert answer.content
    assert "".join(chunk.content for chunk in chunks) == answer.content
    assert len(chunks) > 2
    assert answer.response_metadata["finish_reason"] == "length"
    used = answer.usage_metadata
    assert used["output_tokens"] == 40
    assert used["total_tokens"] == used["input_tokens"] + 40
    assert sum(chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata) == 40


def test_token_counts_follow_the_template(model, checkpoint):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    written = tokenizer.apply_chat_template(
        [{"role": "user", "content": "And now?"}], add_generation_prompt=True
    )
    assert model.invoke("And now?").usage_metadata["input_tokens"] == len(written["input_ids"])


async def collect(stream):
    return [chunk async for chunk in stream]


def test_it_streams_without_blocking_a_loop(model):
    import asyncio

    chunks = asyncio.run(collect(model.astream("And now?")))
    assert "".join(chunk.content for chunk in chunks) == model.invoke("And now?").content


def test_a_stop_text_ends_the_answer_and_is_left_out(model):
    whole = model.invoke("And now?").content
    stop = whole[5:8]
    cut = model.invoke("And now?", stop=[stop])
    assert cut.content == whole[: whole.index(stop)]
    assert cut.response_metadata["finish_reason"] == "stop"
    assert "".join(chunk.content for chunk in model.stream("And now?", stop=[stop])) == cut.content


def test_a_stream_that_is_closed_stops_working(model):
    before = threading.active_count()
    stream = model.stream("And now?")
    next(stream)
    stream.close()
    assert threading.active_count() == before
    assert model.invoke("And now?").content, "and the next question is answered"


def test_too_long_prompt_message(model):
    with pytest.raises(ChatModelError, match="the model has 256; shorten"):
        model.invoke("x" * 2000)


def test_unknown_arguments_are_refused(model):
    with pytest.raises(ChatModelError, match="does not support reasoning"):
        model.invoke("And now?", reasoning=True)
    with pytest.raises(NotImplementedError):
        model.bind_tools([])


def test_a_repository_in_the_cache_answers_by_its_name(hub, checkpoint):
    hub.add("owner/name", {path.name: path for path in checkpoint.iterdir()})
    config = TransformersModelConfig(model="Owner/name", device="cpu", dtype="float32", max_tokens=3)
    assert get_chat_model(config).invoke("And now?").usage_metadata["output_tokens"] <= 3
    with pytest.raises(CheckpointNotFoundError, match="no safetensors of owner/other in "):
        get_chat_model(TransformersModelConfig(model="owner/other"))


def changed(checkpoint, tmp_path, **config):
    folder = tmp_path / "changed"
    shutil.copytree(checkpoint, folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder


def refusal(folder) -> str:
    with pytest.raises(ChatModelError) as caught:
        get_chat_model(TransformersModelConfig(model="x", model_path=folder))
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_code_and_pickles_of_a_checkpoint_are_never_loaded(checkpoint, tmp_path):
    traps = {
        "auto_map": {"AutoConfig": "trap.Config", "AutoModelForCausalLM": "trap.Model"},
        "model_type": "trap",
    }
    folder = changed(checkpoint, tmp_path, **traps)
    (folder / "trap.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    refusal(folder)
    assert not (tmp_path / "ran").exists()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "neither model.safetensors" in refusal(folder)
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    (folder / "adapter_config.json").write_text("{}")
    assert "adapter_config.json" in refusal(folder)


def test_missing_weights_are_refused(checkpoint, tmp_path):
    assert "weights are not in its files" in refusal(changed(checkpoint, tmp_path, num_hidden_layers=3))


def test_a_checkpoint_without_a_template_is_refused(checkpoint, tmp_path):
    folder = changed(checkpoint, tmp_path)
    (folder / "chat_template.jinja").unlink()
    assert "has no chat template" in refusal(folder)
    assert "config.json is missing" in refusal(tmp_path / "nothing")


@given(st.text("ab.", max_size=12), st.lists(st.text("ab.", min_size=1, max_size=3), max_size=3), st.data())
def test_stop_text_across_piece_boundaries(text, stops, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    given_out = "".join(until(iter(pieces), stops))
    assert not any(stop in given_out for stop in stops)
    assert text.startswith(given_out)
    if not any(stop in text for stop in stops):
        assert given_out == text
