"""The transformers baseline: real PyTorch from real files, measured and terminated like llama.cpp."""

import functools
import os
import shutil
import signal

import pytest

from ggufbench.calibration.probe import probe_transformers
from ggufbench.launching.launcher import Interpreter
from ggufbench.measuring import preparation
from ggufbench.measuring.case import measure_case
from ggufbench.measuring.preparation import Request, prepare_run
from ggufbench.modelkit import SynthSpec, synthesize
from ggufbench.outcomes import Outcome
from ggufbench.planning.scenario import ScenarioError, load_scenarios

pytestmark = pytest.mark.real

SCENARIO = """
provider = "transformers"
[setting]
device = "cpu"
weights = "{weights}"
dtype = "{dtype}"
n_threads = 1
[workload]
prompt_tokens = 40
generated_tokens = 12
depth = {depth}
repetitions = 2
launches = {launches}
cold_launches = 0
[tolerance]
most_waiting = 1
most_other_work = 1
most_stolen = 1
most_disk_reads = 1000000
"""


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory, scenario_folder):
    """The small scenarios, and both transformers ones."""
    folder = tmp_path_factory.mktemp("baseline-scenarios")
    shutil.copytree(scenario_folder, folder, dirs_exist_ok=True)
    for name, weights, dtype, depth, launches in (
        ("transformers-gguf", "gguf", "float32", 0, 1),
        ("transformers-bf16", "safetensors", "bfloat16", 0, 1),
        ("deep", "gguf", "float32", 30, 1),
    ):
        text = SCENARIO.format(weights=weights, dtype=dtype, depth=depth, launches=launches)
        (folder / f"{name}.toml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A folder with one llama of 16-bit weights, which both libraries read without unpacking anything."""
    folder = tmp_path_factory.mktemp("baseline-models")
    spec = SynthSpec("llama", 4_000_000, "F16", vocabulary=2048)
    synthesize(folder / "llama-tiny-F16.gguf", spec)
    return folder


@pytest.fixture(scope="module")
def checkpoint(llama, tmp_path_factory):
    """The same weights as a safetensors checkpoint."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("checkpoint")
    model = AutoModelForCausalLM.from_pretrained(str(llama), gguf_file="llama-tiny-F16.gguf")
    del model.config.quantization_config  # it was loaded from a GGUF, and is saved as plain weights
    plain = AutoModelForCausalLM.from_config(model.config, dtype=torch.bfloat16)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder)
    return folder


def with_original(folder, checkpoint, tmp_path):
    """The models of a folder, with their original checkpoint."""
    both = tmp_path / "both"
    shutil.copytree(folder, both)
    shutil.copytree(checkpoint, both, dirs_exist_ok=True)
    return both


@pytest.fixture(scope="module")
def plan(scenarios, one_probe):
    """A function that plans a folder with one of these scenarios."""

    def plan(folder, name):
        request = Request(
            places=[folder], scenarios=[name], scenario_folder=scenarios, results=folder / "none"
        )
        return prepare_run(request, Interpreter())

    return plan


@pytest.fixture(scope="module")
def run(plan, make_bench):
    """A function that measures the first case of a folder with a scenario."""

    def run(folder, name, **changes):
        prepared = plan(folder, name)
        return measure_case(prepared.cases[0], make_bench(prepared, **changes))

    return run


@pytest.fixture(scope="module")
def measured(run, llama):
    """A function that returns the record of the llama with a scenario, measured once."""
    return functools.cache(lambda name: run(llama, name))


def test_the_same_gguf_is_measured_with_the_same_metrics(measured):
    baseline, own = measured("transformers-gguf"), measured("cpu")
    assert baseline.outcome is Outcome.MEASURED, baseline.reason
    assert set(baseline.summary) == set(own.summary)
    assert baseline.provider.name == "transformers"
    assert {"torch", "transformers"} <= set(baseline.provider.versions)
    assert "LlamaForCausalLM, float32" in baseline.launches[0].effective.description
    assert baseline.launches[0].effective.n_threads == 1
    # Targets and limits apply to llama.cpp only.
    assert baseline.targets == [] == baseline.limits


def test_both_libraries_give_the_same_answer(measured):
    """The work is the same: one model, one prompt, and the 32 greedy tokens after it."""
    digests = {measured(name).launches[0].digest for name in ("transformers-gguf", "cpu")}
    assert len(digests) == 1


def test_no_sample_begins_with_a_cached_past(run, llama):
    """The worker itself refuses a cache of an unexpected length; at a depth it is longer."""
    record = run(llama, "deep")
    assert record.outcome is Outcome.MEASURED, record.reason
    assert [s.tokens for s in record.launches[0].samples if s.phase == "decode" and not s.warmup] == [12, 12]


def test_the_original_is_measured_in_bfloat16(run, llama, checkpoint, tmp_path):
    record = run(with_original(llama, checkpoint, tmp_path), "transformers-bf16")
    assert record.outcome is Outcome.MEASURED, record.reason
    assert "LlamaForCausalLM, bfloat16" in record.launches[0].effective.description
    assert record.model.original is not None
    assert record.loaded_bytes == (checkpoint / "model.safetensors").stat().st_size
    peak = record.summary["peak_rss_bytes"].median
    assert record.summary["peak_to_file_ratio"].median == pytest.approx(peak / record.loaded_bytes)


def test_an_original_is_measured_once_for_all_quantizations(plan, llama, checkpoint, tmp_path):
    folder = with_original(llama, checkpoint, tmp_path)
    synthesize(folder / "llama-tiny-Q8_0.gguf", SynthSpec("llama", 4_000_000, "Q8_0", vocabulary=2048))
    first, second = plan(folder, "transformers-bf16").cases
    assert first.skip is None
    assert second.skip == f"the same original checkpoint is measured as {first.id}"


def test_a_missing_original_is_explained(plan, llama):
    (case,) = plan(llama, "transformers-bf16").cases
    assert "`hf download" in case.skip


def test_an_unreadable_model_is_a_result(run, model_folder, tmp_path):
    folder = tmp_path / "gpt-oss"
    folder.mkdir()
    shutil.copy(model_folder / "gpt-oss-tiny-MXFP4.gguf", folder)
    record = run(folder, "transformers-gguf")
    if record.outcome is not Outcome.MEASURED:  # some releases of transformers read it
        assert (record.outcome, record.phase) == (Outcome.FAILED, "load")
        assert record.reason.startswith("transformers could not load: ")


@pytest.mark.parametrize(
    ("number", "outcome"), [(signal.SIGSTOP, Outcome.HUNG), (signal.SIGSEGV, Outcome.CRASHED)]
)
def test_a_hang_and_a_crash_are_results(run, llama, number, outcome):
    """A real signal stops or kills the worker while it loads."""

    def strike(moment):
        if moment is not None and moment.phase == "load":
            os.kill(moment.pid, number)

    record = run(llama, "transformers-gguf", observer=strike, deadline_scale=0.1)
    assert (record.outcome, record.phase) == (outcome, "load")
    assert "load" in record.reason


def test_missing_pytorch_skips_the_case_with_a_fix(tmp_path):
    """A module of that name that fails like a missing one replaces an environment without it."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    environment = probe_transformers(Interpreter(import_path=(tmp_path,)))
    assert "pip install torch transformers" in environment.lacks("cpu")


def test_a_device_missing_in_pytorch_is_named(one_probe):
    environment = preparation.probe_transformers(Interpreter())
    assert environment.problem is None
    assert environment.lacks("cpu") is None
    if not environment.gpu_names():
        assert environment.lacks("cuda").startswith("no cuda device: this transformers sees CPU")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("n_ctx = 512", "transformers cannot be given n_ctx = 512"),
        ('type_k = "q8_0"', "transformers cannot be given type_k"),
        ("repack = false", "transformers cannot be given repack"),
        ("n_threads_batch = 2", "transformers cannot be given n_threads_batch = 2"),
    ],
)
def test_settings_that_would_not_apply_are_refused(scenarios, tmp_path, change, complaint):
    text = SCENARIO.format(weights="gguf", dtype="float32", depth=0, launches=1)
    (tmp_path / "mine.toml").write_text(text.replace("n_threads = 1", f"n_threads = 1\n{change}"))
    shutil.copy(scenarios / "targets.toml", tmp_path)
    with pytest.raises(ScenarioError, match=complaint):
        load_scenarios(tmp_path, ["mine"])


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('provider = "transformers"', 'provider = "engine"', "weights and dtype are for"),
        ('device = "cpu"', 'device = "metal"', 'has no device "metal"; write cpu, mps or cuda'),
        ('dtype = "float32"', "", "transformers needs a dtype"),
        ('dtype = "float32"', 'dtype = "bfloat16"', "in float32"),
    ],
)
def test_a_setting_of_the_other_library_is_refused(scenarios, tmp_path, old, new, complaint):
    text = SCENARIO.format(weights="gguf", dtype="float32", depth=0, launches=1)
    (tmp_path / "mine.toml").write_text(text.replace(old, new))
    shutil.copy(scenarios / "targets.toml", tmp_path)
    with pytest.raises(ScenarioError, match=complaint):
        load_scenarios(tmp_path, ["mine"])
