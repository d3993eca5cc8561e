"""Loading: refusals, applied settings, and no output from llama.cpp."""

import subprocess
import sys
from pathlib import Path

import pytest
from gguf import GGUFWriter
from langchain_core.messages import ChatMessage, HumanMessage

from ggufbench.chat.model import ChatLlamaCpp, ChatModelError


def refusal(*arguments, **options) -> str:
    """The message with which a model is refused."""
    with pytest.raises(ChatModelError) as caught:
        ChatLlamaCpp(*arguments, **options)
    message = str(caught.value)
    assert message.isprintable()
    assert message.endswith((".", "?"))
    assert len(message) < 500
    return message


@pytest.fixture(scope="session")
def tiny_path(model_folder) -> Path:
    return model_folder / "llama-tiny-Q8_0.gguf"


class TestFiles:
    def test_a_missing_file(self, tmp_path):
        message = refusal(model_path=str(tmp_path / "no\x1b[2Jne.gguf"))
        assert "no_[2Jne.gguf does not exist; `ggufbench models` lists" in message

    def test_a_folder(self, tmp_path):
        assert "is a folder; name the GGUF file in it" in refusal(model_path=str(tmp_path))

    def test_invalid_file(self, tmp_path):
        (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04" + bytes(1000))
        assert "x.gguf cannot be used: " in refusal(model_path=str(tmp_path / "x.gguf"))

    def test_truncated_file(self, tiny_path, tmp_path):
        (tmp_path / "cut.gguf").write_bytes(tiny_path.read_bytes()[:-4096])
        assert "cut.gguf cannot be used: " in refusal(model_path=str(tmp_path / "cut.gguf"))

    def test_projector_and_later_shards(self, tmp_path):
        for name, keys, why in (
            ("mmproj.gguf", {"general.architecture": "clip"}, "a multimodal projector"),
            (
                "x-00002-of-00003.gguf",
                {"split.no": 1, "split.count": 3},
                "part 2 of 3 of a model: a model is loaded by its first",
            ),
            ("adapter.gguf", {"general.type": "adapter"}, "a LoRA adapter"),
        ):
            writer = GGUFWriter(tmp_path / name, "clip")
            writer.kv_data[0].clear()
            for key, value in keys.items():
                writer.add_string(key, value) if isinstance(value, str) else writer.add_uint16(key, value)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
            message = refusal(model_path=str(tmp_path / name))
            assert f"{name} cannot be used: {why}" in message

    def test_models_that_do_not_chat(self, encoder_folder):
        for name, kind in (
            ("bert-mean", "an embedding"),
            ("bert-rank", "a reranker"),
            ("t5", "an encoder-d"),
        ):
            message = refusal(model_path=str(encoder_folder / f"{name}-F32.gguf"))
            assert f"{name}-F32.gguf cannot be used: {kind}" in message

    def test_defect_found_only_by_llama_cpp(self, tmp_path):
        """The header is valid but a weight is missing: the reason comes from llama.cpp."""
        writer = GGUFWriter(tmp_path / "x.gguf", "llama")
        writer.add_context_length(64)
        writer.add_embedding_length(32)
        writer.add_block_count(1)
        writer.add_feed_forward_length(32)
        writer.add_head_count(1)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_tokenizer_model("no such tokenizer")
        import numpy

        writer.add_tensor("blk.0.attn_norm.weight", numpy.ones(32, numpy.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        message = refusal(model_path=str(tmp_path / "x.gguf"))
        assert "llama.cpp cannot load" in message
        assert "(llama.cpp: " in message


class TestSettings:
    def test_an_unknown_name(self, tiny_path):
        message = refusal(model_path=str(tiny_path), n_gpu_layer=1)
        assert message == "unknown key n_gpu_layer; did you mean n_gpu_layers?"
        assert "model_path is missing" in refusal()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("n_ctx", 0), ("n_ctx", 2**31), ("n_batch", 0), ("n_threads", 0), ("n_gpu_layers", -2),
            ("temperature", -1), ("temperature", float("nan")), ("top_p", 2), ("top_k", -1), ("min_p", -0.1),
            ("repeat_penalty", 0), ("max_tokens", 0), ("seed", -1), ("stop", [""]), ("type_k", "q3_k"),
            ("flash_attn", "sometimes"), ("chat_template", ""),
        ],
    )  # fmt: skip
    def test_a_value_out_of_range(self, tiny_path, name, value):
        message = refusal(model_path=str(tiny_path), **{name: value})
        assert message.startswith(name)
        assert "is not usable: " in message

    def test_quantized_v_cache_needs_flash_attention(self, tiny_path):
        message = refusal(model_path=str(tiny_path), type_v="q8_0", flash_attn=False)
        assert message == 'type_v = "q8_0" needs flash attention; set flash_attn = "auto".'

    def test_a_context_beyond_memory(self, tiny_path):
        message = refusal(model_path=str(tiny_path), n_ctx=2**31 - 1, n_gpu_layers=0)
        assert message.startswith("n_ctx = 2147483647 needs ")
        assert "MiB are free; load it with a smaller n_ctx." in message

    def test_settings_are_applied(self, tiny_path):
        chat = ChatLlamaCpp(model_path=str(tiny_path), n_ctx=512, n_batch=64, n_threads=1, n_gpu_layers=0)
        api, context = chat._engine.api, chat._engine.context
        assert api.llama_n_ctx(context) == 512
        assert api.llama_n_batch(context) == 64
        assert api.llama_n_threads(context) == api.llama_n_threads_batch(context) == 1

    def test_prompt_of_several_batches(self, make_random):
        answers = []
        for size in (32, 512):
            chat = make_random(n_batch=size, temperature=0)
            answers.append(chat.invoke("Hello " * 60, max_tokens=8))
            assert answers[-1].usage_metadata["input_tokens"] > 3 * 32
        assert answers[0].content == answers[1].content

    @pytest.mark.parametrize(
        "options",
        [
            {"type_k": "q8_0", "type_v": "q4_0"}, {"type_k": "bf16", "type_v": "f32", "flash_attn": False},
            {"flash_attn": True}, {"use_mmap": False}, {"use_mlock": True},
            {"use_mmap": False, "use_mlock": True},
        ],
    )  # fmt: skip
    def test_every_kind_of_loading_answers(self, tiny_path, options):
        usual = {"model_path": str(tiny_path), "n_ctx": 256, "n_threads": 1, "n_gpu_layers": 0}
        chat = ChatLlamaCpp(**usual, temperature=0, **options)
        assert chat.invoke("Hello", max_tokens=4).usage_metadata["output_tokens"] == 4
        chat.close()


class TestQuestions:
    def test_a_prompt_that_does_not_fit(self, make_random):
        chat = make_random(n_ctx=256)
        with pytest.raises(ChatModelError, match=r"takes \d{5} tokens and the context of \S+ has 256; "):
            chat.invoke("Hello " * 2000)
        assert chat.invoke("Hello", max_tokens=1)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"temprature": 1}, r"unknown key temprature; did you mean temperature\?"),
            ({"temperature": "hot"}, "temperature = 'hot' is not usable"),
            ({"model": "other"}, "unknown key model; known here: temperature"),
            ({"max_tokens": -1}, "max_tokens = -1 is not usable"),
        ],
    )
    def test_unknown_options(self, make_random, options, message):
        with pytest.raises(ChatModelError, match=message):
            make_random().invoke("Hello", **options)

    @pytest.mark.parametrize(
        "block",
        [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            {"type": "image", "base64": "AAAA", "mime_type": "image/png"},
            {"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"},
            {"type": "no\x1b[2Jthing"},
        ],
    )
    def test_non_text_content(self, make_random, block):
        with pytest.raises(ChatModelError, match="this model reads text only; send text") as caught:
            make_random().invoke([HumanMessage([{"type": "text", "text": "What is this?"}, block])])
        assert str(caught.value).isprintable()

    def test_text_parts_are_joined(self, trained):
        parts = HumanMessage([{"type": "text", "text": "Hel"}, "lo"])
        assert trained.invoke([parts]).content == "Hello! What shall we do?"
        assert (
            trained.invoke([ChatMessage(role="user", content="Hello")]).content == "Hello! What shall we do?"
        )


