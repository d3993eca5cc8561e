"""The plan: stable ids, the selection, the needs of a case, and why it is skipped."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ggufbench.checks.native_log import parse_load_log
from ggufbench.discovery import discover
from ggufbench.launching.launcher import Interpreter, LaunchRefusedError, launch
from ggufbench.machine.devices import AvailableDevices
from ggufbench.machine.parts import Device
from ggufbench.measuring.case import measure_case
from ggufbench.measuring.preparation import Request, prepare_run
from ggufbench.outcomes import Outcome
from ggufbench.planning.plan import Host, PlanError, Selection, kv_bytes, make_plan, resolve_setting
from ggufbench.planning.scenario import load_scenarios
from ggufbench.records.store import write_record
from ggufbench.text import size
from ggufbench.worker.job import Job, Setting, Workload
from ggufbench.worker.protocol import GO, Loaded

GIB = 2**30
SIZES = """
import json, sys
import llama_cpp.llama_cpp as native
native.llama_backend_init()
params = native.llama_model_default_params()
for path in sys.argv[1:]:
    model = native.llama_model_load_from_file(path.encode(), params)
    print(json.dumps([native.llama_model_size(model), native.llama_model_n_params(model)]))
"""


@pytest.fixture(scope="module")
def models(model_folder):
    """The three tiny models by architecture."""
    return {model.architecture: model for model in discover([model_folder]).models}


@pytest.fixture(scope="module")
def scenarios(scenario_folder):
    """The cpu and the metal scenario."""
    return load_scenarios(scenario_folder, ["cpu", "metal"], env={})


@pytest.fixture(scope="module")
def make_host():
    """A function that returns a machine whose library sees these devices."""

    def make(available=1000 * GIB, past=None, **devices):
        seen = [
            Device(name=name, description=name, type="gpu", memory_free_bytes=free, memory_total_bytes=free)
            for name, free in {"CPU": 0, **devices}.items()
        ]
        return Host({"": AvailableDevices({}, "", False, seen)}, available, past or {})

    return make


@pytest.fixture
def twins(model_folder, tmp_path):
    """A function that makes two folders, each with a model of the same name, or with other letter case."""

    def make(first="twin-Q8_0.gguf", second="twin-Q8_0.gguf"):
        whole = bytearray((model_folder / "llama-tiny-Q8_0.gguf").read_bytes())
        for number, name in enumerate((first, second)):
            whole[-1] = number
            (tmp_path / str(number)).mkdir()
            (tmp_path / str(number) / name).write_bytes(whole)
        return tmp_path

    return make


def ids(cases):
    return [case.id for case in cases]


def test_ids_are_made_of_name_quantization_scenario_and_identity(models, scenarios, make_host):
    cases = make_plan(list(models.values()), scenarios, make_host(MTL0=GIB))
    own = cases[0].model.identity[:6]
    assert ids(cases)[:2] == [f"gpt-oss-tiny-MXFP4-cpu-{own}", f"gpt-oss-tiny-MXFP4-metal-{own}"]
    assert len(set(ids(cases))) == 6
    assert not any(case.skip for case in cases)


def test_an_id_does_not_depend_on_other_models(models, scenarios, make_host):
    whole = make_plan(list(models.values()), scenarios, make_host())
    alone = make_plan([models["qwen3"]], scenarios[1:], make_host())
    assert ids(alone)[0].startswith("qwen3-tiny-Q4_0-metal-")
    assert set(ids(alone)) < set(ids(whole))


@pytest.mark.parametrize("second", ["twin-Q8_0.gguf", "TWIN-Q8_0.gguf"])
def test_equal_names_are_distinguished_by_identity(twins, scenarios, make_host, second):
    """The same for names that differ only in case: on a Mac their results would be one file."""
    folder = twins(second=second)
    found = discover([folder]).models
    together = make_plan(found, scenarios, make_host())
    assert len({id.lower() for id in ids(together)}) == 4
    for case in together:
        assert case.model.identity[:6] in case.id
    again = make_plan(list(reversed(found)), scenarios, make_host())
    assert sorted(ids(again)) == sorted(ids(together))
    alone = make_plan(discover([folder / "0"]).models, scenarios[:1], make_host())
    assert set(ids(alone)) < set(ids(together)), "the id of a file stays when a second one appears"


def test_hostile_names_make_harmless_ids(model_folder, scenarios, make_host, tmp_path):
    whole = bytearray((model_folder / "llama-tiny-Q8_0.gguf").read_bytes())
    for number, name in enumerate(("..%2F..[x]::y.gguf", "模型.gguf", "型模.gguf", "a b\n$(id).gguf")):
        whole[-1] = number
        (tmp_path / name).write_bytes(whole)
    cases = make_plan(discover([tmp_path]).models, scenarios, make_host())
    assert len(set(ids(cases))) == 8
    for id in ids(cases):
        assert id.isascii() and id.isprintable() and not set(id) & set("/\\[]: ") and id[0] not in ".-"


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [
        (Selection(), ["gpt-oss-tiny", "llama-tiny", "qwen3-tiny"]),
        (Selection(match=["LLAMA"]), ["llama-tiny"]),
        (Selection(match=["tiny-q4"]), ["qwen3-tiny"]),
        (Selection(match=["*-tiny"]), ["gpt-oss-tiny", "llama-tiny", "qwen3-tiny"]),
        (Selection(match=["q*-tiny"]), ["qwen3-tiny"]),
        (Selection(match=["qwen3", "oss"]), ["gpt-oss-tiny", "qwen3-tiny"]),
        (Selection(match=["Publisher/Repo"]), ["llama-tiny"]),
        (Selection(quantizations=["q8_0", "MXFP4"]), ["gpt-oss-tiny", "llama-tiny"]),
        (Selection(match=["qwen3"], quantizations=["Q8_0"]), []),
    ],
)
def test_selection_by_name_label_repository_and_quantization(models, selection, chosen):
    known = [
        dataclasses.replace(model, repository="publisher/repo-gguf")
        if model.architecture == "llama"
        else model
        for model in models.values()
    ]
    assert [model.name for model in selection.choose(known)] == chosen


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        (
            Selection(match=["llma-tiny-Q8_0"]),
            "no model matches 'llma-tiny-Q8_0'; did you mean llama-tiny-Q8_0?",
        ),
        (
            Selection(match=["llama", "zzz"]),
            "no model matches 'zzz'; found: gpt-oss-tiny-MXFP4, llama-tiny-Q8_0 and qwen3-tiny-Q4_0",
        ),
        (
            Selection(quantizations=["Q4_K_M"]),
            "no model has the quantization 'Q4_K_M'; did you mean Q4_0?; found: MXFP4, Q4_0 and Q8_0",
        ),
    ],
)
def test_an_empty_selection_lists_the_models(models, selection, sentence):
    with pytest.raises(PlanError) as caught:
        selection.choose(list(models.values()))
    assert str(caught.value).startswith(sentence)


def test_a_selection_without_models_is_valid():
    assert Selection(match=["x"], quantizations=["y"]).choose([]) == []


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt-oss"])
@pytest.mark.parametrize(
    "changes",
    [
        {"n_ctx": 4096},
        {"n_ctx": 1000, "n_batch": 100, "n_ubatch": 300, "type_k": "q8_0", "type_v": "q5_1"},
        {"n_ctx": 600, "n_batch": 2048, "n_ubatch": 2048},
    ],
    ids=["usual", "odd", "batch larger than the context"],
)
@pytest.mark.real
def test_the_cache_size_agrees_with_llama_cpp(models, architecture, changes):
    model, setting = models[architecture], Setting("cpu", **changes)
    job = Job("engine", str(model.path), setting, Workload(8, 2, 0, 1))
    seen = {}

    def stop_when_loaded(event, _pid):
        if not isinstance(event, Loaded):
            return GO
        seen["log"] = [line for line in event.log if "KV buffer size" in line]
        raise LaunchRefusedError("enough")

    assert launch(job, lambda _phase: 60, answer=stop_when_loaded).reason == "enough"
    logged = sum(float(line.split("=")[1].split()[0]) for line in seen["log"]) * 2**20
    rounding = 0.005 * 2**20 * len(seen["log"])
    assert kv_bytes(model, setting) == pytest.approx(logged, abs=rounding + 1)
    assert len(seen["log"]) == (2 if architecture == "gpt-oss" else 1)


@pytest.mark.parametrize(
    "name",
    [pytest.param("gpt_oss", marks=pytest.mark.real), pytest.param("gemma3", marks=pytest.mark.nightly)],
)
def test_the_chat_model_and_the_engine_use_the_same_memory(request, models, name):
    """Both have a sliding window, and need only one row of a ubatch's logits."""
    path = models["gpt-oss"].path if name == "gpt_oss" else request.getfixturevalue(name)
    setting = Setting("cpu", n_ctx=2048)
    seen = {}

    def stop_when_loaded(event, _pid):
        if not isinstance(event, Loaded):
            return GO
        seen["buffers"] = parse_load_log(event.log).buffers
        raise LaunchRefusedError("enough")

    found = []
    for provider in ("engine", "langchain"):
        job = Job(provider, str(path), setting, Workload(8, 2, 0, 1))
        assert launch(job, lambda _phase: 60, answer=stop_when_loaded).reason == "enough"
        found.append(seen.pop("buffers"))
    assert found[0] == found[1]
    rounding = 0.01 * 2**20
    assert found[0]["KV"]["CPU"] == pytest.approx(kv_bytes(discover([path]).models[0], setting), abs=rounding)
    assert found[0]["compute"]["CPU"] < 64 * 2**20


