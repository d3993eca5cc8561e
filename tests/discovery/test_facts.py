"""Facts compared with values computed by hand, and every reason to reject a file."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from ggufbench.discovery import Model, Rejected, discover, facts, names
from ggufbench.discovery.model import AttentionShape, KvShape


def only(path) -> Model | Rejected:
    found = discover([path])
    (entry,) = (*found.models, *found.rejected)
    return entry


def model(kit, path, values, tensors) -> Model:
    entry = only(kit.write(path, values, tensors))
    assert isinstance(entry, Model), entry
    return entry


def refused(kit, path, values, tensors) -> str:
    entry = only(kit.write(path, values, tensors))
    assert isinstance(entry, Rejected), entry
    assert entry.reason
    assert entry.reason.isprintable()
    return entry.reason


# A row of 256 elements takes 144 bytes as Q4_K and 210 as Q6_K.
_BLOCK = 2 * 256 * 144 + 2 * 128 * 144 + 2 * 512 * 144 + 256 * 2 * 144
_TOTAL = 1000 * 144 + 1000 * 210 + 1024 + 2 * (_BLOCK + 2048)


def test_llama(kit, tmp_path):
    path = tmp_path / "Tiny-Llama-Q4_K_M.gguf"
    got = model(kit, path, kit.llama_values(), kit.llama_tensors())
    assert (got.name, got.quantization, got.label) == ("Tiny-Llama", "Q4_K_M", "Tiny-Llama-Q4_K_M")
    assert (got.path, got.shards, got.source, got.repository) == (path, (path,), "path", None)
    assert (got.architecture, got.layers, got.trained_context, got.vocabulary) == ("llama", 2, 4096, 5)
    assert got.parameters == 2 * 256_000 + 256 + 2 * (2 * 65_536 + 2 * 32_768 + 3 * 131_072 + 512)
    assert got.file_size_bytes == path.stat().st_size
    assert got.tensor_bytes == _TOTAL
    assert got.decode_bytes_per_token == _TOTAL - 999 * 144  # one row of the token table
    assert got.repack_bytes == 2 * _BLOCK
    assert got.kv == KvShape(full_k=2 * 2 * 64, full_v=2 * 2 * 64, sliding_k=0, sliding_v=0)
    assert (got.experts, got.experts_used, got.sliding_window) == (0, 0, 0)
    assert got.chat_template
    assert not got.synthetic
    assert len(got.identity) == 16


def test_prompt_parameters(kit, tmp_path):
    attention, feed_forward = 2 * 65_536 + 2 * 32_768, 3 * 131_072
    got = model(kit, tmp_path / "x.gguf", kit.llama_values(), kit.llama_tensors())
    # No table, no head, and only the attention of the last layer: the rest runs for the last token only.
    assert got.prompt_parameters == 2 * attention + feed_forward
    assert got.attention == AttentionShape(full=2 * 4 * (64 + 64), sliding=0)
    tied = model(kit, tmp_path / "tied.gguf", kit.llama_values(), kit.llama_tensors(tied=True))
    assert tied.prompt_parameters == got.prompt_parameters


def test_prompt_excludes_draft_layers_and_towers(kit, tmp_path):
    values = kit.llama_values(llama__nextn_predict_layers=1)
    tensors = [
        *kit.llama_tensors(),
        ("v.patch.weight", (256, 8), "F32"),
        ("nextn.proj.weight", (256, 8), "F32"),
    ]
    got = model(kit, tmp_path / "x.gguf", values, tensors)
    assert got.prompt_parameters == 2 * 65_536 + 2 * 32_768
    assert got.attention.full == 4 * 128


def test_tied_embeddings_are_read_whole(kit, tmp_path):
    got = model(kit, tmp_path / "x.gguf", kit.llama_values(), kit.llama_tensors(tied=True))
    assert got.decode_bytes_per_token == got.tensor_bytes == _TOTAL - 1000 * 210
    assert got.repack_bytes == 2 * _BLOCK


def test_qwen3(kit, tmp_path):
    values = kit.llama_values("qwen3", general__file_type=7, ggufbench__synthetic=True)
    values |= {"qwen3.attention.key_length": 128, "qwen3.attention.value_length": 96}
    del values["tokenizer.chat_template"], values["tokenizer.ggml.tokens"]
    tensors = [
        ("token_embd.weight", (256, 100), "Q8_0"),
        ("output.weight", (256, 100), "Q8_0"),
        ("blk.0.attn_q.weight", (256, 512), "Q8_0"),
        ("blk.0.attn_q_norm.weight", (128,), "F32"),
        ("blk.1.attn_q.weight", (256, 512), "Q8_0"),
    ]
    got = model(kit, tmp_path / "qwen3.gguf", values, tensors)
    row = 256 // 32 * 34
    assert got.quantization == "Q8_0"
    assert got.decode_bytes_per_token == row + 100 * row + 2 * 512 * row + 512
    assert got.repack_bytes == 0
    assert got.kv == KvShape(2 * 2 * 128, 2 * 2 * 96, 0, 0)
    assert got.synthetic
    assert not got.chat_template
    assert got.vocabulary == 0


def gpt_oss(**more):
    return {
        "general.architecture": "gpt-oss",
        "general.file_type": 38,
        "gpt-oss.block_count": 4,
        "gpt-oss.context_length": 131_072,
        "gpt-oss.embedding_length": 64,
        "gpt-oss.attention.head_count": 8,
        "gpt-oss.attention.head_count_kv": 2,
        "gpt-oss.attention.key_length": 64,
        "gpt-oss.attention.value_length": 64,
        "gpt-oss.attention.sliding_window": 128,
        "gpt-oss.expert_count": 8,
        "gpt-oss.expert_used_count": 2,
        **more,
    }


GPT_OSS_TENSORS = [
    ("token_embd.weight", (64, 512), "Q8_0"),
    ("output.weight", (64, 512), "Q8_0"),
    ("blk.0.ffn_up_shexp.weight", (64, 32), "Q8_0"),
    *(
        (f"blk.{block}.{name}", dims, kind)
        for block in range(4)
        for name, dims, kind in [
            ("attn_norm.weight", (64,), "F32"),
            ("attn_q.weight", (64, 512), "Q8_0"),
            ("ffn_gate_inp.weight", (64, 8), "F32"),
            ("ffn_gate_exps.weight", (64, 32, 8), "MXFP4"),
            ("ffn_gate_exps.bias", (32, 8), "F32"),
            ("ffn_up_exps.weight", (64, 32, 8), "MXFP4"),
            ("ffn_down_exps.weight", (32, 64, 8), "MXFP4"),
        ]
    ),
]


def test_gpt_oss(kit, tmp_path):
    got = model(kit, tmp_path / "gpt-oss-mxfp4.gguf", gpt_oss(), GPT_OSS_TENSORS)
    experts = 3 * 64 * 32 * 8 // 32 * 17
    assert (got.name, got.quantization) == ("gpt-oss", "MXFP4")
    assert (got.experts, got.experts_used, got.sliding_window) == (8, 2, 128)
    assert got.repack_bytes == 4 * experts
    # one row, the head, the shared expert, and per layer a quarter of the experts with their bias
    assert got.decode_bytes_per_token == 68 + 512 * 68 + 32 * 68 + 4 * (
        experts // 4 + 1024 // 4 + 512 * 68 + 256 + 2048
    )
    # layers 0 and 2 slide, 1 and 3 are full
    assert got.kv == KvShape(2 * 128, 2 * 128, 2 * 128, 2 * 128)


def test_a_prompt_of_a_mixture_uses_the_chosen_experts(kit, tmp_path):
    got = model(kit, tmp_path / "x.gguf", gpt_oss(), GPT_OSS_TENSORS)
    layer = 64 * 512 + 64 * 8 + 3 * 64 * 32 * 2  # two of eight experts, and no biases
    # gpt-oss drops no token before its last layer has ended.
    assert got.prompt_parameters == 4 * layer + 64 * 32
    assert got.attention == AttentionShape(full=2 * 8 * 128, sliding=2 * 8 * 128)


def test_experts_used_per_layer(kit, tmp_path):
    values = gpt_oss(**{"gpt-oss.expert_used_count": [1, 2, 4, 8]})
    got = model(kit, tmp_path / "x.gguf", values, GPT_OSS_TENSORS)
    experts = 3 * 64 * 32 * 8 // 32 * 17 + 1024
    others = 68 + 512 * 68 + 32 * 68 + 4 * (512 * 68 + 256 + 2048)
    assert got.experts_used == 8
    assert got.decode_bytes_per_token - others == experts // 8 + experts // 4 + experts // 2 + experts


def test_rows_of_other_tables_and_drafting_layers(kit, tmp_path):
    values = kit.llama_values(llama__nextn_predict_layers=1)
    tensors = [
        *kit.llama_tensors(),
        ("per_layer_token_embd.weight", (256, 50), "Q4_K"),
        ("v.patch.weight", (256, 8), "F32"),
    ]
    got = model(kit, tmp_path / "x.gguf", values, tensors)
    assert got.decode_bytes_per_token == 144 + 210_000 + 1024 + _BLOCK + 2048 + 144
    assert got.repack_bytes == 2 * _BLOCK
    assert got.kv.full_k == 128


def kv_of(kit, tmp_path, arch, layers=6, **keys) -> tuple[KvShape, int]:
    values = {
        "general.architecture": arch,
        f"{arch}.block_count": layers,
        f"{arch}.context_length": 100,
        f"{arch}.embedding_length": 64,
        f"{arch}.attention.head_count": 4,
        f"{arch}.attention.head_count_kv": 1,
        **{f"{arch}.{key.replace('__', '.')}": value for key, value in keys.items()},
    }
    got = model(kit, tmp_path / "x.gguf", values, [("token_embd.weight", (64, 8), "F16")])
    return got.kv, got.sliding_window


@pytest.mark.parametrize(
    ("arch", "layers", "keys", "full", "sliding"),
    [
        ("llama", 6, {}, 6, 0),
        ("llama", 6, {"attention__sliding_window": 32}, 6, 0),  # its pattern is not known
        ("phi3", 6, {"attention__sliding_window": 32, "attention__sliding_window_pattern": 2}, 6, 0),
        ("gemma2", 6, {"attention__sliding_window": 32}, 3, 3),
        ("gemma3", 13, {"attention__sliding_window": 32}, 2, 11),
        ("gemma3", 6, {"attention__sliding_window": 32, "attention__sliding_window_pattern": 3}, 2, 4),
        ("gemma3", 6, {}, 6, 0),
        ("gemma3n", 25, {"attention__sliding_window": 32}, 4, 16),  # 20 layers have a cache
        (
            "gemma4",
            6,
            {"attention__sliding_window": 32, "attention__sliding_window_pattern": [True] * 5 + [False]},
            1,
            5,
        ),
        (
            "gemma4",
            6,
            {
                "attention__sliding_window": 32,
                "attention__sliding_window_pattern": [True, False] * 3,
                "attention__shared_kv_layers": 2,
            },
            2,
            2,
        ),
        ("smallthinker", 6, {"attention__sliding_window": 32}, 2, 4),  # the first of four is full
        ("llama4", 8, {}, 2, 6),
        ("llama4", 8, {"attention__sliding_window": 0}, 8, 0),
        ("deepseek4", 6, {"attention__sliding_window": 32}, 0, 6),
        ("qwen3next", 8, {}, 2, 0),
        ("qwen35", 8, {"full_attention_interval": 2}, 4, 0),
        ("qwen35", 3, {"attention__recurrent_layers": [True, False, True]}, 1, 0),
        ("mamba", 6, {}, 0, 0),
        ("lfm2", 3, {"attention__head_count_kv": [0, 2, 0]}, 2, 0),
        ("llama", 6, {"nextn_predict_layers": 2}, 4, 0),
    ],
)
def test_kv_by_layers(kit, tmp_path, arch, layers, keys, full, sliding):
    shape, window = kv_of(kit, tmp_path, arch, layers, **keys)
    assert shape == KvShape(16 * full, 16 * full, 16 * sliding, 16 * sliding)
    assert (window > 0) == (sliding > 0)


def test_kv_heads_per_layer_and_lengths(kit, tmp_path):
    shape, _ = kv_of(
        kit,
        tmp_path,
        "gemma3",
        6,
        attention__head_count_kv=[1, 2, 3, 4, 5, 6],
        attention__sliding_window=8,
        attention__key_length=10,
        attention__value_length=20,
        attention__key_length_swa=3,
    )
    assert shape == KvShape(6 * 10, 6 * 20, 15 * 3, 15 * 20)


def test_kv_of_latent_attention(kit, tmp_path):
    shape, _ = kv_of(
        kit,
        tmp_path,
        "deepseek2",
        3,
        attention__key_length_mla=192,
        attention__value_length_mla=128,
        attention__key_length=576,
        attention__value_length=512,
        attention__kv_lora_rank=512,
    )
    assert shape == KvShape(3 * 576, 0, 0, 0)
    shape, _ = kv_of(
        kit,
        tmp_path,
        "deepseek2",
        3,
        attention__key_length_mla=192,
        attention__kv_lora_rank=512,
        rope__dimension_count=64,
    )
    assert shape == KvShape(3 * 576, 0, 0, 0)


def test_attention_of_latent_and_cache_sharing_layers(kit, tmp_path):
    def attention(arch, layers, **keys):
        values = {
            "general.architecture": arch,
            f"{arch}.block_count": layers,
            f"{arch}.context_length": 100,
            f"{arch}.embedding_length": 64,
            f"{arch}.attention.head_count": 4,
            f"{arch}.attention.head_count_kv": 1,
            **{f"{arch}.attention.{key}": value for key, value in keys.items()},
        }
        return model(kit, tmp_path / "x.gguf", values, [("token_embd.weight", (64, 8), "F16")]).attention

    latent = attention("deepseek2", 3, key_length_mla=192, key_length=576, kv_lora_rank=512)
    assert latent == AttentionShape(full=3 * 4 * (576 + 512), sliding=0)
    # 25 layers attend, although only 20 have a cache; every fifth has full attention.
    borrowing = attention("gemma3n", 25, sliding_window=32)
    assert borrowing == AttentionShape(full=5 * 4 * 32, sliding=20 * 4 * 32)
    assert attention("mamba", 3) == AttentionShape(0, 0)
    assert attention("lfm2", 3, head_count_kv=[0, 2, 0]) == AttentionShape(full=4 * 32, sliding=0)


def test_kv_heads_default_to_the_query_heads(kit, tmp_path):
    values = kit.llama_values()
    del values["llama.attention.head_count_kv"]
    assert model(kit, tmp_path / "x.gguf", values, kit.llama_tensors()).kv.full_k == 2 * 4 * 64


@pytest.mark.parametrize(
    ("file_type", "kinds", "expected"),
    [
        (15, ["Q4_K", "Q6_K"], "Q4_K_M"),
        (14, ["Q4_K", "Q6_K"], "Q4_K_S"),
        (1024 + 17, ["Q5_K"], "Q5_K_M"),
        (15, ["Q8_0", "Q8_0", "Q8_0", "Q4_K"], "Q4_K_M"),  # a small model: most rows do not fit into K blocks
        (15, ["Q8_0"], "Q8_0"),
        (1, ["Q4_0"], "Q4_0"),
        (0, ["F32"], "F32"),
        (0, ["Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q8_0", "F32"], "Q8_0"),  # a router stays F32
        (25, ["IQ4_NL"], "IQ4_NL"),
        (30, ["IQ4_XS"], "IQ4_XS"),
        (32, ["BF16"], "BF16"),
        (38, ["MXFP4", "Q8_0"], "MXFP4"),
        (999, ["Q6_K"], "Q6_K"),
        (None, ["Q5_1"], "Q5_1"),
        (-1, ["Q5_1"], "Q5_1"),
        ("15", ["Q5_1"], "Q5_1"),
        (True, ["Q5_1"], "Q5_1"),
        (2.5, ["Q5_1"], "Q5_1"),
    ],
)
def test_quantization(kit, tmp_path, file_type, kinds, expected):
    values = kit.llama_values(general__file_type=file_type)
    if file_type is None:
        del values["general.file_type"]
    tensors = [(f"t{n}.weight", (256, 64), kind) for n, kind in enumerate(kinds)]
    norms = [("big_norm.weight", (1 << 20,), "F32")]
    assert model(kit, tmp_path / "x-Q2_K.gguf", values, tensors + norms).quantization == expected


@pytest.mark.parametrize(("stem", "expected"), [("x-Q3_K_L", "Q3_K_L"), ("x", "unknown")])
def test_quantization_by_name_is_the_last_resort(kit, tmp_path, stem, expected):
    values = kit.llama_values(general__file_type=999)
    assert model(kit, tmp_path / f"{stem}.gguf", values, [("n", (256,), "F32")]).quantization == expected


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("x-Q4_K_M", "Q4_K_M"),
        ("x-UD-Q4_K_XL", "UD-Q4_K_XL"),
        ("x-ud-q4_k_xl", "UD-Q4_K_XL"),
        ("x-UD-Q4_K_XL-00001-of-00001", "UD-Q4_K_XL"),
        ("x-Q4_K_L", "Q4_K_L"),
        ("x.i1-Q4_K_M", "i1-Q4_K_M"),
        ("x-Q4_0_4_4", "Q4_0_4_4"),
        ("x-MXFP4_MOE", "MXFP4_MOE"),
        ("x-Q4_K_L-imat", "Q4_K_L"),
        ("x-Q4_K_S", "Q4_K_M"),  # a name of llama.cpp that contradicts its file type
        ("x-IQ4_XS", "Q4_K_M"),
        ("x-UD-Q5_K_XL", "Q4_K_M"),
        ("x-F16", "Q4_K_M"),
        ("Q4-2024-report", "Q4_K_M"),
        ("x", "Q4_K_M"),
    ],
)
def test_quantization_by_name_if_it_is_more_precise(kit, tmp_path, stem, expected):
    """Each file has the file type of Q4_K_M; publishers name their own mixtures."""
    values, tensors = kit.llama_values(), kit.llama_tensors()
    assert model(kit, tmp_path / f"{stem}.gguf", values, tensors).quantization == expected


def test_quantization_by_name_of_another_type_than_stated(kit, tmp_path):
    """The tensors are those of the name, and not those of the file type, which has the nearest one."""
    tensors = [("a.weight", (256, 640), "IQ4_XS"), ("b.weight", (256, 64), "Q4_0")]
    values = kit.llama_values(general__file_type=2)
    assert model(kit, tmp_path / "x-IQ4_XS.gguf", values, tensors).quantization == "IQ4_XS"


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("Qwen3-8B-Q4_K_M", "Qwen3-8B"),
        ("qwen2.5-0.5b-instruct-q8_0", "qwen2.5-0.5b-instruct"),
        ("llama.Q8_0", "llama"),
        ("phi_IQ4_NL", "phi"),
        ("phi-IQ3_XXS", "phi"),
        ("gemma-F16", "gemma"),
        ("gemma-bf16", "gemma"),
        ("gpt-oss-20b-MXFP4", "gpt-oss-20b"),
        ("gpt-oss-20b-mxfp4_moe", "gpt-oss-20b"),
        ("Qwen3-30B-A3B-UD-Q4_K_XL", "Qwen3-30B-A3B"),
        ("model.i1-Q4_K_S", "model"),
        ("big-Q4_K_M-00001-of-00003", "big"),
        ("big-00001-of-00003", "big"),
        ("old-Q4_0_4_4", "old"),
        ("bit-TQ1_0", "bit"),
        ("Llama-3.2-1B", "Llama-3.2-1B"),
        ("Phi-3-mini-4k", "Phi-3-mini-4k"),
        ("Q4_K_M", "Q4_K_M"),
        ("-Q4_K_M", "-Q4_K_M"),
        ("evil\x1b[31m\nname", "evil__31m_name"),
        ("../../etc", ".._.._etc"),
        ("模型-7B", "模型-7B"),
        ("a\u202eb", "a_b"),
        ("\udcff", "_"),
        ("   ", "model"),
        ("", "model"),
        ("n" * 300, "n" * 80),
    ],
)
def test_names(stem, name):
    assert names.model_name(stem) == name


def test_ollama_names():
    assert names.ollama_name(("registry.ollama.ai", "library", "llama3.2", "1b")) == "llama3.2-1b"
    assert names.ollama_name(("registry.ollama.ai", "library", "qwen3", "latest")) == "qwen3"
    assert names.ollama_name(("registry.ollama.ai", "library", "qwen3", "8b-q4_K_M")) == "qwen3-8b"
    assert names.ollama_name(("hf.co", "owner", "Foo-GGUF", "Q4_K_M")) == "Foo-GGUF"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"general.type": "mmproj"}, "multimodal projector"),
        ({"general.architecture": "clip"}, "multimodal projector"),
        ({"general.type": "adapter", "adapter.type": "lora"}, "LoRA adapter"),
        ({"adapter.type": "lora"}, "LoRA adapter"),
        ({"general.type": "imatrix"}, "importance matrix"),
        ({"general.architecture": "controlvector"}, "control vector"),
        ({"llama.pooling_type": 5}, "llama.pooling_type is 5, and llama.cpp knows 0 to 4"),
        ({"general.architecture": "dream"}, "diffusion"),
        ({"general.architecture": "wavtokenizer-dec"}, "speech"),
        ({"general.architecture": "eagle3"}, "draft model"),
        ({"general.architecture": "dflash"}, "draft model"),
        ({"llama.nextn_predict_layers": 2}, "draft model"),
        ({"split.no": 1, "split.count": 3}, "part 2 of 3"),
        ({"split.count": 3}, "the first of 3 parts, but its name does not end in -00001-of-00003.gguf"),
        ({"general.architecture": None}, "general.architecture is missing"),
        ({"general.architecture": ""}, "general.architecture is missing"),
        ({"general.architecture": 5}, "general.architecture is a whole number"),
        ({"llama.block_count": None}, "llama.block_count is missing"),
        ({"llama.block_count": 0}, "llama.block_count is 0"),
        ({"llama.block_count": "2"}, "llama.block_count is a text"),
        ({"llama.block_count": -1}, "llama.block_count is -1"),
        ({"llama.block_count": 2**63 - 1 - 2**64}, "llama.block_count is -9"),
        ({"llama.block_count": 2**32 - 1}, "from 0 to 4096"),
        ({"llama.block_count": float("nan")}, "llama.block_count is a number with a fraction"),
        ({"llama.embedding_length": None}, "llama.embedding_length is missing"),
        ({"llama.context_length": None}, "llama.context_length is missing"),
        ({"llama.context_length": [1, 2]}, "llama.context_length is an array"),
        ({"llama.attention.head_count": [1]}, "1 elements for 2 layers"),
        ({"llama.nextn_predict_layers": 3}, "more than the 2 layers"),
        ({"llama.expert_used_count": 3}, "more than the 0 experts"),
    ],
)
def test_refusals(kit, tmp_path, change, sentence):
    values = {key: value for key, value in (kit.llama_values() | change).items() if value is not None}
    if values.get("llama.block_count") == 2**63 - 1 - 2**64:
        values["llama.block_count"] = kit.Raw(11, (2**63).to_bytes(8, "little"))
    assert sentence in refused(kit, tmp_path / "x.gguf", values, kit.llama_tensors())


@pytest.mark.parametrize(
    ("arch", "more", "kind", "pooling", "cached"),
    [
        ("llama", {}, "generator", "none", True),
        ("llama", {"pooling_type": 0}, "generator", "none", True),
        ("llama", {"pooling_type": 2**32 - 1}, "generator", "none", True),
        ("llama", {"attention.causal": True}, "generator", "none", True),
        ("llama", {"attention.causal": False}, "embedding", "none", True),
        ("qwen3", {"pooling_type": 3}, "embedding", "last", True),
        ("qwen3", {"pooling_type": 4}, "reranker", "rank", True),
        ("bert", {}, "embedding", "none", False),
        ("bert", {"pooling_type": 2}, "embedding", "cls", False),
        ("nomic-bert-moe", {"pooling_type": 1}, "embedding", "mean", False),
        ("jina-bert-v2", {"pooling_type": 4}, "reranker", "rank", False),
        ("gemma-embedding", {"pooling_type": 1}, "embedding", "mean", False),
        ("t5encoder", {}, "embedding", "none", True),
        ("t5", {}, "encoder-decoder", "none", True),
    ],
)
def test_kinds_of_models(kit, tmp_path, arch, more, kind, pooling, cached):
    values = kit.llama_values(arch) | {f"{arch}.{key}": value for key, value in more.items()}
    found = model(kit, tmp_path / "x.gguf", values, kit.llama_tensors())
    assert (found.kind, found.pooling, found.kv.full_k > 0) == (kind, pooling, cached)


def test_prompt_weights_of_encoders(kit, tmp_path):
    """Vectors need every token in every layer, and the head of a reranker runs once for a sequence."""
    tensors = [*kit.llama_tensors(), ("cls.weight", (256, 256), "F32")]
    whole, cut = 2 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 512), 3 * 256 * 512
    plain = model(kit, tmp_path / "a.gguf", kit.llama_values(), tensors[:-1])
    ranked = kit.llama_values() | {"llama.pooling_type": 4}
    assert plain.prompt_parameters == whole - cut
    assert model(kit, tmp_path / "b.gguf", ranked, tensors).prompt_parameters == whole


def test_the_two_parts_of_an_encoder_decoder(kit, tmp_path):
    """A prompt is read by `enc.`; a token is decoded by the rest, with the tied token table."""
    tensors = [
        ("token_embd.weight", (256, 1000), "F32"), ("enc.blk.0.attn_q.weight", (256, 256), "F32"),
        ("enc.blk.0.attn_rel_b.weight", (4, 32), "F32"), ("dec.blk.0.attn_q.weight", (256, 256), "F32"),
        ("dec.blk.0.cross_attn_k.weight", (256, 128), "F32"),
    ]  # fmt: skip
    found = model(kit, tmp_path / "t5.gguf", kit.llama_values("t5"), tensors)
    assert found.prompt_parameters == 256 * 256
    assert found.decode_bytes_per_token == 4 * (256 * 1000 + 256 * 256 + 256 * 128)


def test_windows_of_encoders(kit, tmp_path):
    values = kit.llama_values("modern-bert") | {
        "modern-bert.block_count": 6, "modern-bert.attention.sliding_window": 128,
    }  # fmt: skip
    found = model(kit, tmp_path / "m.gguf", values, kit.llama_tensors())
    assert found.sliding_window == 128
    assert found.attention.full == 2 * 4 * 128 and found.attention.sliding == 4 * 4 * 128


def test_only_a_vocabulary(kit, tmp_path):
    assert refused(kit, tmp_path / "v.gguf", kit.llama_values(), []).startswith("only a vocabulary")


def test_files_without_the_usual_keys(kit, tmp_path):
    keys = {"imatrix.chunk_count": 5, "imatrix.datasets": ["wiki"]}
    assert "importance matrix" in refused(kit, tmp_path / "a.gguf", keys, [("x.in_sum2", (32,), "F32")])
    keys = {"controlvector.model_hint": "llama", "controlvector.layer_count": 3}
    assert "control vector" in refused(kit, tmp_path / "b.gguf", keys, [("direction.1", (32,), "F32")])


def test_an_unknown_architecture_is_left_to_the_library(kit, tmp_path):
    values = kit.llama_values("brand\x1b-new")
    assert model(kit, tmp_path / "x.gguf", values, kit.llama_tensors()).architecture == "brand_-new"


def test_odd_extra_keys_change_nothing(kit, tmp_path):
    odd = {"tokenizer.ggml.tokens": "no array", "tokenizer.chat_template": "", "ggufbench.synthetic": 1}
    got = model(kit, tmp_path / "x.gguf", kit.llama_values() | odd, kit.llama_tensors())
    assert (got.vocabulary, got.chat_template, got.synthetic) == (0, False, False)


def test_a_long_template_counts(kit, tmp_path):
    values = kit.llama_values() | {"tokenizer.chat_template": "x" * 50_000}
    assert model(kit, tmp_path / "x.gguf", values, kit.llama_tensors()).chat_template


def test_identity(kit, tmp_path):
    first = kit.write_llama(tmp_path / "a.gguf")
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(first.read_bytes())
    changed = tmp_path / "changed.gguf"
    changed.write_bytes(first.read_bytes()[:-1] + b"\1")
    other = kit.write_llama(tmp_path / "other.gguf", general__name="b")
    a, b, c, d = (only(path).identity for path in (first, copy, changed, other))
    assert a == b
    assert len({a, c, d}) == 3


def test_identity_reads_little(kit, tmp_path, monkeypatch):
    """A 4 GiB file (a hole): less than a MiB is read beyond the header."""
    tensors = [("token_embd.weight", (256, 1 << 22), "F32"), ("output.weight", (256, 8), "F32")]
    path = kit.write(tmp_path / "huge.gguf", kit.llama_values(), tensors)
    lengths = []
    update = facts.identity.__globals__["_update"]
    monkeypatch.setitem(
        facts.identity.__globals__, "_update", lambda d, p, o, n: (lengths.append(n), update(d, p, o, n))
    )
    got = only(path)
    assert got.file_size_bytes > 2**32
    assert sum(lengths[1:]) == 8 * (64 << 10)


def test_a_model_of_the_gguf_library(tmp_path):
    path = tmp_path / "real-Q4_0.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_head_count(2)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    data = gguf.quants.quantize(np.ones((16, 64), np.float32), gguf.GGMLQuantizationType.Q4_0)
    writer.add_tensor("token_embd.weight", data, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.add_tensor("blk.0.attn_q.weight", data, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    got = only(path)
    assert isinstance(got, Model)
    assert (got.label, got.tensor_bytes, got.repack_bytes) == ("real-Q4_0", 2 * 16 * 36, 16 * 36)
