"""Damaged and hostile headers: the result is a header or a HeaderError, fast and in little memory."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufbench.discovery.header import HeaderError, parse_header

MUTATIONS = 10_000

# Separate process, so that a hang or a crash is a failed test and only the reader's memory counts.
FUZZER = '''
import json, random, struct, sys, time
from pathlib import Path
from ggufbench.discovery import facts
from ggufbench.discovery.classify import RefusedError
from ggufbench.discovery.header import HeaderError, parse_header
from ggufbench.discovery.shards import Files

facts.identity = lambda files: "0" * 16  # needs a file; the headers here are in memory
BOUNDARIES = [0, 1, 2, 7, 8, 9, 255, 256, 257, 4095, 4096, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
              2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 9, 2**64 - 8, 2**64 - 1]


class Guarded:
    """A file that is never read beyond its end, and sometimes ends sooner than its size said."""

    def __init__(self, data, size):
        self.data, self.size, self.at = data, size, 0

    def seek(self, offset):
        assert 0 <= offset <= self.size, offset
        self.at = offset

    def read(self, count):
        assert count > 0 and self.at + count <= self.size, (self.at, count, self.size)
        part = self.data[self.at : self.at + count]
        self.at += len(part)
        return part


def overwrite(rng, data, seeds):
    width, code = rng.choice([(8, "<Q"), (4, "<I"), (2, "<H")])
    at = rng.randrange(max(1, len(data) - width))
    value = rng.choice(BOUNDARIES) % (1 << 8 * width)
    data[at : at + width] = struct.pack(code, value)


def flip(rng, data, seeds):
    for _ in range(rng.choice([1, 1, 1, 3, 20])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut(rng, data, seeds):
    del data[rng.randrange(len(data)) :]


def splice(rng, data, seeds):
    other = rng.choice(seeds)
    start = rng.randrange(len(other))
    at = rng.randrange(len(data))
    piece = other[start : start + rng.randrange(1, 400)]
    data[at : at + rng.choice([0, len(piece)])] = piece


def repeat(rng, data, seeds):
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randrange(1, 200)]
    data[start:start] = piece * rng.randrange(1, 4)


def zero(rng, data, seeds):
    start = rng.randrange(len(data))
    length = min(rng.randrange(1, 64), len(data) - start)
    data[start : start + length] = rng.choice([bytes(length), b"\\xff" * length])


def mutate(rng, seeds):
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice([1, 1, 2, 5])):
        if data:
            rng.choice([overwrite, overwrite, flip, cut, splice, repeat, zero])(rng, data, seeds)
    return bytes(data)


def attempt(data, size):
    try:
        header = parse_header(Guarded(data, size), size)
    except HeaderError as error:
        assert str(error).isprintable() and len(str(error)) < 400, str(error)
        return "header refused"
    try:
        found = facts.Provenance("name", "stem", "path", None)
        facts.describe(Files((Path("x.gguf"),), (header,)), found)
    except (HeaderError, RefusedError) as error:
        assert str(error).isprintable() and len(str(error)) < 400, str(error)
        return "facts refused"
    return "read"


rng = random.Random(20_240_229)
seeds = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
outcomes, slowest = {}, 0.0
for _ in range(int(sys.argv[2])):
    data = mutate(rng, seeds)
    size = len(data) + rng.choice([0, 0, 0, 1, 1 << 20])
    begin = time.perf_counter()
    outcome = attempt(data, size)
    slowest = max(slowest, time.perf_counter() - begin)
    outcomes[outcome] = outcomes.get(outcome, 0) + 1
status = Path("/proc/self/status")
peak = int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 if status.exists() else 0
print(json.dumps({"outcomes": outcomes, "slowest_s": slowest, "peak_bytes": peak}))
'''


def seeds(kit) -> list[bytes]:
    """Headers with every kind of value, followed by the zeros of their tensors."""
    every = {
        **kit.llama_values(),
        "a.i8": kit.Raw(1, b"\xff"),
        "a.u16": kit.Raw(2, b"\1\2"),
        "a.u64": kit.Raw(10, b"\xff" * 8),
        "a.f64": kit.Raw(12, struct.pack("<d", float("inf"))),
        "a.flag": False,
        "a.array": [1, 2, 3],
        "a.flags": [True, False],
        "a.long": "x" * 5000,
        "general.alignment": 64,
        "tokenizer.ggml.merges": [f"a{n} b" for n in range(500)] + ["", "z" * 300],
    }
    mixture = {
        **kit.llama_values("gpt-oss"),
        "gpt-oss.expert_count": 4,
        "gpt-oss.expert_used_count": [1, 2],
        "gpt-oss.attention.sliding_window": 8,
        "gpt-oss.attention.sliding_window_pattern": [True, False],
        "gpt-oss.attention.head_count_kv": [1, 2],
        "split.no": 0,
        "split.count": 1,
    }
    experts = [("token_embd.weight", (32, 8), "F16"), ("blk.1.ffn_up_exps.weight", (32, 8, 4), "MXFP4")]
    found = []
    for values, tensors in ((every, []), (kit.llama_values(), kit.llama_tensors()), (mixture, experts)):
        raw, size = kit.build(values, tensors)
        found.append(raw + bytes(min(size - len(raw), 2000)))
    return found


@pytest.mark.real
def test_ten_thousand_damaged_headers(kit, tmp_path):
    for number, seed in enumerate(seeds(kit)):
        (tmp_path / f"{number}").write_bytes(seed)
    command = [sys.executable, "-c", FUZZER, str(tmp_path), str(MUTATIONS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout)
    assert sum(report["outcomes"].values()) == MUTATIONS
    # The mutator is useful only if many inputs pass the header.
    assert report["outcomes"]["header refused"] > MUTATIONS // 10
    assert report["outcomes"]["facts refused"] > MUTATIONS // 100
    assert report["slowest_s"] < 5
    assert report["peak_bytes"] < 300 << 20


def attempt(data: bytes) -> None:
    try:
        header = parse_header(io.BytesIO(data), len(data))
    except HeaderError as error:
        assert str(error).isprintable()
    else:
        assert header.header_bytes <= len(data)


@given(st.binary(max_size=400), st.integers(0, 3), st.integers(0, 3))
def test_any_bytes_after_a_plausible_start(data, tensors, pairs):
    attempt(b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs) + data)


@given(st.binary(max_size=200))
def test_any_bytes(data):
    attempt(data)


@given(st.data())
def test_every_prefix_and_patch(kit, data):
    seed = seeds(kit)[1]
    length = data.draw(st.integers(0, len(seed)))
    at = data.draw(st.integers(0, len(seed)))
    patch = data.draw(st.binary(max_size=16))
    attempt(seed[:length])
    attempt(seed[:at] + patch + seed[at + len(patch) :])


def values():
    scalars = st.one_of(
        st.booleans(), st.integers(-(2**62), 2**62), st.floats(width=32), st.text(max_size=20)
    )
    return st.one_of(
        scalars, st.lists(st.integers(0, 2**31 - 1), max_size=5), st.lists(st.booleans(), max_size=5)
    )


KEYS = [
    "general.architecture",
    "general.type",
    "general.file_type",
    "split.count",
    "split.no",
    "llama.block_count",
    "llama.context_length",
    "llama.embedding_length",
    "llama.expert_count",
    "llama.expert_used_count",
    "llama.attention.head_count",
    "llama.attention.head_count_kv",
    "llama.attention.key_length",
    "llama.attention.sliding_window",
    "llama.attention.sliding_window_pattern",
    "llama.nextn_predict_layers",
    "llama.attention.key_length_mla",
    "llama.pooling_type",
    "llama.attention.causal",
    "llama.attention.recurrent_layers",
    "llama.attention.shared_kv_layers",
    "tokenizer.ggml.tokens",
    "tokenizer.chat_template",
    "ggufbench.synthetic",
]


@pytest.mark.parametrize("arch", ["llama", "gpt-oss", "gemma3n", "llama4", "qwen3next", "deepseek2"])
@given(st.dictionaries(st.sampled_from(KEYS), values(), max_size=6))
def test_any_values_under_known_keys(kit, tmp_path_factory, arch, changes):
    """From the file to the listing: a model or a reason, for any values of the keys."""
    from ggufbench.discovery import discover

    renamed = {key.replace("llama.", f"{arch}."): value for key, value in changes.items()}
    path: Path = tmp_path_factory.mktemp("any") / "x.gguf"
    kit.write(path, kit.llama_values(arch) | renamed, kit.llama_tensors())
    found = discover([path])
    assert len(found.models) + len(found.rejected) == 1
    for model in found.models:
        assert model.decode_bytes_per_token >= 0
        assert min(model.kv.full_k, model.kv.full_v, model.kv.sliding_k, model.kv.sliding_v) >= 0
        assert model.label.isprintable()
    for refusal in found.rejected:
        assert refusal.reason.isprintable()