@pytest.mark.real
def test_the_weights_size_agrees_with_llama_cpp(models):
    paths = [str(model.path) for model in models.values()]
    done = subprocess.run(
        [sys.executable, "-c", SIZES, *paths], capture_output=True, text=True, timeout=60, check=True
    )
    sizes = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert [[model.tensor_bytes, model.parameters] for model in models.values()] == sizes


def test_the_estimate_holds_for_a_real_run(models, plan_cases, make_bench, model_folder):
    prepared = plan_cases(model_folder, launches=1)
    for case in prepared.cases:
        peak = measure_case(case, make_bench(prepared)).summary["peak_rss_bytes"].median
        assert 0.4 * peak < case.estimate.host_bytes < 3 * peak


@pytest.mark.parametrize("n_ubatch", [128, 512])
def test_logits_need_memory_only_where_they_are_reserved(models, scenarios, make_host, n_ubatch):
    """The processor never writes unused ones, and the engine and the own chat model ask for one row."""

    def needs(scenario, provider):
        setting = scenario.setting.model_copy(update={"n_batch": 512, "n_ubatch": n_ubatch})
        changed = scenario.model_copy(update={"provider": provider, "setting": setting})
        return make_plan([models["llama"]], [changed], make_host(MTL0=GIB))[0].estimate

    cpu, metal = scenarios
    engine = needs(metal, "engine").device_bytes
    assert needs(metal, "langchain").device_bytes == engine
    for layer in ("llamacpp", "langchain-community"):
        assert needs(metal, layer).device_bytes == engine + n_ubatch * models["llama"].vocabulary * 4
        assert needs(cpu, layer).host_bytes == needs(cpu, "engine").host_bytes


