"""Configs of an application; every invalid value is refused in one sentence."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, Field, ValidationError

from ggufbench.chat import LlamaCppModelConfig, ModelConfigError, Provider, TransformersModelConfig, config


def test_the_defaults():
    found = LlamaCppModelConfig(model="owner/name")
    assert found.provider is Provider.LLAMACPP
    assert (found.model_path, found.n_ctx, found.n_gpu_layers, found.n_batch) == ("auto", 4096, -1, 512)
    assert (found.n_threads, found.use_mlock, found.use_mmap) == (None, False, True)
    assert TransformersModelConfig(model="owner/name").provider is Provider.TRANSFORMERS


def test_fields_and_defaults_equal_the_chat_model():
    from ggufbench.chat.model import ChatLlamaCpp

    found = LlamaCppModelConfig(model="owner/name").options()
    assert set(found) <= set(ChatLlamaCpp.model_fields)
    assert found == {name: ChatLlamaCpp.model_fields[name].get_default() for name in found}


def test_json_round_trip_and_immutability():
    found = LlamaCppModelConfig(model="owner/name", stop=["END"], temperature=0, type_k="q8_0")
    assert LlamaCppModelConfig.model_validate_json(found.model_dump_json()) == found
    with pytest.raises(ValidationError):
        found.n_ctx = 1
    assert LlamaCppModelConfig(model="mine", model_path=Path("a.gguf")).model_path == "a.gguf"


REFUSED = [
    ({}, "model is missing; add it"),
    ({"n_ctxx": 1}, "unknown key n_ctxx; did you mean n_ctx?"),
    ({"model": "a/b", "trust_remote_code": True}, "unknown key trust_remote_code; known here: "),
    ({"model": "a/b", "n_ctx": 0}, "n_ctx = 0 is not usable: input should be greater than 0"),
    ({"model": "a/b", "n_ctx": 2**31}, "n_ctx = 2147483648 is not usable: input should be less than"),
    ({"model": "a/b", "n_ctx": True}, "n_ctx = True is not usable"),
    ({"model": "a/b", "n_gpu_layers": -2}, "n_gpu_layers = -2 is not usable"),
    ({"model": "a/b", "n_threads": 0}, "n_threads = 0 is not usable"),
    ({"model": "a/b", "use_mmap": 1}, "use_mmap = 1 is not usable"),
    ({"model": "a/b", "temperature": float("nan")}, "temperature = nan is not usable"),
    ({"model": "a/b", "temperature": -1}, "temperature = -1 is not usable"),
    ({"model": "a/b", "top_p": 1.5}, "top_p = 1.5 is not usable"),
    ({"model": "a/b", "stop": [""]}, "stop = '' is not usable"),
    ({"model": "a/b", "type_k": "q4_k"}, "type_k = 'q4_k' is not usable"),
    ({"model": "a/b", "provider": "transformers", "device": "cpu"}, "'transformers' is invalid for Llama"),
    ({"model": "a/b", "type_v": "q8_0", "flash_attn": False}, 'set flash_attn = "auto"'),
    ({"model": "../b"}, "model = '../b' is not owner/name"),
    ({"model": "a\x1b[2J/b"}, "is not owner/name"),
    ({"model": "a", "model_path": "a.gguf", "quantization": "Q8_0"}, "quantization is only valid with"),
    ({"model": "a/b", "model_path": ""}, "model_path = '' is not usable"),
]  # fmt: skip


@pytest.mark.parametrize(("values", "sentence"), REFUSED, ids=[sentence[:40] for _, sentence in REFUSED])
def test_invalid_config_message(values, sentence):
    with pytest.raises(ModelConfigError) as caught:
        LlamaCppModelConfig(**values)
    assert sentence in str(caught.value)
    assert str(caught.value).isprintable()


def test_config_union_in_application_settings():
    class Settings(BaseModel):
        chat: Annotated[LlamaCppModelConfig | TransformersModelConfig, Field(discriminator="provider")]

    found = Settings.model_validate({"chat": {"provider": "llamacpp", "model": "owner/name", "n_ctx": 64}})
    assert found.chat == LlamaCppModelConfig(model="owner/name", n_ctx=64)
    assert Settings.model_validate_json(found.model_dump_json()) == found
    other = Settings.model_validate({"chat": {"provider": "transformers", "model": "owner/name"}})
    assert isinstance(other.chat, TransformersModelConfig)
    with pytest.raises(ValidationError, match="n_ctx = 0 is not usable"):
        Settings.model_validate({"chat": {"provider": "llamacpp", "model": "owner/name", "n_ctx": 0}})


def test_on_macos_transformers_warns_once(monkeypatch, recwarn):
    """Only the platform name is simulated."""
    config._warn_once.cache_clear()
    TransformersModelConfig(model="owner/name")
    assert not recwarn, "there is no warning on other systems"
    monkeypatch.setattr(sys, "platform", "darwin")
    LlamaCppModelConfig(model="owner/name")
    assert not recwarn
    for _ in range(3):
        TransformersModelConfig(model="owner/name")
    [warning] = recwarn
    assert warning.category is FutureWarning, "which is shown by default, unlike a DeprecationWarning"
    assert "llama.cpp is recommended" in str(warning.message)
    assert 'LlamaCppModelConfig(model="owner/name", model_path="auto")' in str(warning.message)


HEAVY = {"llama_cpp", "langchain_core", "torch", "transformers", "duckdb", "matplotlib", "numpy"}


@pytest.mark.real
@pytest.mark.parametrize(
    "use",
    [
        "import ggufbench.chat",
        "from ggufbench.chat import LlamaCppModelConfig, get_chat_model; LlamaCppModelConfig(model='a/b')",
        "from ggufbench.chat import get_gguf_models_from_cache; get_gguf_models_from_cache()",
    ],
)
def test_imports_are_lazy(use, tmp_path):
    program = f"import sys\n{use}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not HEAVY & set(done.stdout.split())
    if use == "import ggufbench.chat":
        assert "pydantic" not in done.stdout.split()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(ImportError):
        from ggufbench.chat import nothing  # noqa: F401
