"""Scenario files: their meaning, and one message for every mistake in them."""

import json
import math
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ggufbench.planning.plan import resolve_setting
from ggufbench.planning.scenario import ScenarioError, SettingSpec, load_scenarios, scenario_folder

SHIPPED = Path(__file__).resolve().parents[2] / "scenarios"
CPU = '[setting]\ndevice = "cpu"\n'
SCORER = 'provider = "scorer"\n'
GATED = '[gate]\nmetrics = ["decode_tokens_per_second", "kl_divergence"]'


@pytest.fixture
def folder(tmp_path):
    """A folder with the shipped targets and no scenario."""
    shutil.copy(SHIPPED / "targets.toml", tmp_path)
    return tmp_path


@pytest.fixture
def load(folder):
    """A function that writes the text as `mine.toml` and loads it."""

    def load(text: str | bytes, **env):
        (folder / "mine.toml").write_bytes(text.encode() if isinstance(text, str) else text)
        return load_scenarios(folder, ["mine"], env)

    return load


@pytest.fixture
def complaint(load):
    """A function that returns the message for a wrong file."""

    def complaint(text: str | bytes) -> str:
        with pytest.raises(ScenarioError) as caught:
            load(text)
        sentence = str(caught.value)
        assert "\n" not in sentence.removesuffix("\n")
        assert len(sentence) < 1000
        return sentence

    return complaint


