"""Content of the file, and cleanup of an unfinished one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest

from ggufbench.modelkit import ModelError, SynthSpec, estimate_bytes, output, quantizer, synth, synthesize
from ggufbench.modelkit.blocks import tensor_data, tensor_type
from ggufbench.modelkit.shapes import TensorShape, fit_shape, parameters, tensors

SMALL = SynthSpec("llama", 3_000_000, "Q8_0", vocabulary=1024)
SMALL_K = SynthSpec("llama", 3_000_000, "Q4_K_M", vocabulary=1024)


def field(reader: gguf.GGUFReader, key: str) -> object:
    found = reader.get_field(key)
    return None if found is None else found.contents()


@pytest.mark.parametrize(
    ("architecture", "quantization"),
    [("llama", "Q4_0"), ("qwen3", "Q8_0"), ("gpt-oss", "MXFP4"), ("gpt-oss", "F16")],
)
def test_reader_agrees_on_tensors(architecture, quantization, make):
    reader = gguf.GGUFReader(make(architecture, quantization=quantization))
    shape = fit_shape(architecture, 3_000_000, 1024)
    expected = {
        each.name: ([*reversed(each.dims)], tensor_type(each, quantization)) for each in tensors(shape)
    }
    found = {each.name: ([int(n) for n in each.shape], each.tensor_type.name) for each in reader.tensors}
    assert found == expected
    assert sum(int(np.prod(each.shape)) for each in reader.tensors) == parameters(shape)


def test_mxfp4_is_for_experts_only(make):
    types = {
        each.name: each.tensor_type.name
        for each in gguf.GGUFReader(make("gpt-oss", quantization="MXFP4")).tensors
    }
    assert {kind for name, kind in types.items() if "_exps.weight" in name} == {"MXFP4"}
    assert {kind for name, kind in types.items() if "attn_q.weight" in name or "output.weight" in name} == {
        "Q8_0"
    }


@pytest.mark.real
@pytest.mark.parametrize("quantization", ["Q8_0", "Q4_K_M"])
def test_file_says_that_it_is_synthetic(quantization, make):
    reader = gguf.GGUFReader(make(quantization=quantization))
    assert field(reader, "ggufbench.synthetic") is True
    assert field(reader, "general.name") == "synthetic llama 3M"
    assert "Random weights" in field(reader, "general.description")
    assert field(reader, "general.file_type") == {"Q8_0": 7, "Q4_K_M": 15}[quantization]
    assert field(reader, "tokenizer.ggml.pre") == "smollm"


def test_name_and_seed_are_kept(make):
    reader = gguf.GGUFReader(make(name="Ünïcode 🙂", seed=9))
    assert field(reader, "general.name") == "Ünïcode 🙂"
    assert field(reader, "ggufbench.seed") == 9


@pytest.mark.real
@pytest.mark.parametrize("spec", [SMALL, SMALL_K, SynthSpec("gpt-oss", 3_000_000, "MXFP4", vocabulary=1024)])
def test_same_spec_gives_the_same_bytes(spec, tmp_path):
    first, second = (synthesize(tmp_path / name, spec) for name in ("a.gguf", "b.gguf"))
    assert first.read_bytes() == second.read_bytes()


def test_another_seed_gives_other_weights_of_the_same_size(make):
    first, second = make(seed=1).read_bytes(), make(seed=2).read_bytes()
    assert len(first) == len(second)
    assert first[len(first) // 2 :] != second[len(second) // 2 :]


@pytest.mark.parametrize(
    ("kind", "quantization", "tolerance"),
    [
        ("F16", "F16", 0.45),
        ("Q8_0", "Q8_0", 0.02),
        ("Q4_0", "Q4_0", 0.02),
        ("MXFP4", "MXFP4", 0.45),
        ("Q6_K", "Q4_0", 0.02),
    ],
)
@pytest.mark.parametrize("length", [256, 8192])
def test_deviation_of_weights(kind, quantization, tolerance, length):
    tensor = TensorShape("t", (512, length), {"MXFP4": "expert", "Q6_K": "head"}.get(kind, "weight"))
    assert tensor_type(tensor, quantization) == kind
    data = np.concatenate([chunk.reshape(-1) for chunk in tensor_data(tensor, quantization, 0, ())])
    values = gguf.quants.dequantize(data.reshape(512, -1), gguf.GGMLQuantizationType[kind])
    assert np.isfinite(values).all()
    assert abs(values.std() * length**0.5 - 1) < tolerance
    assert abs(values.mean()) < 0.02 / length**0.5


def test_float32_weights_and_norms():
    router = np.concatenate(
        [c.reshape(-1) for c in tensor_data(TensorShape("r", (32, 4096), "router"), "Q8_0", 0, ())]
    )
    assert abs(router.view("<f4").std() * 64 - 1) < 0.02
    (norm,) = tensor_data(TensorShape("n", (64,), "ones"), "Q8_0", 0, ())
    assert (norm.view("<f4") == 1).all()


@pytest.mark.real
@pytest.mark.parametrize("spec", [SMALL, SMALL_K])
def test_progress_rises_to_the_total(spec, tmp_path):
    calls: list[tuple[int, int]] = []
    synthesize(tmp_path / "a.gguf", spec, lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert len({total for _, total in calls}) == 1
    assert calls[-1][0] == calls[-1][1]
    assert len(calls) > 5


@pytest.mark.real
@pytest.mark.parametrize("quantization", ["Q8_0", "F16", "Q4_0", "Q4_K_M", "Q2_K", "Q6_K", "IQ4_NL"])
def test_estimate_is_close_and_not_too_small(quantization, tmp_path):
    spec = SynthSpec("llama", 20_000_000, quantization, vocabulary=4096)
    size = synthesize(tmp_path / "a.gguf", spec).stat().st_size
    assert size <= estimate_bytes(spec) <= 1.35 * size


def test_existing_file_is_kept_without_overwrite(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(b"precious")
    with pytest.raises(ModelError, match=r"a\.gguf exists already"):
        synthesize(path, SMALL)
    assert path.read_bytes() == b"precious"
    synthesize(path, SMALL, overwrite=True)
    assert path.read_bytes()[:4] == b"GGUF"


def test_missing_folders_are_made(tmp_path):
    assert synthesize(tmp_path / "one" / "two" / "a.gguf", SMALL).exists()


@pytest.mark.parametrize(("name", "words"), [("a.bin", "must end in .gguf"), ("d.gguf", "is a folder")])
def test_bad_targets(name, words, tmp_path):
    (tmp_path / "d.gguf").mkdir()
    with pytest.raises(ModelError, match=words):
        synthesize(tmp_path / name, SMALL, overwrite=True)


def test_full_disk_is_detected_before_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(output.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(
        ModelError, match=rf"a\.gguf: {estimate_bytes(SMALL)} bytes are needed but only 1000 are free"
    ):
        synthesize(tmp_path / "new" / "a.gguf", SMALL)
    assert list(tmp_path.iterdir()) == []


def test_disk_that_fills_up_while_writing(tmp_path, monkeypatch):
    def fail(*_: object) -> object:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(synth, "tensor_data", fail)
    with pytest.raises(ModelError, match=r"a\.gguf \(\d+ bytes needed, \d+ were free\): No space left"):
        synthesize(tmp_path / "a.gguf", SMALL)
    assert list(tmp_path.iterdir()) == []


def test_folder_without_permission(tmp_path, monkeypatch):
    # A superuser may write anywhere, so the result of `os.access` is replaced.
    monkeypatch.setattr(output.os, "access", lambda *_: False)
    with pytest.raises(ModelError, match=r"bytes needed, \d+ free\): no permission"):
        synthesize(tmp_path / "a.gguf", SMALL)


def test_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="file is not a folder"):
        synthesize(tmp_path / "file" / "a.gguf", SMALL)


@pytest.mark.real
@pytest.mark.parametrize(("spec", "share"), [(SMALL, 0.5), (SMALL_K, 0.3), (SMALL_K, 0.9)])
def test_interruption_leaves_nothing(spec, share, tmp_path):
    def interrupt(done: int, total: int) -> None:
        if done > share * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path / "a.gguf", spec, interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real
def test_native_failure_message(tmp_path, monkeypatch):
    monkeypatch.setattr(synth, "_write", lambda part, *_: part.write_bytes(b"GGUF" + bytes(100)))
    with pytest.raises(ModelError, match=r"could not make Q4_K_M \(exit status 1\): .*(gguf|load)"):
        synthesize(tmp_path / "a.gguf", SMALL_K)
    assert list(tmp_path.iterdir()) == []


def test_native_abort_is_an_error(tmp_path, monkeypatch):
    program = tmp_path / "aborts"
    program.write_text("#!/bin/sh\necho GGML_ASSERT failed >&2\nkill -ABRT $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(quantizer.sys, "executable", str(program))
    with pytest.raises(ModelError, match=r"could not make Q4_K_M \(signal 6\): GGML_ASSERT failed"):
        synthesize(tmp_path / "out" / "a.gguf", SMALL_K)
    assert list((tmp_path / "out").iterdir()) == []


def test_missing_llama_cpp_message(tmp_path, monkeypatch):
    monkeypatch.setattr(quantizer.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r'pip install "ggufbench\[llamacpp\]"'):
        synthesize(tmp_path / "a.gguf", SMALL_K)
    assert list(tmp_path.iterdir()) == []


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout + done.stderr


@pytest.mark.real
def test_importing_costs_nothing():
    code = "import sys, ggufbench.modelkit; assert not {'numpy', 'gguf', 'llama_cpp'} & set(sys.modules)"
    assert run_python(code) == ""


@pytest.mark.real
def test_llama_cpp_is_not_imported_and_nothing_is_printed(tmp_path: Path):
    code = (
        "import sys, pathlib, ggufbench.modelkit as kit;"
        "spec = kit.SynthSpec('llama', 3_000_000, 'Q4_K_M', vocabulary=1024);"
        "kit.synthesize(pathlib.Path(sys.argv[1]), spec);"
        "assert 'llama_cpp' not in sys.modules"
    )
    assert run_python(code, str(tmp_path / "a.gguf")) == ""
