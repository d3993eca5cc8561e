"""`ggufbench quantize`: output, notes, refusals, and cleanup after interruption."""

from __future__ import annotations

import json
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest

from ggufbench.discovery.header import read_header
from ggufbench.modelkit import SynthSpec, output, quantizer, synthesize
from ggufbench.modelkit.legacy_imatrix import read_legacy_imatrix
from ggufbench.modelkit.quantization import TYPES, check_type, quantize
from ggufbench.modelkit.spec import IMATRIX_TYPES, ModelError

CHANGED = {"general.file_type", "general.quantization_version"}


def types_of(path: Path) -> set[str]:
    return {tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}


def left_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize(
    ("text", "name"),
    [("q4_k_m", "Q4_K_M"), (" Q8_0 ", "Q8_0"), ("iq4-xs", "IQ4_XS"), ("Q4_K", "Q4_K_M"), ("bf16", "BF16")],
)
def test_type_names_ignore_case(text, name):
    assert check_type(text, with_imatrix=False) == name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Q4_K_N", "did you mean Q4_K_"),
        ("q9_0", "did you mean "),
        ("zzz", "known types: F32, F16, BF16, Q8_0"),
        ("NVFP4", "llama.cpp can read NVFP4 but not make it"),
        *((name, f"{name} has so few bits that llama.cpp makes it only with") for name in IMATRIX_TYPES),
    ],
)
def test_unknown_type_messages(text, words):
    with pytest.raises(ModelError) as caught:
        check_type(text, with_imatrix=False)
    assert words in str(caught.value)


@pytest.mark.real
def test_the_command_writes_a_model_that_loads(make, ggufbench, tmp_path):
    source, out = make(quantization="F16"), tmp_path / "out"
    out.mkdir()
    done = ggufbench("quantize", source, out, "q4_k_m")
    assert done.returncode == 0, done.stderr
    assert left_in(out) == [f"{source.stem}-Q4_K_M.gguf"]
    made = out / f"{source.stem}-Q4_K_M.gguf"
    assert "Q4_K" in types_of(made)
    assert re.search(r"\d+ tensors in \d+ s: \d.* MiB of F16 .* MiB of Q4_K_M", done.stdout)
    assert re.search(r"loads in \S+ m?s on the CPU: \d+ layers", done.stdout)
    assert f"ggufbench run --models {made}" in done.stdout
    before, after = read_header(source).values, read_header(made).values
    assert {key: value for key, value in after.items() if key not in CHANGED} == {
        key: value for key, value in before.items() if key not in CHANGED
    }


@pytest.mark.real
def test_the_command_as_json(make, ggufbench, tmp_path):
    done = ggufbench("quantize", make(quantization="F16"), tmp_path / "new.gguf", "Q8_0", "--json")
    found = json.loads(done.stdout)
    assert found["type"] == "Q8_0" and found["source_type"] == "F16" and found["notes"] == []
    assert found["file_size_bytes"] == (tmp_path / "new.gguf").stat().st_size
    assert found["load_test"]["problem"] is None and found["load_test"]["layers"] > 0


@pytest.mark.nightly
def test_every_type_that_needs_no_imatrix_is_made(make, tmp_path):
    source = make(parameters=1_000_000, quantization="F16", vocabulary=512)
    mixture = make("gpt-oss", quantization="F16")
    for kind in TYPES:
        made = quantize(mixture if kind == "MXFP4_MOE" else source, tmp_path / f"{kind}.gguf", kind)
        assert made.file_size_bytes == made.path.stat().st_size


@pytest.mark.real
def test_a_mixture_type_is_refused_for_a_dense_model(make, refused, tmp_path):
    sentence = refused("quantize", make(quantization="F16"), tmp_path / "new.gguf", "MXFP4_MOE")
    assert "MXFP4_MOE is for mixtures of experts" in sentence and "use Q4_K_M or Q8_0" in sentence
    assert not (tmp_path / "new.gguf").exists()


@pytest.mark.real
def test_notes_on_fallbacks_and_quantized_source(make, ggufbench, tmp_path):
    source = make(parameters=500_000, vocabulary=512)  # rows of 96, which a block of 256 does not divide
    done = ggufbench("quantize", source, tmp_path / "new.gguf", "Q4_K_M")
    assert re.search(r"(\d+) of \d+ tensors got a larger type, because the blocks of Q4_K_M", done.stdout)
    assert "the source was already Q8_0, whose loss of precision stays" in done.stdout


