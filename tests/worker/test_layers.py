"""The layers that applications put over llama.cpp, each measured unchanged."""

import dataclasses
import functools
import statistics
import subprocess
import sys

import pytest

from ggufbench.launching.launcher import Interpreter, launch
from ggufbench.machine.devices import AvailableDevices
from ggufbench.measuring.case import measure_case
from ggufbench.modelkit import SynthSpec, synthesize
from ggufbench.outcomes import Outcome
from ggufbench.planning.scenario import load_scenarios, scenario_folder
from ggufbench.records.store import read_record, write_record
from ggufbench.worker.compatibility import provider_problem
from ggufbench.worker.job import LAYERS
from ggufbench.worker.protocol import Loaded


@pytest.fixture(scope="session")
def wordy_folder(tmp_path_factory):
    """A tiny model with a vocabulary large enough for words."""
    folder = tmp_path_factory.mktemp("wordy")
    synthesize(folder / "llama-tiny-Q8_0.gguf", SynthSpec("llama", 4_000_000, "Q8_0", vocabulary=8192))
    return folder


@pytest.fixture(scope="module")
def layer_case(wordy_folder, plan_cases):
    """A function that returns the case of the tiny model through a layer."""

    def make(provider, launches=1, scenario="cpu", **workload):
        case = plan_cases(wordy_folder, scenario, launches=launches).cases[0]
        return dataclasses.replace(
            case,
            scenario=case.scenario.model_copy(update={"provider": provider}),
            workload=dataclasses.replace(case.workload, **workload),
        )

    return make


@pytest.fixture(scope="module")
def measured(layer_case, wordy_folder, plan_cases, make_bench):
    """A function that returns the record of that case through a layer, measured once."""

    @functools.cache
    def measure(provider):
        prepared = plan_cases(wordy_folder, launches=1)
        case = layer_case(provider, prompt_tokens=100, repetitions=4)
        return measure_case(case, make_bench(prepared))

    return measure


@pytest.mark.parametrize("provider", LAYERS)
def test_a_layer_is_measured_completely(provider, measured, tmp_path):
    record = measured(provider)
    assert record.outcome is Outcome.MEASURED, record.reason
    assert record.provider.name == provider
    assert {"langchain": "ggufbench", "langchain-community": "langchain-community"}.get(
        provider, "llama-cpp-python"
    ) in record.provider.versions
    found = record.launches[0]
    assert found.effective.n_ctx == 256
    assert set(found.effective.layers) == {"CPU"}
    for sample in found.samples:
        if sample.phase == "decode" and not sample.warmup:
            assert sample.tokens == len(sample.token_seconds) == len(sample.native_seconds) == 15
            times = zip(sample.token_seconds, sample.native_seconds, strict=True)
            assert all(native < whole for whole, native in times)
    assert record.summary["time_to_first_token_seconds"].minimum > 0
    assert record.summary["token_overhead_seconds"].minimum > 0
    assert "overhead_slope_seconds" in record.summary
    assert read_record(write_record(tmp_path / "results", record)) == record


def test_all_layers_give_the_same_answer(measured):
    digests = {provider: measured(provider).launches[0].digest for provider in LAYERS}
    assert len(set(digests.values())) == 1, digests


@pytest.mark.parametrize("provider", LAYERS)
def test_earlier_questions_are_not_cached(provider, measured):
    """A repeated question, as in a repeated sample, is evaluated completely."""
    samples = measured(provider).launches[0].samples
    prompts = [sample.seconds for sample in samples if sample.phase == "prompt"]
    assert min(prompts) > statistics.median(prompts) / 4, "no answer came from earlier results"


@pytest.mark.gpu
@pytest.mark.parametrize("provider", LAYERS)
def test_a_layer_on_a_device(provider, layer_case, wordy_folder, plan_cases, make_bench, with_rpc):
    prepared = plan_cases(wordy_folder, "rpc", launches=1)
    record = measure_case(layer_case(provider, scenario="rpc"), make_bench(prepared))
    assert record.outcome is Outcome.MEASURED, record.reason
    assert set(record.launches[0].effective.layers) == {"RPC0"}


def test_a_layer_refuses_unsupported_settings(layer_case):
    case = layer_case("langchain")
    setting = dataclasses.replace(case.setting, type_k="q8_0")
    problem = provider_problem("langchain", setting, case.workload)
    assert problem == 'provider langchain cannot be given type_k = "q8_0"; leave it out'


def test_missing_packages_skip_the_case_with_a_fix():
    bare = AvailableDevices(
        {}, "", supports_rpc=False, devices=[], missing_packages={"langchain": "langchain-core"}
    )
    assert bare.lacks_layer("langchain") == (
        "provider langchain needs packages that are not installed; `pip install langchain-core`"
    )
    assert bare.lacks_layer("llamacpp") is None


def test_shipped_layer_scenarios_have_equal_work():
    found = load_scenarios(scenario_folder(), [f"layer-{provider}" for provider in LAYERS])
    assert [scenario.provider for scenario in found] == list(LAYERS)
    assert len({scenario.workload.model_dump_json() for scenario in found}) == 1
    assert all(scenario.workload.generated_tokens == 512 for scenario in found)


@pytest.mark.parametrize("provider", LAYERS)
@pytest.mark.parametrize("flash_attn", ["on", "off"])
def test_flash_attention_follows_the_setting(provider, flash_attn, layer_case):
    case = layer_case(provider)
    case = dataclasses.replace(case, setting=dataclasses.replace(case.setting, flash_attn=flash_attn))
    assert provider_problem(provider, case.setting, case.workload) is None
    job = case.job(1, load_only=True)
    ended = launch(job, lambda _phase: 60, interpreter=Interpreter())
    assert ended.outcome is Outcome.MEASURED, ended.reason
    lines = [line for line in ended.find(Loaded).log if "flash_attn" in line]
    assert lines, "llama.cpp logs which it uses"
    assert all(("enabled" in line or "= 1" in line) == (flash_attn == "on") for line in lines), lines


_LOADS = """
import sys, llama_cpp
from ggufbench.chat.model import ChatLlamaCpp
before = set(sys.modules)
ChatLlamaCpp(model_path=sys.argv[1], n_ctx=256, n_gpu_layers=0, n_threads=1)
new = set(sys.modules) - before
print(*sorted(name for name in new if name.partition(".")[0] not in ("llama_cpp", "encodings")))
"""


@pytest.mark.real
def test_loading_imports_nothing(wordy_folder):
    """An import inside the load would count as part of the load time."""
    file = next(wordy_folder.glob("*.gguf"))
    done = subprocess.run([sys.executable, "-c", _LOADS, file], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
