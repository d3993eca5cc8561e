"""Checkpoints that would make transformers run code or load a pickle: the worker refuses them."""

import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ggufbench.discovery.header import read_header
from ggufbench.launching.launcher import Interpreter
from ggufbench.measuring.case import measure_case
from ggufbench.measuring.preparation import Request, prepare_run
from ggufbench.modelkit import SynthSpec, synthesize
from ggufbench.outcomes import Outcome
from ggufbench.worker.untrusted import adapter_refusal, checkpoint_refusal

SCENARIO = """
provider = "transformers"
[setting]
device = "cpu"
weights = "{weights}"
dtype = "{dtype}"
n_threads = 1
[workload]
prompt_tokens = 8
generated_tokens = 2
repetitions = 1
launches = 1
cold_launches = 0
[tolerance]
most_waiting = 1
most_other_work = 1
most_stolen = 1
most_disk_reads = 1000000
"""


class Bomb:
    """An object that creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory, scenario_folder) -> Path:
    folder = tmp_path_factory.mktemp("hostile-scenarios")
    shutil.copy(scenario_folder / "targets.toml", folder)
    for name, weights, dtype in (("gguf", "gguf", "float32"), ("original", "safetensors", "bfloat16")):
        (folder / f"{name}.toml").write_text(SCENARIO.format(weights=weights, dtype=dtype))
    return folder


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    """A tiny llama as GGUF, next to a checkpoint of the same shape in the format of transformers."""
    folder = tmp_path_factory.mktemp("pristine")
    synthesize(folder / "tiny-F16.gguf", SynthSpec("llama", 1_000_000, "F16", vocabulary=512))
    header = read_header(folder / "tiny-F16.gguf")
    width, layers = header.whole("llama.embedding_length"), header.whole("llama.block_count")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "intermediate_size": 128,
        "vocab_size": 512,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(llama_weights(width, layers), folder / "model.safetensors", {"format": "pt"})
    return folder


def llama_weights(width: int, layers: int) -> dict[str, np.ndarray]:
    """Tensors by the names of transformers, all with one small number."""
    shapes = {"embed_tokens": (512, width), "norm": (width,)}
    for layer in range(layers):
        names = {f"self_attn.{name}_proj": (width, width) for name in "qkvo"}
        names |= {"mlp.gate_proj": (128, width), "mlp.up_proj": (128, width), "mlp.down_proj": (width, 128)}
        names |= {"input_layernorm": (width,), "post_attention_layernorm": (width,)}
        shapes |= {f"layers.{layer}.{name}": shape for name, shape in names.items()}
    found = {f"model.{name}.weight": np.full(shape, 0.01, np.float16) for name, shape in shapes.items()}
    return {**found, "lm_head.weight": np.full((512, width), 0.01, np.float16)}


@pytest.fixture
def folder(pristine, tmp_path) -> Path:
    """A modifiable copy of these files."""
    return shutil.copytree(pristine, tmp_path / "models")


@pytest.fixture
def run(scenarios, folder, make_bench, one_probe):
    """A function that plans, modifies the files, and measures: files may change after discovery."""

    def run(scenario, spoil=lambda: None):
        places = {"places": [folder], "scenario_folder": scenarios, "results": folder / "none"}
        prepared = prepare_run(Request(scenarios=[scenario], **places), Interpreter())
        (case,) = prepared.cases
        assert case.skip is None
        spoil()
        # Without the check of the files before a launch, which would end each of these tests.
        return measure_case(replace(case, identities=()), make_bench(prepared))

    return run


def change(folder: Path, **values) -> None:
    """Change keys of the configuration."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def write_index(folder: Path, *names: object) -> None:
    """Replace the weights by an index."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": {f"w{number}": name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def plant_code(folder: Path, marker: Path) -> None:
    """Code under every name by which transformers recognizes code in a repository, and pickles."""
    code = f"import os\nos.mkdir({str(marker)!r})\n"
    for name in ("evil.py", "modeling_llama.py", "configuration_llama.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)
    for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(Bomb(marker)))
    classes = {name: f"evil.{name}" for name in ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")}
    change(folder, auto_map=classes, custom_pipelines={"text-generation": {"impl": "evil.Pipeline"}})


def test_code_and_pickles_next_to_the_weights_do_not_run(run, folder, tmp_path):
    """An architecture that transformers has is loaded by its own code, whatever the configuration names."""
    plant_code(folder, tmp_path / "ran")
    record = run("original")
    assert record.outcome is Outcome.MEASURED, record.reason
    assert not (tmp_path / "ran").exists()


def test_an_architecture_with_only_foreign_code_is_refused(run, folder, tmp_path):
    def spoil():
        plant_code(folder, tmp_path / "ran")
        change(folder, model_type="evil", architectures=["EvilForCausalLM"])

    record = run("original", spoil)
    assert (record.outcome, record.phase) == (Outcome.FAILED, "load")
    assert "custom code" in record.reason
    assert not (tmp_path / "ran").exists()


def test_an_index_does_not_lead_to_a_pickle(run, folder, tmp_path):
    """transformers loads the files that an index names, with torch.load if they are not safetensors files."""

    def spoil():
        (folder / "x.bin").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
        write_index(folder, "x.bin")

    record = run("original", spoil)
    assert (record.outcome, record.phase) == (Outcome.FAILED, "load")
    assert "model.safetensors.index.json names 'x.bin'" in record.reason
    assert not (tmp_path / "ran").exists()


def test_missing_weights_are_an_error(run, folder):
    """transformers fills missing weights with random numbers and warns; that is another model."""
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    record = run("original", lambda: change(folder, num_hidden_layers=layers + 1))
    assert (record.outcome, record.phase) == (Outcome.FAILED, "load")
    assert "weights are missing from the files" in record.reason


def test_the_requested_gguf_is_loaded(run, folder, tmp_path, monkeypatch):
    """transformers looks for `gguf_file` in the current folder first."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "tiny-F16.gguf").write_bytes(b"another file")
    monkeypatch.chdir(elsewhere)
    record = run("gguf")
    assert record.outcome is Outcome.MEASURED, record.reason


