"""The user's own provider: measured unchanged, and refused if a setting would not reach it."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from ggufbench.launching.launcher import Interpreter, launch
from ggufbench.measuring.case import measure_case
from ggufbench.outcomes import Outcome
from ggufbench.planning.scenario import ScenarioError, load_scenarios
from ggufbench.records.store import read_record, write_record
from ggufbench.worker.callables import Callee
from ggufbench.worker.channel import ProviderError
from ggufbench.worker.chat import _offered
from ggufbench.worker.compatibility import provider_problem
from ggufbench.worker.job import Job, Setting, Workload
from ggufbench.worker.protocol import AGAIN, GO, EffectiveSetting, Loaded, TimedSample

WORKERS = Path(__file__).parents[1] / "workers"
INTERPRETER = Interpreter(import_path=(WORKERS,))
REAL = "chat_models:get_chat_model"


@pytest.fixture
def chat_case(llama_folder, plan_cases):
    """A function that returns the case of the tiny llama with that provider."""

    def make(provider=REAL, launches=1, **setting):
        case = plan_cases(llama_folder, launches=launches).cases[0]
        return dataclasses.replace(
            case,
            scenario=case.scenario.model_copy(update={"provider": provider}),
            setting=dataclasses.replace(case.setting, **setting),
        )

    return make


@pytest.fixture
def run(chat_case):
    """A function that runs one launch with that provider."""

    def once(provider=REAL, *, interpreter=INTERPRETER, answer=lambda _event, _pid: GO, **setting):
        job = chat_case(provider, **setting).job(1)
        return launch(job, lambda _phase: 60, interpreter=interpreter, answer=answer)

    return once


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A function that returns the questions to the provider since its last call, in order."""
    path = tmp_path / "asked"
    monkeypatch.setenv("LLAMA_TEST_ASKED", str(path))

    def read():
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        path.unlink()
        return lines

    return read


def samples(ended, phase):
    assert ended.outcome is Outcome.MEASURED, ended.reason
    return [sample for sample in ended.all(TimedSample) if sample.phase == phase and not sample.warmup]


def test_a_case_is_measured_completely(chat_case, llama_folder, plan_cases, make_bench, tmp_path):
    prepared = plan_cases(llama_folder, launches=1)
    bench = make_bench(prepared, interpreter=INTERPRETER)
    record = measure_case(chat_case(launches=2), bench)
    engine = measure_case(prepared.cases[0], make_bench(prepared))
    assert record.outcome is Outcome.MEASURED, record.reason
    of_chat_models = {"token_overhead_seconds", "overhead_slope_seconds"}
    assert set(record.summary) == set(engine.summary) | of_chat_models
    assert record.summary["token_overhead_seconds"].minimum > 0
    assert {target.name: target.status for target in record.targets}["load"] == "met"
    assert record.provider.name == REAL
    assert record.provider.versions == engine.provider.versions
    assert record.provider.system_info == engine.provider.system_info
    first = record.launches[0]
    assert len({launch.digest for launch in record.launches} - {None}) == 1
    assert len(record.launches) == 2
    assert first.effective.layers == engine.launches[0].effective.layers
    assert (first.effective.n_ctx, first.effective.n_batch, first.effective.load_mode) == (256, 64, "mmap")
    assert (first.effective.n_threads, first.effective.description) == (None, None), "neither is reported"
    assert [mark.after for mark in first.marks] == [mark.after for mark in engine.launches[0].marks]
    assert (first.context_seconds, first.loop_overhead_seconds) == (None, None)
    assert read_record(write_record(tmp_path / "results", record)) == record


def test_questions_have_the_requested_length(run, asked):
    ended = run()
    questions = asked()
    prompts = [q for q in questions if "tell a story" in q["text"]]
    decodes = [q for q in questions if "Count upwards" in q["text"]]
    assert (len(prompts), len(decodes)) == (3, 3), "a warm-up and two samples"
    assert [sample.tokens for sample in samples(ended, "prompt")] == [q["tokens"] for q in prompts[1:]]
    assert all(90 <= q["tokens"] <= 100 for q in prompts)
    beginnings = {q["text"][:12] for q in prompts} | {q["text"][:26] for q in decodes}
    assert len(beginnings) == 6, "every beginning is different, so no cache can answer"
    assert [q["whole"] for q in prompts] == [False] * 3, "the answer to a long question is not waited for"
    assert [q["whole"] for q in decodes] == [True] * 3
    run()
    assert asked() == questions, "both arms of a comparison get the same questions"


def test_a_repeated_sample_has_another_question(run, asked):
    answers = {phase: iter([GO, AGAIN, GO, GO]) for phase in ("prompt", "decode")}

    def answer(event, _pid):
        return next(answers.get(event.phase, iter(())), GO) if isinstance(event, TimedSample) else GO

    ended = run(answer=answer)
    assert [len(samples(ended, phase)) for phase in ("prompt", "decode")] == [3, 3]
    texts = [question["text"] for question in asked()]
    assert len(set(texts)) == len(texts)