PROGRAM = """
import sys
from ggufbench.chat.model import ChatLlamaCpp, ChatModelError
path, verbose = sys.argv[1], sys.argv[2] == "verbose"
chat = ChatLlamaCpp(model_path=path, n_ctx=256, n_threads=1, verbose=verbose, max_tokens=3)
chat.invoke("Hello")
try:
    chat.invoke("Hello", response_format={"type": "json_schema", "schema": {"type": "no such thing"}})
except ChatModelError:
    pass
try:
    ChatLlamaCpp(model_path=sys.argv[3], verbose=verbose)
except ChatModelError:
    pass
"""

COLLECTOR = """
import sys
from llama_cpp import llama_cpp as api
lines = []
collect = api.llama_log_callback(lambda level, text, data: lines.append(text))
api.llama_log_set(collect, None)
from ggufbench.chat.model import ChatLlamaCpp
ChatLlamaCpp(model_path=sys.argv[1], n_ctx=256, n_threads=1)
assert any(b"load_tensors" in line for line in lines)
"""

OFFLOAD = """
import sys
from ggufbench.worker.native import Library
library = Library(whole_package=True)
library.add_rpc_servers(sys.argv[2])
from ggufbench.chat.model import ChatLlamaCpp
for layers in (0, -1):
    library.log.drain()
    chat = ChatLlamaCpp(model_path=sys.argv[1], n_ctx=256, n_threads=1, n_gpu_layers=layers, temperature=0)
    chat.invoke("Hello", max_tokens=4)
    lines = library.log.drain()
    found = ["RPC" in line for line in lines]
    print(layers, sum("assigned to device RPC" in line for line in lines), sum(found))
"""


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


class TestNativeOutput:
    @pytest.mark.real
    def test_llama_cpp_prints_nothing(self, tiny_path, tmp_path):
        (tmp_path / "broken.gguf").write_bytes(b"GGUF" + bytes(100))
        done = run(PROGRAM, tiny_path, "quiet", tmp_path / "broken.gguf")
        assert done.stdout == done.stderr == ""

    @pytest.mark.real
    def test_verbose_prints_the_log(self, tiny_path, tmp_path):
        done = run(PROGRAM, tiny_path, "verbose", tmp_path / "none.gguf")
        assert done.stdout == ""
        assert "load_tensors" in done.stderr

    @pytest.mark.real
    def test_earlier_log_callback_still_gets_lines(self, tiny_path):
        assert run(COLLECTOR, tiny_path).stderr == ""


@pytest.mark.gpu
def test_zero_gpu_layers_uses_only_the_cpu(tiny_path, rpc_server):
    """The device is llama.cpp's own RPC backend on loopback, which counts as a GPU."""
    nothing, everything = run(OFFLOAD, tiny_path, rpc_server).stdout.splitlines()
    assert nothing == "0 0 0"
    layers, assigned, _ = everything.split()
    assert layers == "-1"
    assert int(assigned) > 1