def test_a_case_too_large_for_memory_is_skipped(models, scenarios, make_host):
    needed = make_plan([models["llama"]], scenarios[:1], make_host())[0].estimate.host_bytes
    (fits,) = make_plan([models["llama"]], scenarios[:1], make_host(available=needed))
    assert fits.skip is None
    (too_large,) = make_plan([models["llama"]], scenarios[:1], make_host(available=needed - 1))
    shown = size(needed)
    assert too_large.skip == f"does not fit: needs about {shown} of memory; {shown} is available"


def test_a_case_too_large_for_the_device_is_skipped(models, scenarios, make_host):
    (case,) = make_plan([models["llama"]], scenarios[1:], make_host(MTL0=2**20))
    assert case.skip == "does not fit: needs about 68.4 MiB on metal; 1.0 MiB is free there"
    (silent,) = make_plan([models["llama"]], scenarios[1:], make_host(MTL0=0))
    assert silent.skip is None, "a device that does not report its memory is tried"


class TestLearnedPositions:
    """A GPT-2 with a table of 64 positions: llama.cpp aborts the process at a position beyond it."""

    @pytest.fixture
    def plan_one(self, gpt2_folder, scenarios, make_host):
        """A function that plans it with a workload."""
        (found,) = discover([gpt2_folder]).models
        model = dataclasses.replace(found, chat_template=True)

        def plan(provider="engine", **workload):
            changed = scenarios[0].workload.model_copy(update=workload)
            scenario = scenarios[0].model_copy(update={"provider": provider, "workload": changed})
            return make_plan([model], [scenario], make_host())[0]

        return plan

    @pytest.mark.parametrize(
        ("needed", "provider", "prompt", "generated", "depth"),
        [
            (65, "engine", 65, 8, 0),
            (65, "engine", 8, 65, 0),
            (72, "engine", 8, 8, 64),
            (104, "llamacpp", 8, 8, 0),
            (104, "langchain-community", 8, 8, 0),
            (113, "langchain", 40, 9, 0),
        ],
    )
    def test_a_workload_beyond_them_is_skipped(self, plan_one, needed, provider, prompt, generated, depth):
        case = plan_one(provider, prompt_tokens=prompt, generated_tokens=generated, depth=depth)
        assert case.skip == (
            f"the model has 64 learned positions, and the workload needs {needed}: lower depth, "
            "prompt_tokens or generated_tokens"
        )

    def test_the_context_is_bounded(self, plan_one, models, scenarios, make_host):
        case = plan_one(prompt_tokens=64, generated_tokens=64)
        assert (case.skip, case.setting.n_ctx) == (None, 64)
        (usual,) = make_plan([models["llama"]], scenarios[:1], make_host())
        assert (usual.skip, usual.setting.n_ctx) == (None, 256)

    @pytest.mark.real
    def test_every_position_can_be_measured(self, gpt2_folder, plan_cases, make_bench):
        """Warm-ups are as long as a ubatch elsewhere; here they end at the last position."""
        prepared = plan_cases(gpt2_folder, launches=1)
        (case,) = prepared.cases
        assert case.skip.startswith("the model has 64 learned positions, and the workload needs 100: ")
        full = dataclasses.replace(case, workload=Workload(4, 4, 60, 1), skip=None)
        record = measure_case(full, make_bench(prepared))
        assert (record.outcome, record.reason) == (Outcome.MEASURED, None)