def test_the_provider_s_token_count_is_used_if_it_has_one(run):
    counted = samples(run("chat_models:counting"), "decode")
    thought = samples(run("chat_models:reasoning"), "decode")
    assert [sample.tokens for sample in thought] == [sample.tokens for sample in counted]
    assert all(8 <= sample.tokens <= 15 for sample in counted), "16 in all, less the first text"
    for sample in counted:
        assert sum(sample.token_seconds) == pytest.approx(sample.seconds)
        assert 1 < len(sample.token_seconds) <= 15


def test_short_answers_count_their_real_tokens(run):
    ended = run("chat_models:brief")
    for sample in samples(ended, "decode"):
        assert len(sample.token_seconds) == 2
        assert sample.tokens > 1
    assert ended.find(Loaded).effective == EffectiveSetting()


def test_provider_output_and_input_are_separate_from_the_harness(run):
    assert samples(run("chat_models:talkative"), "decode")


def test_a_provider_may_take_over_the_native_log(run):
    ended = run("chat_models:with_its_own_log")
    assert samples(ended, "decode")
    assert ended.find(Loaded).effective.n_ctx is None
    assert ended.find(Loaded).log == []


@pytest.mark.parametrize(
    ("provider", "phase", "sentence"),
    [
        ("no_such_module:x", "import", "the provider no_such_module:x needs the module no_such_module"),
        (
            "chat_models.inner:x",
            "import",
            "the provider chat_models.inner:x needs the module chat_models.inner",
        ),
        ("chat_broken:x", "import", "cannot be imported: ImportError: a dependency is missing"),
        ("chat_models:nothing", "import", "chat_models has no nothing"),
        ("chat_models:NO_FUNCTION", "import", "is a str, which cannot be called"),
        (
            "chat_models:take",
            "import",
            "does not accept n_gpu_layers, n_batch, n_threads, use_mmap, use_mlock,",
        ),
        ("chat_models:needing", "import", "needs api_key, which is not passed; write a function"),
        ("chat_models:failing", "load", "failed when it was called: RuntimeError: no such quantization"),
        ("chat_models:leaving", "load", "it ended in load with exit code 0"),
        ("chat_models:without_stream", "load", "returned a module that has no stream(text)"),
        ("chat_models:swallowing", "load", "was given n_ctx = 256 and made a context of 512; pass it on"),
        (
            "chat_models:of_no_text",
            "first_decode",
            "a chunk of the answer is a Chunk whose content is not text",
        ),
        ("chat_models:in_one_piece", "decode", "sent only one piece of text, and a rate needs two"),
        ("chat_models:breaking", "decode", "failed when it answered: OSError: the connection was lost"),
        ("chat_models:unbounded", "decode", "tokens, but max_tokens = 16 was given; pass it on"),
        ("chat_models:endless", "decode", " chunks, but max_tokens = 16 was given; pass it on"),
    ],
)
def test_provider_errors_have_one_message(run, provider, phase, sentence):
    ended = run(provider)
    assert (ended.outcome, ended.phase) == (Outcome.FAILED, phase)
    assert sentence in ended.reason
    assert "\n" not in ended.reason


@pytest.mark.parametrize(("provider", "phase"), [("silent", "first_decode"), ("monosyllabic", "decode")])
def test_answer_that_ends_early_is_an_outcome_of_its_own(run, provider, phase):
    ended = run(f"chat_models:{provider}")
    assert (ended.outcome, ended.phase) == (Outcome.NO_ANSWER, phase)
    assert f"chat_models:{provider} ended its answer before the second token" in ended.reason


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"flash_attn": "on"}, 'cannot be given flash_attn = "on"; leave it out and set it in the callable'),
        ({"type_k": "q8_0", "repack": False}, 'cannot be given type_k = "q8_0", repack = false'),
        ({"load_mode": "dio"}, 'load_mode = "dio"'),
        ({"n_ubatch": 32}, "n_ubatch = 32"),
        ({"n_threads_batch": 2}, "n_threads_batch = 2"),
        ({"n_ctx": 100}, "n_ctx = 100 is too small for a question and answer of 116 tokens; raise it"),
    ],
)
def test_unsupported_settings_are_refused_with_a_message(chat_case, setting, sentence):
    case = chat_case(**setting)
    assert sentence in provider_problem("app:make", case.setting, case.workload)


def test_the_worker_also_refuses_unsupported_settings(run):
    ended = run(flash_attn="on")
    assert (ended.outcome, ended.phase) == (Outcome.FAILED, "import")
    assert 'cannot be given flash_attn = "on"' in ended.reason


