"""From a config to answers: the provider as used by an application, with real files and libraries."""

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage

from ggufbench.chat import (
    GgufNotFoundError,
    LlamaCppModelConfig,
    TransformersModelConfig,
    get_chat_model,
    get_gguf_models_from_cache,
    providers,
)

SHORT = {"n_ctx": 256, "n_threads": 1, "temperature": 0.0, "max_tokens": 12}


@pytest.fixture
def close():
    """A function that returns the model and closes it after the test."""
    opened = []

    def keep(model):
        opened.append(model)
        return model

    yield keep
    for model in opened:
        model.close()


def test_chat_by_repository_name(hub, quantized, close):
    """The second program of the documentation's test plan."""
    hub.add("owner/name", {"name-Q4_0.gguf": quantized("Q4_0"), "name-Q8_0.gguf": quantized("Q8_0")})
    model = close(get_chat_model(LlamaCppModelConfig(model="owner/name", model_path="auto", **SHORT)))
    assert isinstance(model, BaseChatModel)
    assert model.model_path.endswith("/name-Q4_0.gguf")
    answer = model.invoke([SystemMessage("Be brief."), HumanMessage("What is a GGUF?")])
    assert answer.content
    assert answer.usage_metadata["output_tokens"] <= 12
    pieces = [
        chunk.content for chunk in model.stream([SystemMessage("Be brief."), HumanMessage("What is a GGUF?")])
    ]
    assert len(pieces) > 2
    assert "".join(pieces) == answer.content


def test_a_split_model_answers(hub, split, close):
    hub.add("owner/name", {path.name: path for path in split})
    assert close(get_chat_model(LlamaCppModelConfig(model="owner/name", **SHORT))).invoke("Hello").content


def test_a_row_of_the_picker_answers(hub, quantized, close):
    hub.add("owner/name", {"name-Q4_0.gguf": quantized("Q4_0")})
    [row] = get_gguf_models_from_cache()
    assert close(get_chat_model(row.config(**SHORT))).invoke("Hello").content


def test_every_field_reaches_the_chat_model(quantized, close):
    values = {
        "n_ctx": 128, "n_gpu_layers": 0, "n_batch": 64, "n_threads": 1, "use_mlock": False, "use_mmap": False,
        "flash_attn": True, "type_k": "q8_0", "type_v": "q8_0", "temperature": 0.5, "top_p": 0.9, "top_k": 7,
        "min_p": 0.1, "repeat_penalty": 1.2, "max_tokens": 3, "stop": ["END"], "seed": 4,
        "chat_template": "{{ messages[0].content + mood }}", "chat_template_kwargs": {"mood": "!"},
            "verbose": True,
    }  # fmt: skip
    config = LlamaCppModelConfig(model="mine", model_path=quantized("Q4_0"), **values)
    assert set(config.options()) == set(values), "a field that this test does not know"
    model = close(get_chat_model(config))
    assert {name: getattr(model, name) for name in values} == values


def test_missing_model_message(hub):
    with pytest.raises(GgufNotFoundError, match="ggufbench pull owner/name --quant Q8_0"):
        get_chat_model(LlamaCppModelConfig(model="owner/name", quantization="Q8_0"))
    with pytest.raises(ValueError, match=r"nothing\.gguf"):
        get_chat_model(LlamaCppModelConfig(model="mine", model_path="~/nothing.gguf"))
    with pytest.raises(TypeError, match="dict is not a config"):
        get_chat_model({})


def test_missing_library_message(hub, monkeypatch):
    """Simulated: the libraries are installed."""
    monkeypatch.setattr(providers, "find_spec", lambda _name: None)
    with pytest.raises(
        ImportError, match=r'llama_cpp and langchain_core; .*"ggufbench\[llamacpp,langchain\]"'
    ):
        get_chat_model(LlamaCppModelConfig(model="owner/name"))
    with pytest.raises(ImportError, match=r'"ggufbench\[transformers,langchain\]"'):
        get_chat_model(TransformersModelConfig(model="owner/name"))