def test_apple_s_gpu_shares_the_memory_of_the_machine(models, scenarios, make_host):
    """Metal reports its own limit as free, whatever else runs; the host and the GPU take the same memory."""
    devices = {"MTL0": 100 * GIB}
    estimate = make_plan([models["llama"]], scenarios[1:], make_host(**devices))[0].estimate
    both = estimate.host_bytes + estimate.device_bytes
    (fits,) = make_plan([models["llama"]], scenarios[1:], make_host(available=both, **devices))
    assert fits.skip is None
    (too_large,) = make_plan([models["llama"]], scenarios[1:], make_host(available=both - 1, **devices))
    assert "which the GPU shares" in too_large.skip


def test_a_missing_device_has_a_reason_and_a_fix(models, scenarios, make_host):
    (case,) = make_plan([models["llama"]], scenarios[1:], make_host(CUDA0=GIB))
    assert case.skip.startswith("no metal device: this llama.cpp sees CPU, CUDA0 (on a Mac: CMAKE_ARGS=")


def test_layers_share_the_memory_between_host_and_device(models, scenarios, make_host):
    def estimate(layers):
        setting = scenarios[1].setting.model_copy(update={"n_gpu_layers": layers})
        scenario = scenarios[1].model_copy(update={"setting": setting})
        return make_plan([models["llama"]], [scenario], make_host(MTL0=GIB))[0].estimate

    none, some, whole = estimate(0), estimate(2), estimate(-1)
    assert none.device_bytes == 0 < some.device_bytes < whole.device_bytes
    assert none.host_bytes > some.host_bytes > whole.host_bytes
    assert estimate(999) == whole