@pytest.mark.real
def test_source_is_never_overwritten(make, refused, tmp_path):
    source = make(quantization="F16")
    before = source.read_bytes()
    (tmp_path / "link.gguf").symlink_to(source)
    for target in (source, tmp_path / "link.gguf"):
        sentence = refused("quantize", source, target, "Q8_0", "--overwrite")
        assert "is the source file; name another file" in sentence
    assert source.read_bytes() == before


@pytest.mark.real
def test_existing_file_is_kept_without_overwrite(make, refused, ggufbench, tmp_path):
    source, target = make(quantization="F16"), tmp_path / "new.gguf"
    target.write_bytes(b"mine")
    assert "exists already" in refused("quantize", source, target, "Q8_0")
    assert target.read_bytes() == b"mine"
    assert ggufbench("quantize", source, target, "Q8_0", "--overwrite").returncode == 0
    assert types_of(target) == {"Q8_0", "F32"}


@pytest.mark.real
@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("none.gguf", "none.gguf does not exist"),
        ("folder", "is a folder; name the GGUF file"),
        ("text.gguf", "cannot be used: "),
    ],
)
def test_invalid_source_messages(refused, tmp_path, source, words):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.gguf").write_text("no model\x1b[31m")
    assert words in refused("quantize", tmp_path / source, tmp_path / "new.gguf", "Q8_0")


@pytest.mark.real
def test_a_hostile_name_does_not_reach_the_terminal(refused):
    sentence = refused("quantize", "\x1b[31mred.gguf", "new.gguf", "Q8_0")
    assert "red" in sentence


@pytest.mark.real
def test_a_split_model_becomes_one_file(float_model, ggufbench, tmp_path):
    first = float_model(parts_of=20)
    assert first.name.startswith("split-F16-00001-of-0000")
    done = ggufbench("quantize", first, tmp_path / "whole.gguf", "Q8_0")
    assert done.returncode == 0, done.stderr
    assert "parts were merged into one file" in done.stdout
    names = {tensor.name for tensor in gguf.GGUFReader(tmp_path / "whole.gguf").tensors}
    assert names == {t.name for part in first.parent.iterdir() for t in gguf.GGUFReader(part).tensors}
    second = sorted(first.parent.iterdir())[1]
    assert ggufbench("quantize", second, tmp_path / "no.gguf", "Q8_0").returncode == 2


@pytest.mark.real
def test_file_that_does_not_load_is_kept_and_exits_11(float_model, ggufbench, tmp_path):
    source = float_model("broken-F16", without=("blk.1.ffn_up.weight",))
    done = ggufbench("quantize", source, tmp_path / "new.gguf", "Q8_0")
    assert done.returncode == 11
    assert "was written, but it does not load: " in done.stderr
    assert "blk.1.ffn_up.weight" in done.stderr
    assert (tmp_path / "new.gguf").exists()
    assert ggufbench("quantize", source, tmp_path / "b.gguf", "Q8_0", "--no-load-test").returncode == 0


def test_missing_llama_cpp_message(make, tmp_path, monkeypatch):
    source = make(quantization="F16")
    monkeypatch.setattr(quantizer.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="llama-cpp-python is not installed; install it with"):
        quantize(source, tmp_path / "new.gguf", "Q8_0")


def write_imatrix(path: Path, model: Path) -> Path:
    writer = gguf.GGUFWriter(path, "")
    writer.add_type("imatrix")
    random = np.random.default_rng(0)
    for tensor in gguf.GGUFReader(model).tensors:
        if len(tensor.shape) == 2 and tensor.name.startswith("blk."):
            sums = random.random(int(tensor.shape[0]), np.float32)[None, :]
            writer.add_tensor(f"{tensor.name}.in_sum2", sums)
            writer.add_tensor(f"{tensor.name}.counts", np.full((1, 1), 8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_legacy_imatrix(path: Path, imatrix: Path) -> Path:
    """The same matrix in the format of older versions, with what they add about the data set."""
    sums = [one for one in gguf.GGUFReader(imatrix).tensors if one.name.endswith(".in_sum2")]
    parts = [struct.pack("<i", len(sums))]
    for tensor in sums:
        name = tensor.name.removesuffix(".in_sum2").encode()
        values = np.asarray(tensor.data, np.float32).ravel()
        parts += [struct.pack("<i", len(name)), name, struct.pack("<ii", 8, len(values)), values.tobytes()]
    path.write_bytes(b"".join([*parts, struct.pack("<ii", 3, 4), b"wiki"]))
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: whole[:-10],
        lambda whole: whole[:4],
        lambda whole: b"",
        lambda whole: struct.pack("<i", 2**31 - 1) + whole[4:],
        lambda whole: whole[:4] + struct.pack("<i", -1) + whole[8:],
        lambda whole: whole[:8] + b"\x1b" + whole[9:],
        lambda whole: whole.replace(struct.pack("<ii", 2, 3), struct.pack("<ii", 2, 2**31 - 1)),
    ],
)
def test_a_damaged_legacy_matrix_is_an_error(tmp_path, change):
    whole = struct.pack("<ii", 1, 1) + b"x" + struct.pack("<ii3f", 2, 3, 2, 4, 6)
    path = tmp_path / "imatrix.dat"
    path.write_bytes(whole)
    assert read_legacy_imatrix(path)["x"].tolist() == [1, 2, 3]
    path.write_bytes(change(whole))
    with pytest.raises(ValueError, match=r"imatrix|incomplete|ends within"):
        read_legacy_imatrix(path)


@pytest.mark.real
def test_importance_matrix_enables_small_types(make, ggufbench, tmp_path):
    source = make(parameters=1_100_000, quantization="F16", vocabulary=512, layers=1)
    imatrix = write_imatrix(tmp_path / "imatrix.gguf", source)
    done = ggufbench("quantize", source, tmp_path / "small.gguf", "iq2_xs", "--imatrix", imatrix)
    assert done.returncode == 0, done.stderr
    assert "IQ2_XS" in types_of(tmp_path / "small.gguf")
    plain = quantize(source, tmp_path / "plain.gguf", "Q4_K_M")
    led = quantize(source, tmp_path / "led.gguf", "Q4_K_M", imatrix=imatrix)
    assert plain.path.read_bytes() != led.path.read_bytes()
    legacy = write_legacy_imatrix(tmp_path / "imatrix.dat", imatrix)
    same = quantize(source, tmp_path / "same.gguf", "Q4_K_M", imatrix=legacy)
    assert same.path.read_bytes() == led.path.read_bytes()


@pytest.mark.real
def test_invalid_importance_matrix_is_refused(make, refused, tmp_path):
    source = make(quantization="F16")
    (tmp_path / "old.dat").write_bytes(b"\x01\x00\x00\x00")
    target = tmp_path / "new.gguf"
    assert "not an importance matrix: " in refused("quantize", source, target, "IQ2_XS", "--imatrix", source)
    assert "old.dat is not an importance matrix: " in refused(
        "quantize", source, target, "IQ2_XS", "--imatrix", tmp_path / "old.dat"
    )
    assert not target.exists()


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A model that takes seconds to quantize."""
    path = tmp_path_factory.mktemp("large") / "large-F16.gguf"
    return synthesize(path, SynthSpec("llama", 60_000_000, "F16", vocabulary=2048))


@pytest.mark.real
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_stopped_quantization_leaves_nothing(large, started, tmp_path, wait_until, number, code):
    out = tmp_path / "out"
    out.mkdir()
    process = started("quantize", large, out / "new.gguf", "IQ4_NL", "--threads", "1")
    wait_until(lambda: any(entry.stat().st_size for entry in out.iterdir()), "the first bytes")
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    wait_until(lambda: not left_in(out), "the folder to be empty")


def test_full_disk_message_and_cleanup(make, tmp_path):
    source, out = make(quantization="F16"), tmp_path / "out"
    out.mkdir()
    program = [sys.executable, "-m", "ggufbench.cli", "quantize", str(source), str(out / "new.gguf"), "Q8_0"]
    # Files of this process are limited to 1 MiB, which looks like a full disk to a writer.
    limited = ["bash", "-c", 'ulimit -f 1024; exec "$@"', "limited", *program]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "could not write all of Q8_0; check free disk space and quotas." in done.stderr
    assert left_in(out) == []


@pytest.mark.real
def test_space_is_checked_before_writing(make, tmp_path, monkeypatch):
    source = make(quantization="F16")
    monkeypatch.setattr(output.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ModelError, match=r"\d+ bytes are needed but only 1000 are free"):
        quantize(source, tmp_path / "new.gguf", "Q8_0")


@pytest.mark.real
def test_leftovers_of_a_killed_process_are_removed(make, tmp_path):
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    left = tmp_path / f".new.gguf.{int(gone.stdout)}.0123abcd.part"
    left.write_bytes(b"half")
    quantize(make(quantization="F16"), tmp_path / "new.gguf", "Q8_0")
    assert not left.exists() and (tmp_path / "new.gguf").exists()
