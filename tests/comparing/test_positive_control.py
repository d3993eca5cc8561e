"""Worker of the positive control, which does more work than it reports; no scenario can select it."""

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufbench.comparing.selftest import CONTROL_ENTRY
from ggufbench.launching.launcher import Interpreter, launch
from ggufbench.outcomes import Outcome
from ggufbench.planning.scenario import ScenarioError, load_scenarios
from ggufbench.worker.job import Workload
from ggufbench.worker.positive_control import HIDDEN_WORK, spread
from ggufbench.worker.protocol import Digest, TimedSample

OTHER_SHARE = Path(__file__).parents[1] / "workers" / "hidden_work.py"


@pytest.fixture
def run(llama_folder, plan_cases, monkeypatch):
    """A function that runs one launch with hidden work; the context has 256 tokens."""
    case = plan_cases(llama_folder, launches=1).cases[0]

    def once(hidden_work, **workload):
        chosen = dataclasses.replace(case, workload=Workload(repetitions=1, **workload))
        monkeypatch.setenv("LLAMA_TEST_HIDDEN_WORK", str(hidden_work))
        entry = CONTROL_ENTRY if hidden_work == HIDDEN_WORK else OTHER_SHARE
        interpreter = Interpreter(entry=entry) if hidden_work else Interpreter()
        return launch(chosen.job(1), lambda _phase: 60, interpreter=interpreter)

    return once


def samples(ended, phase):
    assert ended.outcome is Outcome.MEASURED, ended.reason
    return [sample for sample in ended.all(TimedSample) if sample.phase == phase]


def test_requested_tokens_are_reported_with_the_total_time(run):
    ended = run(0.1, prompt_tokens=30, generated_tokens=48)
    warmup, decoded = samples(ended, "decode")
    assert (decoded.tokens, len(decoded.token_seconds)) == (48, 48)
    assert sum(decoded.token_seconds) == pytest.approx(decoded.seconds)
    assert all(seconds > 0 for seconds in decoded.token_seconds)
    assert warmup.tokens == len(warmup.token_seconds) == 8
    assert [sample.tokens for sample in samples(ended, "prompt")] == [64, 30]
    honest = run(0.0, prompt_tokens=30, generated_tokens=48)
    assert honest.find(Digest) == ended.find(Digest), "the answer is unchanged"


@pytest.mark.parametrize(
    ("hidden_work", "really"), [(0.0, 48), (0.1, 53), (0.5, 72)], ids=["none", "a tenth", "half"]
)
def test_decodes_exactly_the_hidden_share_more(run, hidden_work, really):
    """A context for exactly that many tokens is enough, and one with a token less is not."""
    fits = run(hidden_work, prompt_tokens=1, generated_tokens=48, depth=256 - really)
    assert samples(fits, "decode")[-1].tokens == 48
    too_deep = run(hidden_work, prompt_tokens=1, generated_tokens=48, depth=257 - really)
    assert (too_deep.outcome, too_deep.phase) == (Outcome.FAILED, "decode")
    assert "the context is full" in too_deep.reason


def test_prompt_is_longer_by_the_same_share(run):
    fits = run(0.1, prompt_tokens=100, generated_tokens=1, depth=256 - 110)
    assert samples(fits, "prompt")[-1].tokens == 100
    too_deep = run(0.1, prompt_tokens=100, generated_tokens=1, depth=257 - 110)
    assert (too_deep.outcome, too_deep.phase) == (Outcome.FAILED, "prompt")


@pytest.mark.parametrize("provider", ["answers:get_chat_model", "llamacpp", "transformers"])
def test_providers_other_than_the_engine_are_refused(llama_folder, plan_cases, provider):
    """With another provider nothing would be slower, and the gate would seem to miss a regression."""
    job = dataclasses.replace(plan_cases(llama_folder).cases[0].job(1), provider=provider)
    ended = launch(job, lambda _phase: 60, interpreter=Interpreter(entry=CONTROL_ENTRY))
    assert ended.outcome is Outcome.FAILED
    assert f"the positive control cannot slow the provider {provider}" in ended.reason


@pytest.mark.parametrize("table", ["", "[setting]", "[workload]", "[gate]", "[tolerance]"])
def test_scenario_files_cannot_select_hidden_work(scenario_folder, tmp_path, table):
    (tmp_path / "targets.toml").write_text((scenario_folder / "targets.toml").read_text())
    text = (scenario_folder / "cpu.toml").read_text()
    line = "hidden_work = 0.1\n"
    at = text.find(table) + len(table) + 1 if table in text else None
    spoiled = f"{text}\n{table}\n{line}" if at is None else f"{text[:at]}\n{line}{text[at:]}"
    (tmp_path / "cpu.toml").write_text(line + text if not table else spoiled)
    with pytest.raises(ScenarioError, match=r"unknown key .*hidden_work"):
        load_scenarios(tmp_path)


times = st.lists(st.floats(1e-6, 10), min_size=1, max_size=60)


@given(times, st.data())
def test_spreading_keeps_total_time_and_order(seconds, data):
    count = data.draw(st.integers(1, len(seconds)))
    found = spread(seconds, count)
    assert len(found) == count
    assert sum(found) == pytest.approx(sum(seconds))
    for index in range(count + 1):
        passed = sum(found[:index])
        whole = math.floor(len(seconds) * index / count)
        assert sum(seconds[:whole]) <= passed + 1e-9
        assert passed <= sum(seconds[: whole + 1]) + 1e-9


@given(times)
def test_spreading_over_all_tokens_keeps_their_times(seconds):
    assert spread(seconds, len(seconds)) == seconds


@given(st.floats(1e-6, 1), st.integers(1, 60), st.integers(0, 60))
def test_equal_times_stay_equal(second, count, more):
    found = spread([second] * (count + more), count)
    assert found == pytest.approx([second * (count + more) / count] * count)