def test_the_time_of_an_earlier_record_is_the_estimate(
    llama_folder, scenario_folder, plan_cases, make_bench, tmp_path
):
    prepared = plan_cases(llama_folder, launches=1)
    (case,) = prepared.cases
    assert not case.estimate.from_record
    record = measure_case(case, make_bench(prepared))
    assert record.outcome is Outcome.MEASURED
    results = tmp_path / "results"
    write_record(results, record)
    foreign = record.machine.model_copy(update={"fingerprint": "another"})
    slower = {"run_id": "z", "machine": foreign, "wall_seconds": 999.0}
    write_record(results, record.model_copy(update=slower))
    (results / "z" / "broken.json").write_text("{")

    request = Request([llama_folder], scenarios=["cpu"], scenario_folder=scenario_folder, results=results)
    (again,) = prepare_run(request, Interpreter()).cases
    assert (again.estimate.seconds, again.estimate.from_record) == (record.wall_seconds, True)
    renamed = shutil.move(llama_folder / "llama-tiny-Q8_0.gguf", llama_folder / "other-Q8_0.gguf")
    (moved,) = prepare_run(request, Interpreter()).cases
    assert moved.model.path == Path(renamed).resolve()
    assert moved.estimate.from_record, "the model is identified by its content, not by its name"


def test_a_cpu_scenario_keeps_all_layers(scenario_folder):
    (cpu,) = load_scenarios(scenario_folder, ["cpu"])
    assert resolve_setting(cpu).n_gpu_layers == 0


@pytest.fixture(scope="module")
def for_kinds():
    """The shipped scenarios of the processor: one for generators, four for vectors, one for T5."""
    folder = Path(__file__).resolve().parents[2] / "scenarios"
    return load_scenarios(folder, ["cpu", "embed", "encode-decode"], env={})


def test_each_kind_of_model_has_its_own_scenarios(models, encoder_folder, for_kinds, make_host):
    """A pair that makes no sense is not even a skipped case."""
    encoders = {model.name: model for model in discover([encoder_folder]).models}
    chosen = [encoders["bert-cls"], encoders["bert-rank"], models["llama"], encoders["t5"]]
    chosen = [dataclasses.replace(model, trained_context=512) for model in chosen]
    cases = make_plan(chosen, for_kinds, make_host())
    found = [(case.model.name, case.scenario.name.split("-prompt")[0]) for case in cases]
    assert found == [
        *[("bert-cls", "embed")] * 4, *[("bert-rank", "embed")] * 4, ("llama-tiny", "cpu"),
        ("t5", "encode-decode"),
    ]  # fmt: skip
    assert not any(case.skip for case in cases)
    assert {(case.workload.prompt_tokens, case.workload.sequences) for case in cases[:4]} == {
        (32, 1), (32, 4), (256, 1), (256, 4),
    }  # fmt: skip


def test_a_model_without_a_fitting_scenario_is_one_skipped_case(models, encoder_folder, for_kinds, make_host):
    encoders = {model.name: model for model in discover([encoder_folder]).models}
    plain, vectors = for_kinds[:1], for_kinds[1:5]
    for model, scenarios, reason in (
        (
            encoders["bert-mean"],
            plain * 2,
            'an embedding model, which needs a scenario with provider = "encoder"',
        ),
        (encoders["bert-rank"], plain, 'a reranker, which needs a scenario with provider = "encoder"'),
        (encoders["t5"], vectors, "an encoder-decoder model, which needs"),
        (
            models["llama"],
            vectors,
            'a model that generates text, which needs a scenario with provider = "engine"',
        ),
    ):
        (case,) = make_plan([model], scenarios, make_host())
        assert case.skip is not None and reason in case.skip


