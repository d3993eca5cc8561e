"""Metadata keys of a synthetic GGUF."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggufbench.modelkit.shapes import EXPERTS_USED, SLIDING_WINDOW, Shape
from ggufbench.modelkit.spec import SynthSpec, size_label
from ggufbench.modelkit.tokenizer import CHAT_TEMPLATE, CONTROL_TOKENS, Vocabulary

if TYPE_CHECKING:
    from gguf import GGUFWriter

_FILE_TYPES = {"F16": 1, "Q4_0": 2, "Q8_0": 7, "MXFP4": 38}
# Each as in published models; "llama-bpe" would drop spaces before punctuation when tokens become text again.
_PRE_TOKENIZERS = {"llama": "smollm", "qwen3": "qwen2", "gpt-oss": "gpt-4o"}
_ROPE_BASES = {"llama": 10_000.0, "qwen3": 1_000_000.0, "gpt-oss": 150_000.0}
_GPT_OSS_ORIGINAL_CONTEXT = 4096


def add_metadata(
    writer: GGUFWriter, spec: SynthSpec, quantization: str, shape: Shape, vocabulary: Vocabulary
) -> None:
    """Add every key that llama.cpp needs to load and chat, and those that mark the weights as random."""
    _add_general(writer, spec, quantization)
    _add_dimensions(writer, spec, shape)
    if shape.experts:
        _add_mixture(writer, spec, shape)
    _add_tokenizer(writer, spec, vocabulary)


def _add_general(writer: GGUFWriter, spec: SynthSpec, quantization: str) -> None:
    writer.add_type("model")
    writer.add_name(spec.title)
    writer.add_description(
        "Random weights made by ggufbench to measure load time, memory and speed; its words mean nothing."
    )
    writer.add_size_label(size_label(spec.parameters))
    writer.add_file_type(_FILE_TYPES[quantization])
    writer.add_quantization_version(2)
    writer.add_bool("ggufbench.synthetic", True)
    writer.add_uint32("ggufbench.seed", spec.seed)


def _add_dimensions(writer: GGUFWriter, spec: SynthSpec, shape: Shape) -> None:
    writer.add_context_length(spec.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ff)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(_ROPE_BASES[shape.architecture])


def _add_mixture(writer: GGUFWriter, spec: SynthSpec, shape: Shape) -> None:
    from gguf import RopeScalingType

    writer.add_expert_count(shape.experts)
    writer.add_expert_used_count(EXPERTS_USED)
    writer.add_expert_feed_forward_length(shape.ff)
    writer.add_sliding_window(SLIDING_WINDOW)
    if spec.context > _GPT_OSS_ORIGINAL_CONTEXT:
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(spec.context / _GPT_OSS_ORIGINAL_CONTEXT)
        writer.add_rope_scaling_orig_ctx_len(_GPT_OSS_ORIGINAL_CONTEXT)


def _add_tokenizer(writer: GGUFWriter, spec: SynthSpec, vocabulary: Vocabulary) -> None:
    from gguf import TokenType

    plain = len(vocabulary.tokens) - len(CONTROL_TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_PRE_TOKENIZERS[spec.architecture])
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types([TokenType.NORMAL] * plain + [TokenType.CONTROL] * len(CONTROL_TOKENS))
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.control_id("<|begin_of_text|>"))
    writer.add_eos_token_id(vocabulary.control_id("<|im_end|>"))
    writer.add_pad_token_id(vocabulary.control_id("<|endoftext|>"))
    writer.add_add_bos_token(spec.architecture == "llama")
    writer.add_chat_template(CHAT_TEMPLATE)
