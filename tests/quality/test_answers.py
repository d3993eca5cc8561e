"""The check that a candidate answers like the baseline: what passes, and what does not."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from ggufbench.launching.launcher import Interpreter
from ggufbench.quality import answers
from ggufbench.quality.answers import Side, can_check, check_answers
from ggufbench.quality.conversation import ScoringError
from ggufbench.quality.corpus import Corpus, shipped_corpus

pytestmark = pytest.mark.real
NOISY = Path(__file__).parents[1] / "workers" / "noisy_logits.py"


@pytest.fixture(scope="module")
def baseline(model_folder, plan_cases) -> Side:
    """The tiny llama on one thread."""
    cases = plan_cases(model_folder).cases
    case = next(case for case in cases if case.model.architecture == "llama")
    setting = dataclasses.replace(case.setting, n_threads=1, n_threads_batch=1)
    return Side(Interpreter(), dataclasses.replace(case, setting=setting), lambda _phase: 60)


def changed(side: Side, **setting: object) -> Side:
    """The side with a changed setting."""
    case = dataclasses.replace(side.case, setting=dataclasses.replace(side.case.setting, **setting))
    return dataclasses.replace(side, case=case)


def with_file(side: Side, path: Path) -> Side:
    """The side with another file."""
    model = dataclasses.replace(side.case.model, path=path, shards=(path,))
    return dataclasses.replace(side, case=dataclasses.replace(side.case, model=model))


def test_the_same_arm_gives_the_same_answers(baseline):
    check = check_answers(baseline, baseline)
    assert (check.verdict, check.reason, check.roundings) == ("same answers", None, [])
    assert [(passage.name, passage.one_by_one) for passage in check.passages[:2]] == [
        ("prose", False),
        ("prose", True),
    ]
    assert all(passage.divergence == 0 and passage.answer_tokens == 64 for passage in check.passages)


@pytest.mark.parametrize(
    "setting", [{"flash_attn": "off"}, {"n_ubatch": 32}, {"n_batch": 64, "n_ubatch": 64}]
)
def test_rounding_is_not_another_answer(baseline, setting):
    check = check_answers(baseline, changed(baseline, **setting))
    assert check.verdict in ("same answers", "other rounding"), check.reason


def test_a_cache_of_4_bits_is_another_answer(baseline):
    check = check_answers(baseline, changed(baseline, type_k="q4_0", type_v="q4_0"))
    assert check.verdict == "other answers"
    assert "nats a token in" in check.reason and "rounding explains" in check.reason
    assert len(check.roundings) == 2


def test_a_worker_with_noisy_logits_is_noticed(baseline, monkeypatch):
    monkeypatch.setenv("LLAMA_TEST_NOISE", "0.3")
    check = check_answers(baseline, dataclasses.replace(baseline, interpreter=Interpreter(entry=NOISY)))
    assert check.verdict == "other answers"


def test_noise_in_single_tokens_alone_is_noticed(baseline, monkeypatch):
    """A prompt and an answer use different kernels: damage of one of them is found too."""
    monkeypatch.setenv("LLAMA_TEST_NOISE", "0.3")
    monkeypatch.setenv("LLAMA_TEST_FIRST", "140")
    check = check_answers(baseline, dataclasses.replace(baseline, interpreter=Interpreter(entry=NOISY)))
    assert check.verdict == "other answers"


def test_a_corrupted_tensor_is_noticed(baseline, tmp_path):
    path = tmp_path / "damaged.gguf"
    shutil.copy(baseline.case.model.path, path)
    content = bytearray(path.read_bytes())
    start = len(content) // 2
    content[start : start + 4096] = bytes(4096)
    path.write_bytes(content)
    assert check_answers(baseline, with_file(baseline, path)).verdict == "other answers"


def test_another_tokenizer_is_said_first(baseline, tmp_path):
    path = tmp_path / "other.gguf"
    shutil.copy(baseline.case.model.path, path)
    content = path.read_bytes()
    one, other = (len(token).to_bytes(8, "little") + token for token in (b"he", b"at"))
    marked = content.replace(one, b"\0" * len(one), 1).replace(other, one, 1)
    path.write_bytes(marked.replace(b"\0" * len(one), other, 1))
    check = check_answers(baseline, with_file(baseline, path))
    assert check.verdict == "other answers"
    assert check.reason.startswith(
        "the candidate's tokenizer gives other tokens for the same text (prose, from"
    )


def test_a_candidate_that_fails_is_another_answer_and_a_baseline_that_fails_is_an_error(baseline, tmp_path):
    absent = with_file(baseline, tmp_path / "absent.gguf")
    check = check_answers(baseline, absent)
    assert check.verdict == "other answers"
    assert check.reason.startswith("the candidate cannot be scored:")
    with pytest.raises(ScoringError, match=r"absent\.gguf could not be scored"):
        check_answers(absent, baseline)


def test_the_divergence_over_the_texts_is_measured_if_it_is_gated(baseline, monkeypatch):
    less = {name: text[:2500] for name, text in shipped_corpus().texts.items()}
    monkeypatch.setattr(answers, "shipped_corpus", lambda: Corpus("less", less))
    check = check_answers(baseline, changed(baseline, flash_attn="off"), most_divergence=0.01)
    found = check.divergence
    assert found.most == 0.01 and found.tokens > 500
    assert 0 <= found.low <= found.kl_divergence <= found.high < 0.01


@pytest.mark.parametrize(("n_ctx", "fits"), [(128, True), (127, False)])
def test_a_context_must_hold_a_prompt_and_an_answer(baseline, n_ctx, fits):
    assert can_check(changed(baseline, n_ctx=n_ctx).case) is fits