def test_the_shipped_scenarios_are_valid():
    scenarios = {scenario.name: scenario for scenario in load_scenarios(SHIPPED, env={})}
    baselines = {name: scenarios.pop(name) for name in ("transformers-bf16", "transformers-gguf")}
    assert all(scenario.provider == "transformers" for scenario in baselines.values())
    chat = scenarios.pop("chat")
    assert (chat.provider, chat.setting.device) == ("langchain", "cpu")
    encoders = [name for name, one in scenarios.items() if one.is_encoder]
    texts = [f"embed-prompt_tokens{length}-sequences{count}" for length in (32, 256) for count in (1, 4)]
    assert encoders == ["embed-metal", *texts, "encode-decode"]
    for name in encoders:
        del scenarios[name]
    quality = scenarios.pop("quality")
    assert (quality.provider, quality.reference, quality.workload.prompt_tokens) == ("scorer", "file", 256)
    assert list(scenarios) == ["cpu", "cuda", "metal", "opencl", "rocm", "rpc", "sycl", "vulkan"]
    # Rates are compared with the baseline's, so the prompts have the same length.
    assert {one.workload.prompt_tokens for one in baselines.values()} == {
        scenarios["cpu"].workload.prompt_tokens
    }
    for name, scenario in scenarios.items():
        assert scenario.setting.device == name
        assert scenario.description
        assert resolve_setting(scenario).n_gpu_layers == (0 if name == "cpu" else -1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CPU + "n_ctxx = 1", ["unknown key setting.n_ctxx", "did you mean n_ctx?"]),
        (CPU + "zzzzzz = 1", ["unknown key setting.zzzzzz", "known here: device, n_ctx"]),
        (CPU + "[workload]\npromt_tokens = 1", ["workload.promt_tokens", "did you mean prompt_tokens?"]),
        (CPU + "[wrkload]\n", ["unknown key wrkload", "did you mean workload?"]),
        (CPU + "[targets.load]\nfloor = 1", ["targets.load.floor"]),
        (CPU + 'n_ctx = "4096"', ["setting.n_ctx = '4096'", "valid integer"]),
        (CPU + "n_ctx = 4096.0", ["setting.n_ctx = 4096.0"]),
        (CPU + "n_ctx = true", ["setting.n_ctx = True"]),
        (CPU + "n_ctx = 0", ["setting.n_ctx = 0", "greater than 0"]),
        (CPU + "n_ctx = 4294967808", ["setting.n_ctx = 4294967808", "less than"]),
        (CPU + "n_gpu_layers = -2", ["setting.n_gpu_layers = -2", "greater than or equal to -1"]),
        (CPU + 'n_threads = "all"', ["setting.n_threads = 'all'", "'auto', 'physical' or 'physical-1'"]),
        (CPU + 'load_mode = "fast"', ["setting.load_mode = 'fast'", "'mmap+mlock'"]),
        (CPU + 'type_k = "q3_k"', ["setting.type_k = 'q3_k'", "'q8_0'"]),
        ('[setting]\ndevice = "gpu"', ["setting.device = 'gpu'", "'metal'"]),
        ("[setting]\nn_ctx = 512", ["setting.device is missing; add it"]),
        ("", ["setting is missing; add it"]),
        ('[seting]\ndevice = "cpu"', ["unknown key seting", "did you mean setting?"]),
        (CPU + 'load_mode = "mmap"\nuse_mmap = true', ["load_mode", "leave out use_mmap and use_mlock"]),
        (CPU + "n_ctx = 256", ["n_ctx = 256 is too small for 512 tokens; raise it"]),
        (CPU + "[workload]\ndepth = 4000", ["n_ctx = 4096 is too small for 4512 tokens"]),
        (CPU + "n_batch = 256", ["n_ubatch = 512 is more than n_batch = 256; lower it"]),
        ('[setting]\ndevice = "rpc"', ["rpc_servers", "need each other"]),
        (CPU + 'rpc_servers = "localhost:1"', ['need each other; set both or neither']),
        (CPU + 'type_v = "q8_0"\nflash_attn = "off"', ["type_v", 'set flash_attn = "auto"']),
        ("setting = 3", ["setting is not a table; write it as [setting]"]),
        (CPU + "workload = 3", ["setting.workload"]),
        ("workload = []\n" + CPU, ["workload is not a table"]),
        ("[[setting]]\ndevice = 'cpu'", ["setting is not a table"]),
        ("targets = 3\n" + CPU, ["targets is not a table"]),
        (CPU + "[targets]\nload = 3", ["targets.load is not a table"]),
        (CPU + "n_ctx = []", ["setting.n_ctx is an empty list; give it a value"]),
        (CPU + "n_ctx = [[4096]]", ["setting.n_ctx = [4096]"]),
        (CPU + "n_ctx = [4096, 4096]", ["two scenarios called mine-n_ctx4096; "]),
        (CPU + f"n_ctx = {list(range(512, 1613))}", ["1101 scenarios, and the limit is 1000"]),
        ('name = "../../x"\n' + CPU, ["unknown key name", "leave it out"]),
        (CPU + '"\\u001b[31m" = 1', ["unknown key setting._[31m"]),
        (CPU + f'n_ctx = "{"9" * 5000}"', ["setting.n_ctx = '9999", "... is not usable"]),
        (CPU + f"n_ctx = {'9' * 5000}", ["is not TOML"]),
        (CPU + "[targets.load]\nfloor_bytes_per_second = nan", ["targets.load.floor_bytes_per_second = nan"]),
        (CPU + "[targets.load]\nfloor_bytes_per_second = inf", ["targets.load.floor_bytes_per_second = inf"]),
        ("device: cpu", ["is not TOML", "line 1"]),
        (b'description = "\xff"', ["is not TOML", "not UTF-8 at byte 15; save it as UTF-8"]),
        ("a = " + "[" * 100_000, ["nested too deeply"]),
        ('provider = "magic"\n' + CPU, ["provider = 'magic'", "'engine'"]),
        ('reference = "file"\n' + CPU, ['reference is for provider = "scorer" alone; leave it out']),
        ('text = "a.txt"\n' + CPU, ['text is for provider = "scorer" alone; leave it out']),
        (SCORER + "reference = 3\n" + CPU, ["reference = 3"]),
        (SCORER + CPU + "[workload]\ndepth = 8", ["provider scorer does not use depth; leave it out"]),
        (SCORER + CPU + "[workload]\nlaunches = 2", ["provider scorer does not use launches; leave it out"]),
        (SCORER + CPU + GATED, ['kl_divergence is for provider = "engine" alone; leave it out']),
        (CPU + '[gate]\nmetrics = ["kl_divergence"]', ["gate.metrics has no speed or size; name one"]),
        (CPU + '[gate]\nmetrics = ["perplexity"]', ["'perplexity' is not a metric that can be gated"]),
        (CPU + "[gate]\nmost_kl_divergence = 0", ["gate.most_kl_divergence = 0"]),
        (
            CPU + "[gate.tolerance.kl_divergence]\nrelative = 0.1",
            ["the tolerance of kl_divergence is in nats; write gate.most_kl_divergence"],
        ),
    ],
)  # fmt: skip
def test_errors_name_the_file_the_key_and_the_fix(complaint, folder, text, words):
    sentence = complaint(text)
    assert str(folder) in sentence
    for word in words:
        assert word in sentence