def test_a_file_without_a_tokenizer_is_an_error(chat_case, tmp_path):
    (tmp_path / "no.gguf").write_bytes(b"GGUF" + bytes(100))
    job = dataclasses.replace(chat_case("chat_models:brief").job(1), model_path=str(tmp_path / "no.gguf"))
    ended = launch(job, lambda _phase: 60, interpreter=INTERPRETER)
    assert (ended.outcome, ended.phase) == (Outcome.FAILED, "prompt")
    assert "the model's tokenizer cannot be used" in ended.reason


@pytest.fixture
def load_scenario(scenario_folder, tmp_path):
    """A function that loads the cpu scenario with that provider and these lines."""

    def load(provider, setting="", workload=""):
        text = (scenario_folder / "cpu.toml").read_text()
        text = text.replace("[setting]\n", f"[setting]\n{setting}\n").replace(
            "[workload]\n", f"[workload]\n{workload}\n"
        )
        (tmp_path / "targets.toml").write_text((scenario_folder / "targets.toml").read_text())
        (tmp_path / "cpu.toml").write_text(f"provider = {json.dumps(provider)}\n{text}")
        return load_scenarios(tmp_path)[0]

    return load


@pytest.mark.parametrize("provider", ["engine", REAL, "package.module:Class.method"])
def test_a_scenario_names_its_provider(load_scenario, provider):
    assert load_scenario(provider).provider == provider


@pytest.mark.parametrize(
    "provider",
    ["lama", "module:", ":callable", "a b:c", "os:system('x')", "../x:y", "m:c\n", "m:c:d", "x" * 5000],
)
def test_an_invalid_provider_name_is_refused(load_scenario, provider):
    with pytest.raises(ScenarioError) as refused:
        load_scenario(provider)
    assert "or 'package.module:callable'" in str(refused.value)
    assert "'langchain'" in str(refused.value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


def test_a_mistyped_provider_gets_a_suggestion(load_scenario):
    with pytest.raises(ScenarioError, match="did you mean langchain-community"):
        load_scenario("langchain_community")


@pytest.mark.parametrize(
    ("setting", "workload", "sentence"),
    [
        ('type_v = "q8_0"', "", 'cannot be given type_v = "q8_0"; leave it out'),
        ('load_mode = "dio"', "", 'load_mode = "dio"'),
        ("n_threads_batch = 2", "", "n_threads_batch = 2"),
        ("", "depth = 64", "cannot be given depth = 64"),
    ],
)
def test_unsupported_settings_are_refused_when_planning(load_scenario, setting, workload, sentence):
    assert load_scenario("engine", setting, workload)
    with pytest.raises(ScenarioError) as refused:
        load_scenario(REAL, setting, workload)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("setting", ['load_mode = "mmap+mlock"', "use_mmap = false", "n_threads_batch = 1"])
def test_supported_settings_are_accepted(load_scenario, setting):
    assert load_scenario(REAL, setting).provider == REAL


@pytest.mark.gpu
def test_only_the_log_proves_the_device(llama_folder, plan_cases, make_bench, chat_case, with_rpc):
    prepared = plan_cases(llama_folder, "rpc", launches=1)
    bench = make_bench(prepared, interpreter=INTERPRETER)
    records = [
        measure_case(
            dataclasses.replace(case, scenario=case.scenario.model_copy(update={"provider": provider})), bench
        )
        for case in prepared.cases
        for provider in (REAL, "chat_models:with_its_own_log")
    ]
    there, unproved = records
    assert there.outcome is Outcome.MEASURED, there.reason
    assert set(there.launches[0].effective.layers) == {"RPC0"}
    assert unproved.outcome is Outcome.FAILED
    assert "the use of rpc is not proved" in unproved.reason


def test_the_module_comes_only_from_the_import_path(run, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(WORKERS))
    ended = run(interpreter=Interpreter(python=Path(sys.executable)))
    assert "needs the module chat_models" in ended.reason


def test_variables_of_the_chat_template_are_an_argument():
    def usual(model_path, **others):
        return model_path, others

    def without(*, model_path, n_ctx, n_gpu_layers, n_batch, n_threads, use_mmap, use_mlock, temperature,
                max_tokens, seed):  # fmt: skip
        return model_path

    setting = Setting("cpu", chat_template_kwargs='{"enable_thinking": false}')
    job = Job("app:make", "model.gguf", setting, Workload())
    offered = _offered(job)
    assert offered["chat_template_kwargs"] == {"enable_thinking": False}
    assert Callee("app:make", usual).arguments(offered) == offered
    with pytest.raises(ProviderError, match="app:make does not accept chat_template_kwargs"):
        Callee("app:make", without).arguments(offered)
    plain = _offered(dataclasses.replace(job, setting=Setting("cpu")))
    assert Callee("app:make", without).arguments(plain) == plain
