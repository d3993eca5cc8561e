"""Hugging Face caches in the layout of the hub's library, with real GGUFs, and records about them."""

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from ggufbench.discovery import discover
from ggufbench.machine.facts import read_machine
from ggufbench.measuring.record_builder import identify
from ggufbench.modelkit import SynthSpec, synthesize
from ggufbench.outcomes import Outcome
from ggufbench.records.store import new_run_id, read_record, write_record

FIRST = Path(__file__).parents[1] / "fixtures" / "results" / "first" / "llama-1.1b-Q4_K_M-cpu.json"
NEW = "0" * 39 + "2"
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


class Hub:
    """A cache that revisions can be added to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def repository(self, name: str) -> Path:
        return self.folder / f"models--{name.replace('/', '--')}"

    def add(self, name: str, files: dict[str, Path], commit: str = NEW, *, main: bool = True) -> Path:
        """Add a revision with these files: blobs named by their hash, and relative links to them."""
        repository = self.repository(name)
        snapshot = repository / "snapshots" / commit
        for folder in (snapshot, repository / "blobs", repository / "refs"):
            folder.mkdir(parents=True, exist_ok=True)
        for wanted, source in files.items():
            with source.open("rb") as file:
                blob = repository / "blobs" / hashlib.file_digest(file, "sha256").hexdigest()
            if not blob.exists():
                shutil.copy(source, blob)
            link = snapshot / wanted
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
        if main:
            (repository / "refs" / "main").write_text(commit)
        return snapshot


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    """An empty cache, set in the environment, so that the cache of this machine is not used."""
    home = tmp_path / "home"
    home.mkdir()
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "GGUFBENCH_RESULTS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.chdir(home)
    return Hub(tmp_path / "hf" / "hub")


@pytest.fixture(scope="session")
def quantized(tmp_path_factory) -> Callable[[str], Path]:
    """A function that makes a real llama of two million random weights in a quantization."""
    folder = tmp_path_factory.mktemp("quantized")

    def make(quantization: str, *, seed: int = 0, context: int = 2048) -> Path:
        path = folder / f"tiny-{seed}-{context}-{quantization}.gguf"
        if not path.exists():
            spec = SynthSpec("llama", 2_000_000, quantization, vocabulary=512, seed=seed, context=context)
            synthesize(path, spec)
        return path

    return make


@pytest.fixture(scope="session")
def split(quantized, tmp_path_factory) -> list[Path]:
    """The same llama as Q8_0 in several parts that llama.cpp can load."""
    folder = tmp_path_factory.mktemp("split")
    reader = gguf.GGUFReader(quantized("Q8_0"))
    writer = gguf.GGUFWriter(folder / "tiny-Q8_0.gguf", "llama", split_max_tensors=8)
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("*.gguf"))


@pytest.fixture(scope="session")
def no_models(tmp_path_factory) -> dict[str, Path]:
    """Valid GGUFs that are not language models, by kind."""
    folder = tmp_path_factory.mktemp("no-models")
    found = {}
    sizes = ("bert.block_count", "bert.context_length", "bert.embedding_length")
    for what, architecture, values in (
        ("mmproj", "clip", {"general.type": "mmproj"}),
        ("adapter", "llama", {"general.type": "adapter", "adapter.type": "lora"}),
        ("imatrix", "llama", {"general.type": "imatrix"}),
        ("embedding", "bert", dict.fromkeys(sizes, 64)),
        ("vocabulary", "llama", {"llama.block_count": 2, "llama.context_length": 64}),
    ):
        # The name contains the preferred quantization, because names must not decide.
        found[what] = folder / f"{what}-Q4_K_M.gguf"
        writer = gguf.GGUFWriter(found[what], architecture)
        for key, value in values.items():
            add = writer.add_string if isinstance(value, str) else writer.add_uint32
            add(key, value)
        if what != "vocabulary":
            writer.add_tensor("blk.0.attn_q.weight", np.zeros((64, 64), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return found


@pytest.fixture(scope="session")
def note() -> Callable[..., Path]:
    """A function that stores a record about a file: a real record with other names and figures."""
    base, machine = read_record(FIRST), read_machine()

    def store(results: Path, path: Path, rate=None, outcome="measured", **changes) -> Path:
        [model] = discover([path]).models
        decode = "decode_tokens_per_second"
        measured = {**base.summary, decode: replace(base.summary[decode], median=rate)} if rate else {}
        values = {
            "run_id": new_run_id(),
            "case_id": model.label,
            "model": identify(model),
            "machine": machine,
            "outcome": Outcome(outcome),
            "summary": measured,
        }
        return write_record(results, base.model_copy(update={**values, **changes}))

    return store


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A llama with random weights and a byte tokenizer, saved by transformers."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    control = ["<s>", "</s>"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=control, initial_alphabet=letters)
    tokenizer.train_from_iterator(["which model shall answer this question"], trainer)
    ends = dict(zip(("bos_token", "eos_token"), control, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ends)
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(21)  # weights whose words are short: transformers streams whole words
    shape = LlamaConfig(
        vocab_size=len(fast), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
        bos_token_id=fast.bos_token_id, eos_token_id=fast.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(folder)
    return folder