@pytest.mark.parametrize("name", ["mine.toml", "targets.toml"])
def test_a_scenario_that_is_no_regular_file_is_an_error_at_once(folder, load, name):
    load(CPU)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ScenarioError, match=f"{name} cannot be read: it is a pipe"):
        load_scenarios(folder, ["mine"])
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    with pytest.raises(ScenarioError, match=f"{name} cannot be read: it is a pipe, a socket or a device"):
        load_scenarios(folder, ["mine"])


def test_a_vast_scenario_is_not_read(folder, load):
    load(CPU)
    with (folder / "mine.toml").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(ScenarioError, match="it has 1099511627776 bytes, and the limit is 1048576"):
        load_scenarios(folder, ["mine"])


def test_an_unreadable_scenario_is_an_error(folder):
    (folder / "mine.toml").mkdir()
    with pytest.raises(ScenarioError, match=r"mine\.toml cannot be read: it is a folder"):
        load_scenarios(folder)


def test_a_folder_without_scenarios(folder):
    with pytest.raises(ScenarioError, match="contains no scenario; copy one"):
        load_scenarios(folder)


def test_an_unknown_name_gets_the_nearest_and_all(load, folder):
    load(CPU)
    with pytest.raises(ScenarioError, match=r"no scenario 'mien'; did you mean mine\?; known: mine"):
        load_scenarios(folder, ["mien"])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[memory]", "[memry]", "unknown key memry; did you mean memory?"),
        ("allowance_bytes", "allowence_bytes", "unknown key memory.allowence_bytes; did you mean allow"),
        ("1.1e9 ", '"fast"', "load.floor_bytes_per_second = 'fast'"),
        ("[load]", "[loaf]", "unknown key loaf; did you mean load?"),
        ("[load]", "[load", "is not TOML"),
    ],
)
def test_a_mistake_in_the_targets_names_that_file(load, folder, old, new, words):
    targets = folder / "targets.toml"
    assert old in targets.read_text()
    targets.write_text(targets.read_text().replace(old, new, 1))
    with pytest.raises(ScenarioError) as caught:
        load(CPU + "[targets.load]\nsmall_file_seconds = 2.0")
    assert str(caught.value).startswith(str(targets))
    assert words in str(caught.value)


def test_missing_targets_have_a_fix(load, folder):
    (folder / "targets.toml").unlink()
    with pytest.raises(ScenarioError, match=r"targets\.toml cannot be read: .*; copy the one that ggufbench"):
        load(CPU)


def test_lists_make_a_matrix_with_names(load):
    scenarios = load(CPU + "n_threads = [1, 'physical']\n[workload]\ndepth = [0, 1024]\n")
    assert [scenario.name for scenario in scenarios] == [
        "mine-n_threads1-depth0",
        "mine-n_threads1-depth1024",
        "mine-n_threadsphysical-depth0",
        "mine-n_threadsphysical-depth1024",
    ]
    assert [(s.setting.n_threads, s.workload.depth) for s in scenarios][1:3] == [(1, 1024), ("physical", 0)]


def test_a_list_of_one_still_shows_in_the_name(load):
    assert [scenario.name for scenario in load(CPU + "n_ctx = [2048]")] == ["mine-n_ctx2048"]


def test_names_are_safe_in_ids_and_paths(load):
    rpc = '[setting]\ndevice = "rpc"\nrpc_servers = ["../a:1,b:2", "c:3"]'
    assert [s.name for s in load(rpc)] == ["mine-rpc_servers.._a_1_b_2", "mine-rpc_serversc_3"]


def test_two_files_cannot_make_the_same_name(load, folder):
    (folder / "mine-n_ctx2048.toml").write_text(CPU)
    (folder / "mine.toml").write_text(CPU + "n_ctx = [2048]")
    with pytest.raises(ScenarioError, match="two scenarios called mine-n_ctx2048; rename a file"):
        load_scenarios(folder)


def test_the_environment_names_the_rpc_servers(load):
    text = '[setting]\ndevice = "rpc"\nrpc_servers = "here:1"\n'
    assert load(text)[0].setting.rpc_servers == "here:1"
    assert load(text, GGUFBENCH_RPC="there:2")[0].setting.rpc_servers == "there:2"
    assert load(text, GGUFBENCH_RPC="")[0].setting.rpc_servers == "here:1"
    assert load('[setting]\ndevice = "rpc"\n', GGUFBENCH_RPC="there:2")[0].setting.rpc_servers == "there:2"
    assert load(CPU, GGUFBENCH_RPC="there:2")[0].setting.rpc_servers == ""


