"""Tiny GGUFs with random weights, of architectures that `ggufbench synth` does not write."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter

from ggufbench.modelkit.tokenizer import CONTROL_TOKENS, build_vocabulary

VOCABULARY, WIDTH, LAYERS = 512, 32, 2
POSITIONS = 64
STATE, CONVOLVED, RANK, INNER = 4, 4, 8, 64


def write_gpt2(path: Path) -> Path:
    """A GPT-2 with a table of 64 learned positions."""
    writer = _writer(path, "gpt2", POSITIONS)
    writer.add_head_count(2)
    writer.add_feed_forward_length(4 * WIDTH)
    writer.add_layer_norm_eps(1e-5)
    shapes = {"token_embd.weight": (VOCABULARY, WIDTH), "position_embd.weight": (POSITIONS, WIDTH)}
    shapes |= {"output_norm.weight": (WIDTH,), "output_norm.bias": (WIDTH,)}
    matrices = {"attn_qkv": (3, 1), "attn_output": (1, 1), "ffn_up": (4, 1), "ffn_down": (1, 4)}
    for layer in range(LAYERS):
        for name, (rows, length) in matrices.items():
            shapes[f"blk.{layer}.{name}.weight"] = (rows * WIDTH, length * WIDTH)
            shapes[f"blk.{layer}.{name}.bias"] = (rows * WIDTH,)
        for name in ("attn_norm", "ffn_norm"):
            shapes |= {f"blk.{layer}.{name}.weight": (WIDTH,), f"blk.{layer}.{name}.bias": (WIDTH,)}
    return _finish(writer, path, shapes)


def write_mamba(path: Path) -> Path:
    """A recurrent model, whose memory is one state and not a cache of tokens."""
    writer = _writer(path, "mamba", 1024)
    writer.add_head_count(0)
    writer.add_feed_forward_length(0)
    writer.add_ssm_conv_kernel(CONVOLVED)
    writer.add_ssm_inner_size(INNER)
    writer.add_ssm_state_size(STATE)
    writer.add_ssm_time_step_rank(RANK)
    writer.add_layer_norm_rms_eps(1e-5)
    shapes = {"token_embd.weight": (VOCABULARY, WIDTH), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        block = {
            "attn_norm.weight": (WIDTH,), "ssm_in.weight": (2 * INNER, WIDTH),
            "ssm_conv1d.weight": (INNER, CONVOLVED), "ssm_conv1d.bias": (INNER,),
            "ssm_x.weight": (RANK + 2 * STATE, INNER), "ssm_dt.weight": (INNER, RANK),
            "ssm_dt.bias": (INNER,), "ssm_a": (INNER, STATE), "ssm_d": (INNER,),
            "ssm_out.weight": (WIDTH, INNER),
        }  # fmt: skip
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    return _finish(writer, path, shapes)


def _writer(path: Path, architecture: str, context: int) -> GGUFWriter:
    writer = GGUFWriter(path, architecture)
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    vocabulary = build_vocabulary(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types([1] * (VOCABULARY - len(CONTROL_TOKENS)) + [3] * len(CONTROL_TOKENS))
    writer.add_token_merges(vocabulary.merges)
    writer.add_eos_token_id(VOCABULARY - 1)
    return writer


def _finish(writer: GGUFWriter, path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    source = np.random.default_rng(0)
    for name, shape in shapes.items():
        values = source.normal(0, 0.3, shape).astype(np.float32)
        writer.add_tensor(name, -np.abs(values) if name.endswith("ssm_a") else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
