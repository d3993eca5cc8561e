"""Header reader: values, error messages, and cost."""

from __future__ import annotations

import io
import math
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufbench.discovery import header as reading
from ggufbench.discovery.header import HeaderError, Omitted, data_offset, parse_header, read_header
from ggufbench.discovery.tables import FILE_TYPES, TENSOR_TYPES


class Sparse:
    """A file of `size` bytes that begins with `data` and continues with a hole."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data, self.size, self.at = data[:size], size, 0

    def seek(self, offset: int, /) -> None:
        self.at = offset

    def read(self, size: int, /) -> bytes:
        assert self.at + size <= self.size, "read beyond the end of the file"
        part = self.data[self.at : self.at + size].ljust(size, b"\0")
        self.at += size
        return part


def parse(data: bytes, size: int | None = None):
    size = len(data) if size is None else size
    return parse_header(Sparse(data, size), size)


def refusal(data: bytes, size: int | None = None) -> str:
    with pytest.raises(HeaderError) as caught:
        parse(data, size)
    return str(caught.value)


def test_tensor_types_agree_with_the_gguf_library():
    for kind, (block, size) in gguf.GGML_QUANT_SIZES.items():
        if kind.name == "Q8_1":
            continue  # never in files; ggml's struct has two half floats (36 bytes), the library says 40
        assert TENSOR_TYPES[int(kind)] == (kind.name, block, size)


def test_file_types_agree_with_the_gguf_library():
    for kind in gguf.LlamaFileType:
        if int(kind) in FILE_TYPES:
            name = kind.name.removeprefix("MOSTLY_").removeprefix("ALL_").removesuffix("_MOE")
            assert FILE_TYPES[int(kind)][0] == name
    assert {int(k) for k in gguf.LlamaFileType} - {1024} <= set(FILE_TYPES)
    for _, types in FILE_TYPES.values():
        assert types <= {t.name for t in TENSOR_TYPES.values()}


def test_reads_what_the_gguf_library_writes(tmp_path):
    path = tmp_path / "x.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(3)
    writer.add_uint64("big", 2**63)
    writer.add_int8("small", -5)
    writer.add_float64("double", 0.5)
    writer.add_bool("yes", True)
    writer.add_array("heads", [1, 2, 3])
    writer.add_array("flags", [True, False])
    writer.add_token_list(["a", "b" * 400, "", "d"])
    writer.add_tensor("token_embd.weight", np.zeros((6, 32), np.float32))
    writer.add_tensor("x", np.zeros((3, 2, 34), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(path)
    assert header.version == 3
    assert header.values["big"] == 2**63
    assert header.values["small"] == -5
    assert header.values["double"] == 0.5
    assert header.values["yes"] is True
    assert header.values["heads"] == (1, 2, 3)
    assert header.values["flags"] == (True, False)
    assert header.values["tokenizer.ggml.tokens"] == Omitted(4, array=True)
    first, second = header.tensors
    assert (first.dims, first.type.name, first.offset, first.size_bytes) == ((32, 6), "F32", 0, 768)
    assert (second.dims, second.type.name, second.offset, second.size_bytes) == ((32, 2, 3), "Q8_0", 768, 204)
    assert (first.rows, second.rows) == (6, 2)
    assert data_offset(header) + 768 + 204 <= header.file_size_bytes == path.stat().st_size


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions(kit, version):
    raw, size = kit.build(kit.llama_values(), kit.llama_tensors(), version)
    assert parse(raw + bytes(size - len(raw))).version == version


def test_accessors(kit):
    long = "t" * 5000
    raw, _ = kit.build(
        {
            "n": 7,
            "s": "text",
            "f": 1.5,
            "nan": math.nan,
            "b": True,
            "neg": -1,
            "huge": kit.Raw(10, b"\xff" * 8),
            "long": long,
            "arr": [1, 2, 3],
            "bools": [True, False],
            "many": [1] * 5000,
            "mixed": [1.5],
            "none": [],
        }
    )
    header = parse(raw)
    assert header.whole("n") == 7
    assert header.whole("missing") is None
    assert header.text("s") == "text"
    assert header.flag("b") is True
    assert header.per_layer("n", 2) == (7, 7)
    assert header.per_layer("arr", 2) == (1, 2)
    assert header.per_layer("bools", 2) == (1, 0)
    assert header.per_layer("missing", 2) is None
    assert (header.length("arr"), header.length("many"), header.length("n"), header.length("none")) == (
        3,
        5000,
        0,
        0,
    )
    assert header.values["long"] == Omitted(5000, array=False)
    for key in ("s", "f", "nan", "b", "neg", "huge", "long", "arr"):
        with pytest.raises(HeaderError, match=f"{key} is .* whole number"):
            header.whole(key)
    for key in ("n", "long", "arr"):
        with pytest.raises(HeaderError, match="short text is expected"):
            header.text(key)
    with pytest.raises(HeaderError, match="true or false is expected"):
        header.flag("n")
    with pytest.raises(HeaderError, match="3 elements for 4 layers"):
        header.per_layer("arr", 4)
    with pytest.raises(HeaderError, match="mixed is a number with a fraction"):
        header.per_layer("mixed", 1)
    with pytest.raises(HeaderError, match="many is an array"):
        header.per_layer("many", 1)
    with pytest.raises(HeaderError, match="0 to 5 is expected"):
        header.whole("n", 5)


def start(tensors: int, pairs: int, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "empty"),
        (b"GG", "not a GGUF file"),
        (b"PK\3\4" + bytes(60), "not a GGUF file"),
        (b"GGUF", "truncated: the file ends at byte 4, inside its header (the version)"),
        (b"GGUF\0\0\0\3" + bytes(40), "big endian"),
        (start(0, 0, 1), "version 1"),
        (start(0, 0, 4), "version 4"),
        (start(0, 0, 0), "version 0"),
        (start(2**63, 0), "at most 65536"),
        (start(65_000, 0), "truncated"),
        (start(0, 2**64 - 1), "at most 8192"),
        (start(0, 8000), "truncated"),
        (start(0, 1) + struct.pack("<Q", 2**60) + bytes(60), "name of 1152921504606846976 bytes"),
        (start(0, 1) + struct.pack("<Q", 0) + bytes(60), "name of 0 bytes"),
    ],
)
def test_refuses_the_start(data, sentence):
    assert sentence in refusal(data)


def test_refuses_values(kit):
    def one(kind: int, data: bytes) -> str:
        return refusal(start(0, 1) + kit.pair("k", kit.Raw(kind, data)))

    assert "unknown value type 13" in one(13, b"")
    assert "array of arrays" in one(9, struct.pack("<IQ", 9, 1) + bytes(12))
    assert "unknown value type 77" in one(9, struct.pack("<IQ", 77, 1))
    assert "inside its header (k)" in one(9, struct.pack("<IQ", 12, 2**63))
    assert "at most 4194304" in one(9, struct.pack("<IQ", 8, 2**40))
    assert "inside its header (strings in k)" in one(9, struct.pack("<IQ", 8, 100) + bytes(20))
    assert "inside its header (k)" in one(9, struct.pack("<IQ", 8, 1) + struct.pack("<Q", 2**64 - 1))
    assert "inside its header (k)" in one(8, struct.pack("<Q", 2**63) + b"abc")
    twice, _ = kit.build([("k", 1), ("k", 2)])
    assert refusal(twice) == "the key k occurs twice"


def test_refuses_tensors(kit):
    def one(name=b"t", dims=(32,), kind=0, offset=0, count=None):
        count = len(dims) if count is None else count
        info = kit.text(name) + struct.pack(f"<I{len(dims)}QIQ", count, *dims, kind, offset)
        return refusal(start(1, 0) + info + bytes(4096))

    assert "63 are allowed" in one(name=b"n" * 64)
    assert "name of 0 bytes" in one(name=b"")
    assert "5 dimensions" in one(count=5)
    assert "type 31, which llama.cpp does not know" in one(kind=31)
    assert "impossible shape" in one(dims=(2**32, 2**32))
    assert "impossible shape" in one(dims=(0, 2**63))
    assert "do not divide into blocks of Q4_K" in one(dims=(300,), kind=12)
    assert "no dimensions" in one(dims=(), kind=12)
    assert "is at byte 64 of the data, but byte 0 is expected" in one(offset=64)
    assert "truncated: tensor t ends at byte" in one(dims=(2**40,))
    both, size = kit.build({}, [("t", (32,), "F32"), ("t", (32,), "F32")])
    assert refusal(both + bytes(size)) == "the tensor t occurs twice"


def test_truncation_names_tensor_and_bytes(kit):
    raw, size = kit.build(kit.llama_values(), kit.llama_tensors())
    padded = raw + bytes(size - len(raw))
    parse(padded)
    message = refusal(padded[:-1])
    assert (
        message
        == f"truncated: tensor blk.1.ffn_down.weight ends at byte {size}, but the file has {size - 1} bytes"
    )


@pytest.mark.parametrize("alignment", [0, 3, "32", -32, 2**40])
def test_alignment_must_be_a_power_of_two(kit, alignment):
    raw, size = kit.build({"general.alignment": alignment}, [("t", (32,), "F32")])
    assert "general.alignment" in refusal(raw + bytes(size))


def test_alignment_counts(kit):
    raw, _ = kit.build({"general.alignment": 4096}, [("t", (32,), "F32")])
    header = parse(raw, 4096 + 128)
    assert data_offset(header) == 4096
    assert "truncated" in refusal(raw, 4096 + 127)


def test_hostile_names_do_not_reach_the_message(kit):
    raw, size = kit.build({}, [("\x1b[2J\u202eevil\n", (32,), "F32")])
    message = refusal(raw, size - 1)
    assert "evil" in message
    assert message.isprintable()
    raw = start(0, 1) + kit.text(b"\xff\xfe\x1b[31m") + struct.pack("<I", 99)
    assert refusal(raw).isprintable()


def test_a_file_that_shrinks_is_an_error(kit):
    raw, size = kit.build(kit.llama_values(), kit.llama_tensors())
    with pytest.raises(HeaderError, match="became shorter"):
        parse_header(io.BytesIO(raw[:400]), size)


@pytest.mark.parametrize("size", [64, 1000, reading._CHUNK])
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=12),
            st.sampled_from(
                [b"", b"\0", b"\0abc", b"a" * 255, b"b" * 256, b"c" * 700, b"x\0\0\0\0\0\0\0yz", b"q\0"]
            ),
        ),
        max_size=60,
    )
)
def test_string_arrays_are_skipped_exactly(kit, monkeypatch, size, strings):
    """The key after the array is found for all strings and chunk boundaries."""
    monkeypatch.setattr(reading, "_CHUNK", size)
    array = kit.Raw(9, struct.pack("<IQ", 8, len(strings)) + b"".join(kit.text(s) for s in strings))
    raw, _ = kit.build([("tokens", array), ("after", 12345), ("again", array), ("end", "here")])
    header = parse(raw)
    assert header.length("tokens") == len(strings)
    assert (header.values["after"], header.values["end"]) == (12345, "here")


def test_a_realistic_vocabulary_over_many_chunks(kit):
    rng = np.random.default_rng(3)
    lengths = np.minimum(rng.geometric(0.15, 120_000) - 1, 900)  # some empty, some long
    tokens = b"".join(kit.text(bytes([97 + i % 26]) * int(n)) for i, n in enumerate(lengths[:60_000]))
    merges = b"".join(kit.text(b"\xc3\xa4 x" * max(1, int(n) % 5)) for n in lengths[60_000:])
    values = [
        ("tokens", kit.Raw(9, struct.pack("<IQ", 8, 60_000) + tokens)),
        ("scores", kit.Raw(9, struct.pack("<IQ", 6, 60_000) + bytes(240_000))),
        ("merges", kit.Raw(9, struct.pack("<IQ", 8, 60_000) + merges)),
        ("after", 99),
    ]
    raw, _ = kit.build(values)
    header = parse(raw)
    assert header.values["after"] == 99
    assert [header.length(k) for k in ("tokens", "scores", "merges")] == [60_000] * 3


def bounded(data: bytes, size: int | None = None) -> str:
    begin = time.perf_counter()
    message = refusal(data, size)
    # Generous: a busy machine. A loop over every string would take far longer.
    assert time.perf_counter() - begin < 10
    return message


def test_millions_of_empty_strings_end_soon(kit, tmp_path):
    count = reading.STRINGS_CAP
    front = start(0, 2) + kit.text("k") + struct.pack("<IIQ", 9, 8, count)
    begin = time.perf_counter()
    header = parse(front + bytes(8 * count) + kit.pair("after", 1))
    assert time.perf_counter() - begin < 10
    assert (header.length("k"), header.values["after"]) == (count, 1)
    many = start(0, 2) + kit.text("k") + struct.pack("<IIQ", 9, 8, count + 1)
    assert "at most 4194304" in bounded(many, 2**30)


@pytest.mark.parametrize("strings", [(b"", b"a"), (b"", b"a" * 256), (b"x\0\0\0\0\0\0\0y", b"\0\0")])
def test_irregular_strings_are_bounded(kit, strings):
    body = b"".join(kit.text(s) for s in strings)
    count = 2 * reading.STEPS_CAP
    raw = start(0, 1) + kit.text("k") + struct.pack("<IIQ", 9, 8, count * len(strings)) + body * count
    assert bounded(raw) == "k has too many irregular strings to be a vocabulary"


def test_a_header_over_the_cap(kit):
    raw = start(0, 2) + kit.text("k") + struct.pack("<IIQ", 9, 0, reading.HEADER_CAP)
    assert bounded(raw, 2**40) == "the header is longer than 128 MiB (at k)"


def test_kept_text_is_bounded(kit):
    pairs = [(f"k{n}", "x" * 4000) for n in range(600)]
    header = parse(kit.build(pairs)[0])
    kept = sum(len(v) for v in header.values.values() if isinstance(v, str))
    assert kept <= reading.KEPT_CAP
    assert header.values["k0"] == "x" * 4000
    assert header.values["k599"] == Omitted(4000, array=False)


def test_reads_no_tensor_data(kit, tmp_path):
    path = kit.write_llama(tmp_path / "x.gguf")

    class Counting(io.BytesIO):
        last = 0

        def read(self, size=-1):
            self.last = max(self.last, self.tell() + size)
            return super().read(size)

    file = Counting(path.read_bytes() + bytes(10 << 20))
    header = parse_header(file, len(file.getvalue()))
    assert file.last <= header.header_bytes + reading._CHUNK


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_special_files_do_not_block(tmp_path):
    fifo = tmp_path / "x.gguf"
    os.mkfifo(fifo)
    with pytest.raises(HeaderError, match="not a regular file"):
        read_header(fifo)
    with pytest.raises(HeaderError, match="folder"):
        read_header(tmp_path)
    with pytest.raises(HeaderError, match="does not exist"):
        read_header(tmp_path / "gone.gguf")
    with pytest.raises(HeaderError, match="cannot be read"):
        read_header(Path("a\0b"))


def test_a_fifo_that_replaces_the_file_does_not_block(kit, tmp_path, monkeypatch):
    regular = kit.write_llama(tmp_path / "real.gguf").stat()
    fifo = tmp_path / "x.gguf"
    os.mkfifo(fifo)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: regular)
    with pytest.raises(HeaderError, match="not a regular file"):
        read_header(fifo)


@pytest.mark.real
def test_importing_the_model_module_is_light():
    heavy = {"numpy", "huggingface_hub", "gguf"}
    code = f"import sys, ggufbench.discovery.model; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


MEMORY = """
import sys, numpy
from pathlib import Path
from ggufbench.discovery.header import read_header
read_header(Path(sys.argv[1]))
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = peak()
for _ in range(3):
    header = read_header(Path(sys.argv[2]))
print(header.length("tokenizer.ggml.tokens"), peak() - before)
"""


@pytest.mark.real
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_ceiling(kit, tmp_path):
    """262,000 tokens and as many merges take a few MB more than a small file."""
    words = kit.Raw(
        9, struct.pack("<IQ", 8, 262_000) + b"".join(kit.text(f"tok{n:x}") for n in range(262_000))
    )
    values = {**kit.llama_values(), "tokenizer.ggml.tokens": words, "tokenizer.ggml.merges": words}
    large = kit.write(tmp_path / "large.gguf", values, kit.llama_tensors())
    small = kit.write_llama(tmp_path / "small.gguf")
    command = [sys.executable, "-c", MEMORY, str(small), str(large)]
    count, kib = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert count == "262000"
    assert int(kib) < 8 * 1024