def test_a_sequence_longer_than_the_context_is_not_encoded(encoder_folder, for_kinds, make_host):
    """An encoder with learned positions has none after its context."""
    bert = next(model for model in discover([encoder_folder]).models if model.name == "bert-mean")
    skips = {case.workload.prompt_tokens: case.skip for case in make_plan([bert], for_kinds, make_host())}
    assert skips[32] is None
    assert skips[256] == "its context is 128 tokens, and a sequence of this scenario has 256"


def test_an_encoder_without_a_cache_needs_no_memory_for_it(encoder_folder, for_kinds, make_host):
    found = {model.name: model for model in discover([encoder_folder]).models}
    setting = resolve_setting(for_kinds[1])
    assert kv_bytes(found["bert-mean"], setting) == 0 < kv_bytes(found["causal"], setting)
    bert, causal = (
        make_plan([found[name]], for_kinds[1:2], make_host())[0] for name in ("bert-mean", "causal")
    )
    assert bert.estimate.host_bytes < causal.estimate.host_bytes
    assert bert.output_bytes == 4 * bert.workload.prompt_tokens * bert.workload.sequences * 512


def copies_of(source, folder, names):
    """Files with different content in the same shape, by their paths in the folder."""
    whole = bytearray(source.read_bytes())
    for number, name in enumerate(names):
        whole[-1] = number
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize(
    ("quantization", "chosen"),
    [
        ("Q8_0", {"x-Q8_0", "y-Q8_0"}),
        ("q8_k_xl", {"x-UD-Q8_K_XL"}),
        ("UD-Q8_K_XL", {"x-UD-Q8_K_XL"}),
        ("ud_q8_k_xl", {"x-UD-Q8_K_XL"}),
        ("Q8_0_L", {"x-Q8_0_L"}),
        ("Q4_K_M", {"y-Q8_0"}),  # named by the file name, although the header says Q8_0
    ],
)
def test_a_quantization_of_the_file_name_is_selected(model_folder, tmp_path, quantization, chosen):
    names = ("x-Q8_0.gguf", "x-UD-Q8_K_XL.gguf", "x-Q8_0_L.gguf", "y-Q4_K_M.gguf")
    copies_of(model_folder / "llama-tiny-Q8_0.gguf", tmp_path, names)
    found = Selection(quantizations=[quantization]).choose(discover([tmp_path]).models)
    assert {model.label for model in found} == chosen


def test_every_alias_selects_the_model(model_folder, tmp_path):
    copies_of(model_folder / "llama-tiny-Q8_0.gguf", tmp_path, ["a/first-Q8_0.gguf", "a/other.gguf"])
    (tmp_path / "b").mkdir()
    shutil.copyfile(tmp_path / "a" / "first-Q8_0.gguf", tmp_path / "b" / "second.Q8_0.gguf")
    (tmp_path / "b" / "third.gguf").symlink_to(tmp_path / "a" / "first-Q8_0.gguf")
    models = discover([tmp_path]).models
    for alias in ("first", "second-Q8_0", "second.Q8_0.gguf", "THIRD", "thir*"):
        assert [one.file_title for one in Selection(match=[alias]).choose(models)] == ["first"]
    with pytest.raises(PlanError, match=r"did you mean second\.Q8_0"):
        Selection(match=["secund.Q8_0"]).choose(models)


def test_layer_for_chat_skips_a_model_without_a_chat_template(models, scenarios, make_host):
    base = dataclasses.replace(models["llama"], chat_template=False)
    made = {
        provider: [
            case.skip
            for case in make_plan(
                [base, models["llama"]], [scenarios[0].model_copy(update={"provider": provider})], make_host()
            )
        ]
        for provider in ("engine", "app.models:make", "langchain", "llamacpp")
    }
    assert made["engine"] == made["app.models:make"] == [None, None]
    for provider in ("langchain", "llamacpp"):
        without, with_template = made[provider]
        assert without == (
            f"the model has no chat template, which provider {provider} needs; measure it with `cpu`"
        )
        assert with_template is None
