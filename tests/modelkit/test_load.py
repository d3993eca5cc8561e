"""Every kind of file loads and computes in llama.cpp."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import gguf
import pytest

from ggufbench.modelkit import SynthSpec, demo_specs, make_demo_models, synthesize

pytestmark = pytest.mark.real

ARCHITECTURES = ("llama", "qwen3", "gpt-oss")
DIRECT = [(architecture, kind) for architecture in ARCHITECTURES for kind in ("F16", "Q8_0", "Q4_0")]
DIRECT.append(("gpt-oss", "MXFP4"))

# Requested type: llama.cpp's name of it, and the type of most of the weights.
QUANTIZED = {
    "Q2_K": ("Q2_K - Medium", "Q2_K"),
    "Q3_K_S": ("Q3_K - Small", "Q3_K"),
    "Q3_K_M": ("Q3_K - Medium", "Q3_K"),
    "Q3_K_L": ("Q3_K - Large", "Q3_K"),
    "Q4_1": ("Q4_1", "Q4_1"),
    "Q4_K_S": ("Q4_K - Small", "Q4_K"),
    "Q4_K_M": ("Q4_K - Medium", "Q4_K"),
    "Q5_0": ("Q5_0", "Q5_0"),
    "Q5_1": ("Q5_1", "Q5_1"),
    "Q5_K_S": ("Q5_K - Small", "Q5_K"),
    "Q5_K_M": ("Q5_K - Medium", "Q5_K"),
    "Q6_K": ("Q6_K", "Q6_K"),
    "IQ4_NL": ("IQ4_NL - 4.5 bpw", "IQ4_NL"),
    "IQ4_XS": ("IQ4_XS - 4.25 bpw", "IQ4_XS"),
}
USUAL = ("Q2_K", "Q4_K_M", "Q5_1", "IQ4_XS")
"""One of each family; the others are tested by `make test-all`."""


def commonest_type(path: Path) -> str:
    weights = [each for each in gguf.GGUFReader(path).tensors if each.tensor_type.name != "F32"]
    return Counter(each.tensor_type.name for each in weights).most_common(1)[0][0]


def assert_computes(facts: dict, parameters: int) -> None:
    assert facts["finite"]
    assert 0.3 < facts["deviation"] < 3, "logits as large as those of a trained model"
    assert len(set(facts["greedy"])) > 3, "a digest of the output must be able to differ"
    assert not facts["ended"], "greedy output must not end by chance"
    assert abs(facts["parameters"] / parameters - 1) <= 0.10
    assert [line for line in facts["warnings"] if "full-size SWA cache" not in line] == []


@pytest.mark.parametrize(("architecture", "quantization"), DIRECT)
def test_written_types_load_and_decode(architecture, quantization, make, probe):
    path = make(architecture, 10_000_000, quantization, vocabulary=4096, context=16_384)
    facts = probe(path)
    assert_computes(facts, 10_000_000)
    assert facts["type"] == ("MXFP4 MoE" if quantization == "MXFP4" else quantization)
    assert facts["vocabulary"] == 4096
    assert facts["context"] == 16_384
    assert facts["window"] == (128 if architecture == "gpt-oss" else 0)


@pytest.mark.parametrize(
    "quantization",
    [name if name in USUAL else pytest.param(name, marks=pytest.mark.nightly) for name in QUANTIZED],
)
def test_quantized_types_load_and_decode(quantization, make, probe):
    path = make("llama", 10_000_000, quantization, vocabulary=4096)
    facts = probe(path)
    assert_computes(facts, 10_000_000)
    assert (facts["type"], commonest_type(path)) == QUANTIZED[quantization]
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("architecture", ["qwen3", "gpt-oss"])
def test_other_architectures_quantize(architecture, make, probe):
    facts = probe(make(architecture, 20_000_000, "Q4_K_M", vocabulary=4096))
    assert_computes(facts, 20_000_000)
    assert facts["type"] == "Q4_K - Medium"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tiny_models_with_rows_that_256_does_not_divide(architecture, make, probe):
    facts = probe(make(architecture, 2_000_000, "Q4_0", vocabulary=512))
    assert facts["finite"]
    assert abs(facts["parameters"] / 2_000_000 - 1) <= 0.10


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tokenization_round_trip(architecture, make, probe):
    dice = random.Random(7)
    planes = [chr(code) for code in range(1, 0x11_0000) if not 0xD800 <= code < 0xE000]
    texts = (
        "Hello, wörld! It's 12,345.67 — 你好世界 🙂👩‍👩‍👧‍👦 नमस्ते שלום\n\n\ttabs  and   spaces \r\n",
        "The nation and the others went with you.",
        *("".join(dice.choices(planes, k=dice.randint(1, 60))) for _ in range(60)),
        *("".join(dice.choices("aeiou thns.,'🙂é中 \n", k=80)) for _ in range(20)),
    )
    facts = probe(make(architecture), texts)
    assert facts["texts"] == list(texts)
    assert len(facts["tokens"][1]) < 0.6 * len(texts[1]), "prose takes fewer tokens than bytes"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_chat_template_uses_control_tokens(architecture, make, probe):
    facts = probe(make(architecture))
    assert facts["chat"]["prompt"] == (
        "<|im_start|>user\nGood day, ångström!<|im_end|>\n<|im_start|>assistant\n"
    )
    assert facts["chat"]["tokens"].count(facts["eos"]) == 1
    assert facts["chat"]["tokens"].count(facts["eos"] - 1) == 2
    assert (facts["bos"], facts["eos"]) == (1020, 1023)


@pytest.mark.parametrize("size", [512, 262_144])
def test_smallest_and_largest_vocabulary_load(size, make, probe):
    facts = probe(make("llama", 12_000_000, vocabulary=size), ("words 🙂",))
    assert facts["vocabulary"] == size
    assert facts["texts"] == ["words 🙂"]


@pytest.mark.nightly
def test_demo_models_are_made_once_and_load(tmp_path, probe):
    seen: list[str] = []
    paths = make_demo_models(tmp_path, lambda name, done, total: seen.append(name))
    assert [path.name for path in paths] == [name for name, _ in demo_specs()]
    for path, (_, spec) in zip(paths, demo_specs(), strict=True):
        assert_computes(probe(path), spec.parameters)
    seen.clear()
    times = [path.stat().st_mtime_ns for path in paths]
    assert make_demo_models(tmp_path, lambda name, done, total: seen.append(name)) == paths
    assert [path.stat().st_mtime_ns for path in paths] == times
    assert seen == []


@pytest.mark.parametrize(
    ("parameters", "exactly", "layers"),
    [
        (250_000_000, 252_742_656, 17),
        pytest.param(1_100_000_000, 1_100_048_384, 22, marks=pytest.mark.nightly),
    ],
)
def test_large_model_takes_little_memory_to_write(tmp_path, probe, parameters, exactly, layers):
    path = tmp_path / "large.gguf"
    code = (
        "import sys, pathlib, ggufbench.modelkit as kit;"
        "kit.synthesize(pathlib.Path(sys.argv[1]), kit.SynthSpec('llama', int(sys.argv[2]), 'Q8_0'));"
        "print(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1]"
        " if sys.platform == 'linux' else 0)"
    )
    command = [sys.executable, "-c", code, str(path), str(parameters)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 120_000
    facts = probe(path)
    assert facts["parameters"] == exactly
    assert facts["layers"] == layers


@pytest.mark.nightly
def test_large_model_quantizes(tmp_path, probe):
    path = synthesize(tmp_path / "large.gguf", SynthSpec("llama", 1_100_000_000, "Q4_K_M"))
    assert 600 < path.stat().st_size / 2**20 < 700
    assert probe(path)["finite"]