def test_a_scenario_overrides_one_target_and_keeps_the_others(load):
    (plain,) = load(CPU)
    (changed,) = load(CPU + "[targets.memory]\nallowance_bytes = 7\n")
    assert changed.targets.memory.allowance_bytes == 7
    assert changed.targets.memory.peak_to_file_ratio == plain.targets.memory.peak_to_file_ratio
    assert changed.targets.load == plain.targets.load


@pytest.mark.parametrize(
    ("keys", "mode"),
    [
        ({}, "auto"),
        ({"load_mode": "dio"}, "dio"),
        ({"use_mmap": True}, "mmap"),
        ({"use_mmap": False}, "none"),
        ({"use_mlock": True}, "mmap+mlock"),
        ({"use_mlock": False}, "mmap"),
        ({"use_mmap": True, "use_mlock": True}, "mmap+mlock"),
        ({"use_mmap": False, "use_mlock": True}, "mlock"),
        ({"use_mmap": False, "use_mlock": False}, "none"),
    ],
)
def test_the_older_switches_mean_a_load_mode(keys, mode):
    assert SettingSpec(device="cpu", **keys).effective_load_mode == mode


def test_words_for_threads_become_numbers(load, monkeypatch):
    monkeypatch.setattr("ggufbench.machine.facts.physical_cores", lambda: 8)
    monkeypatch.setattr("ggufbench.machine.facts.usable_cores", lambda: 16)

    def threads(text):
        setting = resolve_setting(load(CPU + text)[0])
        return setting.n_threads, setting.n_threads_batch

    assert threads("") == (8, 8)
    assert threads('n_threads = "physical-1"') == (7, 7)
    assert threads('n_threads = 3\nn_threads_batch = "physical"') == (3, 8)


def test_a_folder_is_found_or_refused(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert scenario_folder(folder) == folder
    assert (scenario_folder() / "targets.toml").is_file()
    with pytest.raises(ScenarioError, match=r"is not a folder; give one that holds scenario files"):
        scenario_folder(folder / "targets.toml")


# Strings here have no surrogates, which a TOML file cannot contain.
_words = st.sampled_from(
    ["setting", "workload", "targets", "load", "memory", "device", "cpu", "rpc", "n_ctx", "n_threads", "auto",
     "name", "provider", "engine", "prompt_tokens", "depth", "rpc_servers", "flash_attn", "type_v"]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)  # fmt: skip
_scalars = st.booleans() | st.integers(-(2**65), 2**65) | st.floats() | _words
_tomls = st.dictionaries(
    _words,
    st.recursive(
        _scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=4),
        max_leaves=8,
    ),
    max_size=4,
)
_settings = st.fixed_dictionaries({"device": st.just("cpu") | _words, "n_ctx": _scalars | st.lists(_scalars)})


