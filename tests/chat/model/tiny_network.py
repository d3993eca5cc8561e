"""A program that makes a GGUF of a tiny llama, trained on given dialogues.

    python tiny_network.py OUT.gguf TEMPLATE.txt [DIALOGUES.json SECONDS]

It is a real model file, run by the real llama.cpp: 2 layers, under half a million parameters, which learn the
answers in about half a minute. Without dialogues they are random. DIALOGUES is a list of pairs: the tokens of
a prompt and those of the answer, including its end. If TEMPLATE.txt does not exist, the model has no template
and a sentencepiece vocabulary.
"""

import json
import math
import string
import sys
import time
from pathlib import Path

import torch
from gguf import GGUFWriter, TokenType
from torch.nn import functional

from ggufbench.modelkit.tokenizer import CONTROL_TOKENS, build_vocabulary

VOCABULARY, WIDTH, LAYERS, HEADS, FEED = 512, 128, 2, 4, 256
HEAD = WIDTH // HEADS
KNOWN = 0.3
"""Cross entropy of the worst token: below 0.69 every token is the most likely one."""
CONTEXT, BASE, EPSILON = 4096, 10_000.0, 1e-5


def initial_weights() -> dict[str, torch.Tensor]:
    """Random weights by llama.cpp's tensor names."""
    torch.manual_seed(7)
    shapes = {"token_embd": (VOCABULARY, WIDTH), "output": (VOCABULARY, WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        block = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (WIDTH, WIDTH))
        block |= {"ffn_gate": (FEED, WIDTH), "ffn_up": (FEED, WIDTH), "ffn_down": (WIDTH, FEED)}
        block |= {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,)}
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in block.items()}
    return {
        name: (torch.ones(shape) if len(shape) == 1 else torch.randn(shape) * shape[1] ** -0.5)
        for name, shape in shapes.items()
    }


def rotate(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotate adjacent pairs by the angles of their position, as llama.cpp does for this architecture."""
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def logits(weights: dict[str, torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
    """Forward pass of the network."""

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.rms_norm(x, (WIDTH,), weights[name], EPSILON)

    batch, length = tokens.shape
    frequencies = BASE ** (-torch.arange(0, HEAD, 2) / HEAD)
    angles = torch.arange(length)[:, None] * frequencies
    x = weights["token_embd"][tokens]
    for layer in range(LAYERS):
        at = f"blk.{layer}."
        h = norm(x, at + "attn_norm")
        q, k, v = (
            (h @ weights[at + name].T).view(batch, length, HEADS, HEAD).transpose(1, 2)
            for name in ("attn_q", "attn_k", "attn_v")
        )
        mixed = functional.scaled_dot_product_attention(
            rotate(q, angles), rotate(k, angles), v, is_causal=True
        )
        x = x + mixed.transpose(1, 2).reshape(batch, length, WIDTH) @ weights[at + "attn_output"].T
        h = norm(x, at + "ffn_norm")
        gate, up = h @ weights[at + "ffn_gate"].T, h @ weights[at + "ffn_up"].T
        x = x + (functional.silu(gate) * up) @ weights[at + "ffn_down"].T
    return norm(x, "output_norm") @ weights["output"].T


def train(
    weights: dict[str, torch.Tensor], dialogues: list[tuple[list[int], list[int]]], seconds: float
) -> None:
    """Memorize the answers; stop when every one is known or the time is over."""
    torch.set_num_threads(1)  # the matrices are small: a second thread waits more than it works
    for tensor in weights.values():
        tensor.requires_grad_()
    optimizer = torch.optim.AdamW(weights.values(), lr=3e-3, weight_decay=0.0)
    # Dialogues of similar length share a batch, to reduce padding.
    ordered = sorted(dialogues, key=lambda pair: len(pair[0]) + len(pair[1]))
    batches = [_batch(ordered[start : start + 8]) for start in range(0, len(ordered), 8)]
    end = time.monotonic() + seconds
    step, worst = 0, math.inf
    while time.monotonic() < end:
        worst = 0.0
        for tokens, targets in batches:
            step += 1
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * min(1.0, step / 30)
            each = functional.cross_entropy(
                logits(weights, tokens[:, :-1]).transpose(1, 2), targets, ignore_index=-1, reduction="none"
            )
            loss = each.sum() / (targets >= 0).sum()
            worst = max(worst, each.detach().max().item())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
            optimizer.step()
        if worst < KNOWN:
            return
    raise SystemExit(f"not learnt in {seconds:.0f} s: after {step} steps the worst token costs {worst:.2f}")


def _batch(dialogues: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(len(prompt) + len(answer) for prompt, answer in dialogues)
    tokens = torch.zeros(len(dialogues), length, dtype=torch.long)
    targets = torch.full((len(dialogues), length - 1), -1, dtype=torch.long)
    for row, (prompt, answer) in enumerate(dialogues):
        both = torch.tensor(prompt + answer)
        tokens[row, : len(both)] = both
        targets[row, len(prompt) - 1 : len(both) - 1] = both[len(prompt) :]
    return tokens, targets


def write(path: Path, weights: dict[str, torch.Tensor], template: str | None) -> None:
    """Write the file with 32 bits per weight, so that llama.cpp computes the trained values."""
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny network of the tests")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(BASE)
    if template is None:
        _add_sentencepiece(writer)
    else:
        _add_bytes(writer)
        writer.add_chat_template(template)
    for name, tensor in weights.items():
        writer.add_tensor(f"{name}.weight", tensor.detach().numpy().astype("float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_bytes(writer: GGUFWriter) -> None:
    vocabulary = build_vocabulary(VOCABULARY)
    plain = len(vocabulary.tokens) - len(CONTROL_TOKENS)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types([TokenType.NORMAL] * plain + [TokenType.CONTROL] * len(CONTROL_TOKENS))
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.control_id("<|begin_of_text|>"))
    writer.add_eos_token_id(vocabulary.control_id("<|im_end|>"))
    writer.add_add_bos_token(True)


def _add_sentencepiece(writer: GGUFWriter) -> None:
    """Words include the space before them; every byte is a token too."""
    space = "\N{LOWER ONE EIGHTH BLOCK}"
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), space]
    words = (f"{space}{first}{second}" for first in "bcdfghjklmnpqrstvwxyz" for second in "aeiouy")
    tokens += [*words, *("ÄäÖöß雪é"), *string.ascii_letters, *string.digits, *string.punctuation]
    tokens += [f"<filler {number}>" for number in range(VOCABULARY - len(tokens))]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL] + [TokenType.BYTE] * 256
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(number) for number in range(len(tokens))])
    writer.add_token_types(types + [TokenType.NORMAL] * (len(tokens) - len(types)))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)


def main(out: str, template: str, dialogues: str | None = None, seconds: str = "60") -> None:
    """Run the program (see the module docstring)."""
    weights = initial_weights()
    if dialogues is not None:
        train(weights, json.loads(Path(dialogues).read_text()), float(seconds))
    write(Path(out), weights, Path(template).read_text() if Path(template).exists() else None)


if __name__ == "__main__":
    main(*sys.argv[1:])
