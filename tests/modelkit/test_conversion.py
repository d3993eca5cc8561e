"""`ggufbench convert`: accepted checkpoints, no execution of their code, and the content of the GGUF."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ggufbench.discovery.header import read_header
from ggufbench.modelkit import converter_environment
from ggufbench.modelkit.spec import ModelError
from ggufbench.modelkit.staged_checkpoint import find_source, stage

CONFIG = {"model_type": "llama", "hidden_size": 256, "num_hidden_layers": 2}
HOSTILE = "from pathlib import Path\nPath({marker!r}).write_text('ran')\nclass Tokenizer: pass\n"


def write_safetensors(path: Path, dtype: str = "BF16") -> Path:
    """The header of a file with one matrix, and its bytes."""
    entry = {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, 8]}
    header = json.dumps({"__metadata__": {"format": "pt"}, "a.weight": entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with the file names of a checkpoint."""
    made = tmp_path / "My Model [x]"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIG))
    write_safetensors(made / "model.safetensors")
    return made


def test_source_name_and_automatic_type(folder):
    source = find_source(str(folder))
    assert (source.name, source.stored_dtype, source.automatic_type()) == ("My Model _x_", "BF16", "bf16")
    write_safetensors(folder / "model.safetensors", "F32")
    assert find_source(str(folder)).automatic_type() == "f16"


def test_the_converter_sees_no_code(folder, tmp_path):
    auto_map = {"auto_map": {"AutoTokenizer": ["evil--repo/x.Tokenizer", None]}}
    (folder / "config.json").write_text(json.dumps({**CONFIG, **auto_map, "text_config": auto_map}))
    (folder / "tokenizer_config.json").write_text(json.dumps({**auto_map, "tokenizer_class": "X"}))
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"auto_map": 1}}}')
    for name in ("modeling_evil.py", "pytorch_model.bin", "weights.pt", "x.pkl", ".hidden.json"):
        (folder / name).write_bytes(b"code")
    staged = stage(find_source(str(folder)), tmp_path)
    assert sorted(entry.name for entry in staged.iterdir()) == [
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert "auto_map" not in (staged / "config.json").read_text()
    assert json.loads((staged / "tokenizer_config.json").read_text()) == {"tokenizer_class": "X"}
    assert json.loads((staged / "tokenizer.json").read_text())["model"]["vocab"] == {"auto_map": 1}


def test_parts_with_their_own_folder_keep_their_configuration(folder, tmp_path):
    for name in ("1_Pooling", "2_Dense", "audio_tokenizer", ".git", "2_Normalize"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({"part": name, "auto_map": {"A": "evil.B"}}))
        (folder / name / "modeling.py").write_text("code")
    (folder / "2_Normalize" / "config.json").unlink()
    staged = stage(find_source(str(folder)), tmp_path)
    copied = {str(path.relative_to(staged)) for path in staged.rglob("*") if path.parent != staged}
    assert copied == {f"{name}/config.json" for name in ("1_Pooling", "2_Dense", "audio_tokenizer")}
    assert json.loads((staged / "1_Pooling" / "config.json").read_text()) == {"part": "1_Pooling"}


@pytest.mark.real
def test_invalid_checkpoint_messages(refused, tmp_path, folder):
    def sentence(*names: str) -> str:
        for name in names:
            (tmp_path / "other" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "other" / name).write_text("{}")
        return refused("convert", tmp_path / "other")

    (tmp_path / "other").mkdir()
    assert "it contains no safetensors files" in sentence()
    assert "it already contains GGUF files" in sentence("a.gguf")
    assert "PyTorch files, which can contain code; only safetensors are read" in sentence("pytorch_model.bin")
    assert "config.json is missing" in sentence("model.safetensors")
    assert "config.json lacks the shape, or safetensors files are missing" in sentence("config.json")
    assert "it is an adapter" in sentence("adapter_config.json")
    assert "is a file; name the folder" in refused("convert", folder / "config.json")


@pytest.mark.real
def test_invalid_request_messages(refused, folder, tmp_path):
    assert "Unknown type 'q4_k_m' for a conversion" in refused("convert", folder, "--type", "q4_k_m")
    (tmp_path / "there.gguf").write_text("mine")
    assert "exists already" in refused("convert", folder, tmp_path / "there.gguf")
    assert "must end in .gguf" in refused("convert", folder, tmp_path / "there.bin")
    cache = {"HF_HUB_CACHE": str(tmp_path / "hub")}
    assert "neither a folder nor a repository in the Hugging Face cache" in refused("convert", "a/b", **cache)
    assert "The folder ../../x does not exist" in refused("convert", "../../x", **cache)


def test_missing_llama_cpp_message(tmp_path, monkeypatch):
    monkeypatch.setattr(converter_environment, "_installed", lambda _: None)
    with pytest.raises(ModelError, match="is not installed; install it with: pip install"):
        converter_environment.get_converter(tmp_path, print, {})


@pytest.mark.real
def test_failed_converter_download(tmp_path, monkeypatch):
    monkeypatch.setattr(converter_environment, "_installed", lambda _: "99.99.99")
    nowhere = {**os.environ, "PIP_INDEX_URL": (tmp_path / "empty").as_uri(), "PIP_EXTRA_INDEX_URL": ""}
    with pytest.raises(
        ModelError, match=r"llama-cpp-python==99\.99\.99 could not be downloaded: No matching dist"
    ):
        converter_environment.get_converter(
            tmp_path / "cache", lambda _: None, {**nowhere, "PIP_CONFIG_FILE": os.devnull}
        )
    assert not list((tmp_path / "cache").rglob("convert_hf_to_gguf.py"))


@pytest.fixture(scope="module")
def converter(cache_folder) -> converter_environment.Converter:
    """The downloaded converter; the first conversion of a session reports the download."""
    return converter_environment.get_converter(cache_folder, lambda _: None, os.environ)


def copy_of(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy" / checkpoint.name))


@pytest.mark.real
def test_converted_gguf_has_tokenizer_and_template(checkpoint, ggufbench, tmp_path):
    out = tmp_path / "out {ftype}"
    out.mkdir()
    done = ggufbench("convert", checkpoint, out)
    assert done.returncode == 0, done.stderr
    made = out / "tiny-llama-BF16.gguf"
    assert [entry.name for entry in out.iterdir()] == [made.name]
    values = read_header(made).values
    assert values["general.architecture"] == "llama" and values["llama.block_count"] == 2
    assert values["tokenizer.ggml.model"] == "llama"
    assert "<|assistant|>" in values["tokenizer.chat_template"]
    assert re.search(r"of safetensors to .* of BF16 in \d+ s, by the converter of llama-cpp-p", done.stdout)
    assert re.search(r"loads in \S+ m?s on the CPU: 2 layers", done.stdout)
    again = ggufbench("convert", checkpoint, tmp_path / "eight.gguf", "--type", "q8_0", "--json")
    assert json.loads(again.stdout)["type"] == "Q8_0"
    assert "fetching" not in again.stderr


@pytest.mark.real
def test_convert_repository_from_cache(checkpoint, ggufbench, tmp_path):
    commit = "0" * 40
    repository = tmp_path / "hub" / "models--owner--Tiny-Name"
    snapshot = repository / "snapshots" / commit
    (repository / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(checkpoint.iterdir())):
        shutil.copy(file, repository / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    done = ggufbench("convert", "owner/tiny-name", "--type", "f16", HF_HUB_CACHE=str(tmp_path / "hub"))
    assert done.returncode == 0, done.stderr
    assert read_header(tmp_path / "here" / "Tiny-Name-F16.gguf").values["general.name"] == "Tiny Name"


@pytest.mark.real
@pytest.mark.parametrize("named", ["tokenization_evil.Tokenizer", "evil/repo--tokenization_evil.Tokenizer"])
def test_code_of_a_checkpoint_does_not_run(checkpoint, converter, ggufbench, tmp_path, named):
    source, marker = copy_of(checkpoint, tmp_path), tmp_path / "ran"
    (source / "tokenizer.model").unlink()
    (source / "tokenization_evil.py").write_text(HOSTILE.format(marker=str(marker)))
    auto_map = {"AutoTokenizer": [named, named], "AutoConfig": named}
    # Of this architecture the converter loads the tokenizer with `trust_remote_code=True`.
    kind = {"architectures": ["HunYuanDenseV1ForCausalLM"], "model_type": "hunyuan_v1_dense"}
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, **kind, "auto_map": auto_map}))
    (source / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto_map}))
    hub = tmp_path / "home" / "hub" / "models--evil--repo"
    (hub / "snapshots" / ("1" * 40)).mkdir(parents=True)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("1" * 40)
    shutil.copy(source / "tokenization_evil.py", hub / "snapshots" / ("1" * 40))
    env = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    bare = [converter.python, converter.script, source, "--outfile", tmp_path / "bare.gguf"]
    subprocess.run(bare, env={**os.environ, **env}, capture_output=True, timeout=300, check=False)
    assert marker.exists()  # the danger is real
    marker.unlink()
    done = ggufbench("convert", source, tmp_path / "new.gguf", **env)
    assert done.returncode == 2
    assert "llama.cpp's converter could not convert tiny-llama: " in done.stderr
    assert not marker.exists() and not (tmp_path / "new.gguf").exists()


@pytest.mark.real
def test_converter_failure_messages(checkpoint, converter, refused, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    source, target = copy_of(checkpoint, tmp_path), tmp_path / "new.gguf"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(["some words of ours"] * 9, trainers.BpeTrainer(vocab_size=300))
    (source / "tokenizer.model").unlink()
    tokenizer.save(str(source / "tokenizer.json"))
    (source / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    sentence = refused("convert", source, target)
    assert "does not know its BPE pre-tokenizer" in sentence and "upgrade" in sentence

    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "architectures": ["OddForCausalLM\x1b[31m"]}))
    assert "Model OddForCausalLM_[31m is not supported" in refused("convert", source, target)
    assert not target.exists()


@pytest.mark.real
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_conversion_leaves_nothing(
    checkpoint, converter, started, tmp_path, wait_until, number, code
):
    out = tmp_path / "out"
    out.mkdir()
    process = started("convert", checkpoint, out / "new.gguf")
    wait_until(lambda: converters_of(process.pid), "the converter to start")
    children = converters_of(process.pid)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    wait_until(lambda: not any(child.is_running() for child in children), "the converter to end")
    assert list(out.iterdir()) == []


def converters_of(pid: int) -> list[psutil.Process]:
    found = psutil.Process(pid).children(recursive=True)
    return found if any("convert_hf_to_gguf.py" in " ".join(child.cmdline()) for child in found) else []


@pytest.mark.build
@pytest.mark.nightly
def test_converter_environment_is_made_once(checkpoint, tmp_path, monkeypatch):
    cache = Path(os.environ["GGUFBENCH_CACHE"])
    monkeypatch.setattr(converter_environment, "is_satisfied", lambda _: False)
    messages: list[str] = []
    first = converter_environment.get_converter(cache, messages.append, os.environ)
    assert first.python.is_relative_to(cache / "environments") and first.python != Path(sys.executable)
    messages.clear()
    assert converter_environment.get_converter(cache, messages.append, os.environ) == first
    assert messages == []