def toml(value) -> str:
    """A value as TOML; dictionaries become inline tables."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return str(value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_tomls | st.fixed_dictionaries({"setting": _settings}, optional={"targets": _tomls}))
def test_files_raise_only_scenario_errors(load, content):
    text = "\n".join(f"{toml(key)} = {toml(value)}" for key, value in content.items())
    try:
        scenarios = load(text)
    except ScenarioError as error:
        assert str(error).isprintable() or "is not TOML" in str(error)
    else:
        assert all(scenario.setting.n_ctx > 0 for scenario in scenarios)


def test_on_request_scenarios_run_only_if_named():
    folder = SHIPPED
    usual = {scenario.name for scenario in load_scenarios(folder) if not scenario.is_encoder}
    assert usual == {
        "chat", "cpu", "cuda", "metal", "opencl", "quality", "rocm", "rpc", "sycl", "transformers-bf16",
        "transformers-gguf", "vulkan",
    }  # fmt: skip
    depths = load_scenarios(folder, ["depth"])
    assert [scenario.workload.depth for scenario in depths] == [0, 1024, 4096]
    assert all(scenario.on_request for scenario in depths)


@pytest.mark.parametrize("name", ["depth", "prompt-length", "threads", "kv-types", "loading"])
def test_every_on_request_scenario_is_a_matrix_that_fits(name):
    assert len(load_scenarios(SHIPPED, [name])) > 2


def test_a_tolerance_is_a_share_and_its_keys_are_known(load, complaint):
    (scenario,) = load(CPU + "[tolerance]\nmost_other_work = 0.4\n")
    assert (scenario.tolerance.most_other_work, scenario.tolerance.most_waiting) == (0.4, 0.03)
    assert "tolerance.most_waiting = 3.0 is not usable" in complaint(
        CPU + "[tolerance]\nmost_waiting = 3.0\n"
    )
    sentence = complaint(CPU + "[tolerance]\nmost_wating = 0.3\n")
    assert "unknown key tolerance.most_wating; did you mean most_waiting" in sentence


KEYS = "chat_template_kwargs = { enable_thinking = false, budget = 20260101 }\n"


@pytest.mark.parametrize("provider", ["langchain", "app.models:make"])
def test_variables_of_the_chat_template_reach_the_setting(load, provider):
    [scenario] = load(f'provider = "{provider}"\n{CPU}{KEYS}')
    setting = resolve_setting(scenario)
    assert json.loads(setting.chat_template_kwargs) == {"enable_thinking": False, "budget": 20260101}
    [plain] = load(f'provider = "{provider}"\n{CPU}')
    assert resolve_setting(plain).chat_template_kwargs == ""


def test_variables_of_the_chat_template_can_vary(load):
    varied = "chat_template_kwargs = [{ enable_thinking = true }, { enable_thinking = false }]\n"
    settings = [resolve_setting(one) for one in load(f'provider = "langchain"\n{CPU}{varied}')]
    assert len({setting.chat_template_kwargs for setting in settings}) == 2


@pytest.mark.parametrize("provider", ["engine", "llamacpp", "langchain-community"])
def test_variables_of_the_chat_template_that_would_be_ignored(complaint, provider):
    sentence = complaint(f'provider = "{provider}"\n{CPU}{KEYS}')
    assert f'provider {provider} ignores chat_template_kwargs; leave it out, or write "langchain"' in sentence


def test_invalid_variables_of_the_chat_template(complaint):
    text = f'provider = "langchain"\n{CPU}chat_template_kwargs = '
    assert "chat_template_kwargs = 'yes' is not usable" in complaint(text + '"yes"\n')
    assert "chat_template_kwargs = datetime" in complaint(text + "{ day = 2026-01-01 }\n")


@pytest.mark.parametrize(
    ("provider", "text", "sentence"),
    [
        (
            "encoder",
            "[workload]\nsequences = 4\nprompt_tokens = 200",
            "4 x 200 tokens at once; raise it to 800",
        ),
        ("encoder", "[workload]\ngenerated_tokens = 5", "provider encoder generates nothing"),
        ("encoder", "[workload]\ndepth = 5", "provider encoder cannot be given depth = 5"),
        ("encoder", "[workload]\nsequences = 257", "sequences"),
        ("encoder-decoder", "[workload]\nsequences = 2", 'is for provider = "encoder" alone; leave it out'),
        ("engine", "[workload]\nsequences = 2", 'sequences = 2 is for provider = "encoder" alone'),
        ("transformers", "[workload]\nsequences = 2", 'sequences = 2 is for provider = "encoder" alone'),
        (
            "encoder",
            "n_ubatch = 509\n[workload]\nsequences = 2\nprompt_tokens = 9",
            "n_ubatch = 509 has no divisor from 2 to 256",
        ),
    ],
)
def test_workloads_that_do_not_fit_an_encoder(complaint, provider, text, sentence):
    assert sentence in complaint(f'provider = "{provider}"\n{CPU}{text}\n')


def test_an_encoder_is_gated_by_its_own_rates(load):
    (plain,) = load(f'provider = "encoder"\n{CPU}')
    assert plain.gate.metrics == ["encode_tokens_per_second", "ready_seconds", "peak_rss_bytes"]
    (chosen,) = load(f'provider = "encoder"\n{CPU}[gate]\nmetrics = ["encode_seconds"]\n')
    assert chosen.gate.metrics == ["encode_seconds"]
    (both,) = load(f'provider = "encoder-decoder"\n{CPU}[gate.tolerance]\nload_seconds.relative = 0.3\n')
    assert both.gate.metrics[:2] == ["decode_tokens_per_second", "encode_tokens_per_second"]
    assert both.gate.tolerance["load_seconds"].relative == 0.3


def test_a_text_lies_beside_its_scenario(load, folder):
    (scenario,) = load(SCORER + 'text = "notes.txt"\n' + CPU)
    assert scenario.text == str(folder / "notes.txt")
    assert scenario.measures("quality") and not scenario.measures("load") and not scenario.generates


def test_a_gated_divergence_is_a_benchmark_of_quality(load):
    (scenario,) = load(CPU + GATED)
    assert scenario.measures("quality") and scenario.measures("load")
    assert scenario.gate.timed == ["decode_tokens_per_second"] and scenario.gate.most_kl_divergence == 0.01