def test_a_saved_checkpoint_is_accepted(folder):
    assert checkpoint_refusal(folder) is None
    write_index(folder, "model-00001-of-00001.safetensors")
    assert checkpoint_refusal(folder) is None


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"transformers_weights": "adapter_model.bin"}, "transformers_weights"),
        ({"text_config": {"transformers_weights": "x.safetensors"}}, "transformers_weights"),
        ({"attn_implementation": "owner/kernel"}, "'owner/kernel'"),
        ({"_attn_implementation": "owner/kernel@main:run"}, "'owner/kernel@main:run'"),
        ({"_attn_implementation_internal": "owner/kernel"}, "'owner/kernel'"),
        ({"text_config": {"attn_implementation": {"": "eager", "a": "paged|x/y"}}}, "paged|x/y"),
        ({"parts": [[{"attn_implementation": "x/y"}]]}, "'x/y'"),
        ({"attn_implementation": "flash_attention_2"}, "flash_attention_2"),
        ({"attn_implementation": ["x/y"]}, "x/y"),
        ({"attn_implementation": {"a": {"b": "x/y"}}}, "x/y"),
    ],
)
def test_configurations_with_other_files_or_code_are_refused(folder, values, complaint):
    change(folder, **values)
    assert complaint in checkpoint_refusal(folder)


@pytest.mark.parametrize("value", [None, "eager", "sdpa", {"": "sdpa", "text_config": "eager"}])
def test_installed_attention_is_accepted(folder, value):
    change(folder, attn_implementation=value)
    assert checkpoint_refusal(folder) is None


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/x.safetensors", "a/x.safetensors", "x.bin", "x.safetensors.bin", "", 7, None],
)
def test_shards_elsewhere_or_of_other_types_are_refused(folder, name):
    write_index(folder, "model-00001-of-00001.safetensors", name)
    assert "not a safetensors file here" in checkpoint_refusal(folder)


@pytest.mark.parametrize(
    "data", [b"[" * (1 << 20), b"", b"[]", b"\xff", b" " * ((1 << 20) + 1), b'{"a":' * 9999]
)
@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json"])
def test_unreadable_files_are_refused_with_a_message(folder, file, data):
    write_index(folder, "model-00001-of-00001.safetensors")
    (folder / file).write_bytes(data)
    assert file in checkpoint_refusal(folder)


def test_a_pipe_does_not_block(folder):
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    assert "config.json is missing" in checkpoint_refusal(folder)


def test_an_adapter_is_refused(folder):
    assert adapter_refusal(folder) is None
    (folder / "adapter_config.json").symlink_to("nothing")
    for refusal in (adapter_refusal(folder), checkpoint_refusal(folder)):
        assert "adapter_config.json" in refusal
