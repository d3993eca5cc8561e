"""Sizes, shapes, vocabularies, and the messages for invalid specs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufbench.errors import GgufbenchError
from ggufbench.modelkit import ModelError, SynthSpec, demo_specs, parse_size, size_label
from ggufbench.modelkit.shapes import fit_shape, parameters, tensors
from ggufbench.modelkit.tokenizer import CONTROL_TOKENS, build_vocabulary, byte_symbols


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("1.1B", 1_100_000_000),
        ("110M", 110_000_000),
        ("500k", 500_000),
        ("2G", 2_000_000_000),
        (" 7 b ", 7_000_000_000),
        ("1100048384", 1_100_048_384),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_sizes_are_read(text, parameters):
    assert parse_size(text) == parameters


@pytest.mark.parametrize(
    "text",
    [
        "",
        "B",
        "1.1",
        "-3M",
        "1e9",
        "0",
        "0B",
        "1.1T",
        "nan",
        "inf",
        "1_000",
        "0.0000001K",
        "\u0661M",
        "1..2B",
    ],
)
def test_bad_sizes_name_the_value_and_an_example(text):
    with pytest.raises(ModelError) as caught:
        parse_size(text)
    assert repr(text) in str(caught.value)
    assert "1.1B" in str(caught.value)
    assert isinstance(caught.value, GgufbenchError)


@given(st.integers(1, 10**12))
def test_size_labels_are_read_back(parameters):
    assert abs(parse_size(size_label(parameters)) / parameters - 1) <= 0.006


@pytest.mark.parametrize(
    ("architecture", "target", "vocabulary", "expected"),
    [
        # Layers, width, feed-forward length, heads, key/value heads of TinyLlama, Qwen3 8B and gpt-oss-20b.
        ("llama", 1_100_000_000, 32_000, (22, 2048, 5632, 32, 4)),
        ("qwen3", 8_200_000_000, 151_936, (36, 4096, 12_288, 32, 8)),
        ("gpt-oss", 20_900_000_000, 201_088, (24, 2880, 2880, 64, 8)),
    ],
)
def test_shapes_of_published_models(architecture, target, vocabulary, expected):
    shape = fit_shape(architecture, target, vocabulary)
    assert (shape.layers, shape.width, shape.ff, shape.heads, shape.kv_heads) == expected


@given(
    st.sampled_from(["llama", "qwen3", "gpt-oss"]),
    st.floats(6.31, 10.3).map(lambda exponent: int(10**exponent)),
    st.sampled_from([512, 1024, 4096]),
)
def test_every_size_has_rows_that_fit_every_type(architecture, target, vocabulary):
    shape = fit_shape(architecture, target, vocabulary)
    assert abs(parameters(shape) / target - 1) <= 0.10
    assert parameters(shape) == sum(tensor.elements for tensor in tensors(shape))
    assert shape.heads % shape.kv_heads == 0
    rows = [tensor.dims[-1] for tensor in tensors(shape) if tensor.kind in ("weight", "expert", "head")]
    assert all(length % 32 == 0 for length in rows)
    if target > 200_000_000 and architecture != "gpt-oss":
        assert all(length % 256 == 0 for length in rows)


def test_fewer_layers_make_a_wider_model_of_the_same_size():
    usual, wide = fit_shape("llama", 90_000_000, 512), fit_shape("llama", 90_000_000, 512, 2)
    assert (wide.layers, wide.width) == (2, 2048)
    assert usual.width < wide.width
    assert parameters(wide) == pytest.approx(90_000_000, rel=0.1)
    with pytest.raises(ModelError, match="number of layers 0 is not between 1 and 1024"):
        SynthSpec("llama", 90_000_000, "Q8_0", layers=0)


def test_vocabulary_too_large_for_the_size():
    with pytest.raises(
        ModelError, match=r"No llama shape has 2M parameters with a vocabulary of 262144 tokens; .* 8\.4M"
    ):
        fit_shape("llama", 2_000_000, 262_144)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": "bert"}, "Unknown architecture 'bert'; known architectures: llama, qwen3, gpt-oss"),
        (
            {"quantization": "Q4_K_X"},
            r"Unknown quantization 'Q4_K_X'; did you mean Q4_K_\w\?; known types: F16",
        ),
        ({"quantization": "zzz"}, "Unknown quantization 'zzz'; known types: F16"),
        ({"quantization": "MXFP4"}, "MXFP4 is a type for experts, and llama has none"),
        ({"quantization": "iq2_xs"}, "IQ2_XS needs an importance matrix"),
        ({"quantization": "Q2_K_S"}, "Q2_K_S needs an importance matrix"),
        ({"vocabulary": 511}, "vocabulary of 511 tokens is not between 512 and 262144"),
        ({"vocabulary": 262_145}, "vocabulary of 262145"),
        ({"context": 0}, "context of 0 tokens"),
        ({"seed": -1}, "seed -1"),
        ({"parameters": 0}, "number of parameters 0"),
    ],
)
def test_specs_that_cannot_be_made(changes, words):
    fields = {"architecture": "llama", "parameters": 3_000_000, "quantization": "Q8_0", **changes}
    with pytest.raises(ModelError, match=words):
        SynthSpec(**fields)


def test_quantization_is_read_in_any_case():
    assert SynthSpec("llama", 3_000_000, " q4_k_m ").quantization == "Q4_K_M"


@pytest.mark.parametrize("size", [512, 513, 32_000, 262_144])
def test_every_token_is_unique_and_made_by_its_merge(size):
    vocabulary = build_vocabulary(size)
    assert len(vocabulary.tokens) == len(set(vocabulary.tokens)) == size
    assert vocabulary.tokens[:256] == byte_symbols()
    assert vocabulary.tokens[-4:] == CONTROL_TOKENS
    known = set(byte_symbols())
    for token, merge in zip(vocabulary.tokens[256:-4], vocabulary.merges, strict=True):
        left, right = merge.split(" ")
        assert left in known
        assert right in known
        assert left + right == token
        known.add(token)


def test_demo_names():
    assert [name for name, _ in demo_specs()] == [
        "synthetic-llama-110m-Q8_0.gguf",
        "synthetic-llama-110m-Q4_K_M.gguf",
        "synthetic-qwen3-60m-Q8_0.gguf",
        "synthetic-gpt-oss-100m-MXFP4.gguf",
    ]
