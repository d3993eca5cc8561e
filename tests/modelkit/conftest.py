from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from ggufbench.modelkit import SynthSpec, synthesize
from ggufbench.modelkit.blocks import tensor_type
from ggufbench.modelkit.metadata import add_metadata
from ggufbench.modelkit.shapes import fit_shape, tensors
from ggufbench.modelkit.tokenizer import build_vocabulary

Probe = Callable[..., dict[str, Any]]
Make = Callable[..., Path]

PROBE = Path(__file__).with_name("probe.py")


@pytest.fixture(scope="session")
def probe() -> Probe:
    """Load a file with llama.cpp in a fresh process, decode, tokenize `texts`; returns a report."""

    def run(path: Path, texts: tuple[str, ...] = ()) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, str(PROBE), str(path)],
            input=json.dumps(texts),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        )
        assert done.returncode == 0, f"llama.cpp ended with {done.returncode}: {done.stderr[-2000:]}"
        return json.loads(done.stdout)

    return run


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a small model and return its path."""

    def run(
        architecture: str = "llama", parameters: int = 3_000_000, quantization: str = "Q8_0", **fields: Any
    ) -> Path:
        fields = {"vocabulary": 1024, **fields}
        spec = SynthSpec(architecture, parameters, quantization, **fields)
        return synthesize(tmp_path / f"{architecture}-{quantization}-{fields.get('seed', 0)}.gguf", spec)

    return run


@pytest.fixture
def ggufbench(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs `ggufbench` in an empty folder and checks for tracebacks and escapes."""
    here = tmp_path / "here"
    here.mkdir()

    def run(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "ggufbench.cli", *map(str, arguments)],
            cwd=here,
            env={**os.environ, "COLUMNS": "200", **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def refused(ggufbench) -> Callable[..., str]:
    """A function that returns the error sentence of an invalid request."""

    def run(*arguments: object, **env: str) -> str:
        done = ggufbench(*arguments, **env)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("ggufbench: ")
        return done.stderr

    return run


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A function that starts `ggufbench` without waiting; it is terminated after the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: object, **env: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ggufbench.cli", *map(str, arguments)]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def float_model(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes an F16 llama with gguf's writer: in several parts, or without some tensors."""

    def write(name: str = "split-F16", parts_of: int = 0, without: tuple[str, ...] = ()) -> Path:
        spec = SynthSpec("llama", 3_000_000, "F16", vocabulary=1024)
        shape = fit_shape("llama", spec.parameters, spec.vocabulary)
        folder = tmp_path / "float"
        folder.mkdir(exist_ok=True)
        writer = gguf.GGUFWriter(folder / f"{name}.gguf", "llama", split_max_tensors=parts_of)
        random = np.random.default_rng(0)
        add_metadata(writer, spec, "F16", shape, build_vocabulary(spec.vocabulary))
        for tensor in tensors(shape):
            if tensor.name not in without:
                kind = np.float16 if tensor_type(tensor, "F16") == "F16" else np.float32
                writer.add_tensor(tensor.name, (random.standard_normal(tensor.dims) / 16).astype(kind))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return sorted(folder.glob(f"{name}*.gguf"))[0]

    return write


TEXT = (
    "the model reads a file and answers in tokens while the clock counts every second of the prompt "
    "and the memory that it holds"
)
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}\n{% endfor %}"
    "<|assistant|>\n"
)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama with random weights as safetensors, with a sentencepiece tokenizer trained on our text."""
    import sentencepiece
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny-llama"
    folder.mkdir()
    words = TEXT.split()
    lines = (" ".join(words[i * k % len(words)] for k in range(1, 12)) for i in range(1, 400))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "tokenizer"), vocab_size=320,
        model_type="bpe", byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer.vocab").unlink()
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizer", "chat_template": TEMPLATE})
    )
    torch.manual_seed(0)
    vocabulary = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")).vocab_size()
    # Rows of 256 and 512: the blocks of K-quants divide them.
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=256, intermediate_size=512, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder
