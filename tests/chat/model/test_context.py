"""The context: learned positions, sliding windows, recurrent states, and reuse of a common prefix."""

from pathlib import Path

import numpy as np
import pytest

from ggufbench.chat.engine import AnswerUsage, ChatEngine
from ggufbench.chat.model import ChatLlamaCpp, ChatModelError

POSITIONS = 64


@pytest.fixture
def load():
    """A function that loads a model without a GPU, with small batches."""
    made = []

    def make(path, **options) -> ChatLlamaCpp:
        usual = {"n_gpu_layers": 0, "n_threads": 1, "n_batch": 64, "temperature": 0}
        made.append(
            ChatLlamaCpp(model_path=str(path), chat_template="{{ messages[0].content }}", **usual, **options)
        )
        return made[-1]

    yield make
    for chat in made:
        chat.close()


class TestLearnedPositions:
    """GPT-2 has a table of positions. llama.cpp aborts the process at a position beyond it."""

    @pytest.mark.parametrize(
        "options", [{}, {"n_ctx": POSITIONS}, {"n_ctx": 100}], ids=["default", "equal", "more"]
    )
    def test_the_context_ends_with_the_positions(self, load, gpt2_folder, options):
        chat = load(gpt2_folder / "gpt2-tiny-F32.gguf", **options)
        prompt = chat.get_num_tokens("ab ab")
        answer = chat.invoke("ab ab")
        usage = answer.usage_metadata
        assert answer.response_metadata["finish_reason"] == "length"
        # The last token of an answer is not evaluated.
        assert prompt + usage["output_tokens"] == POSITIONS + 1

    def test_a_longer_prompt_is_an_error(self, load, gpt2_folder):
        chat = load(gpt2_folder / "gpt2-tiny-F32.gguf")
        with pytest.raises(ChatModelError) as caught:
            chat.invoke("#" * (POSITIONS + 1))
        assert str(caught.value) == (
            "The prompt takes 65 tokens and the context of gpt2-tiny-F32 has 64, because the model has "
            "learned only that many positions; shorten the conversation, or use a model with a longer "
            "context."
        )
        assert chat.invoke("#" * POSITIONS).usage_metadata["output_tokens"] == 1

    def test_other_models_need_a_larger_context(self, load, model_folder):
        chat = load(model_folder / "llama-tiny-Q8_0.gguf", n_ctx=256)
        with pytest.raises(ChatModelError, match="has 256; shorten the conversation, or load the model with"):
            chat.invoke("#" * 300)


def logits_after(engine: ChatEngine, prompt: list[int]) -> tuple[np.ndarray, int]:
    """Logits of the token after the prompt, and the number of reused tokens."""
    usage = AnswerUsage()
    with engine.turn():
        engine._evaluate(prompt, usage, None)
        row = engine.api.llama_get_logits_ith(engine.context, -1)
        return np.ctypeslib.as_array(row, (engine.vocabulary_size,)).astype(np.float64), usage.reused


def divergence(reused: np.ndarray, fresh: np.ndarray) -> float:
    """KL divergence of the next token's distribution from that of a fresh evaluation, in nats."""
    logs = [row - row.max() - np.log(np.exp(row - row.max()).sum()) for row in (fresh, reused)]
    return float((np.exp(logs[0]) * (logs[0] - logs[1])).sum())


def cut_and_continue(engine: ChatEngine, held: list[int], kept: int, more: list[int]) -> tuple[float, int]:
    """KLD of a continuation after the first `kept` of the held tokens, and the number of reused ones."""
    prompt = [*held[:kept], *more]
    engine.reset()
    fresh, _ = logits_after(engine, prompt)
    engine.reset()
    logits_after(engine, held)
    again, reused = logits_after(engine, prompt)
    return divergence(again, fresh), reused


def some_tokens(engine: ChatEngine, count: int, seed: int) -> list[int]:
    source = np.random.default_rng(seed)
    return source.integers(1, engine.vocabulary_size - 20, count).tolist()


class TestReuse:
    """A prefix is reused only if the memory still has what the next token needs."""

    @pytest.mark.parametrize(("kept", "reused"), [(50, 0), (460, 0), (472, 472), (590, 590)])
    def test_of_a_sliding_window(self, load, model_folder, kept, reused):
        """Window 128 and batches of 64: the cache has 256 cells, and 344 is the oldest of 600 tokens."""
        engine = load(model_folder / "gpt-oss-tiny-MXFP4.gguf")._engine
        held, more = some_tokens(engine, 600, 1), some_tokens(engine, 20, 2)
        kld, found = cut_and_continue(engine, held, kept, more)
        assert (engine._window, found) == (128, reused)
        assert kld < 1e-3

    def test_without_the_rule_the_answer_would_be_wrong(self, load, model_folder, monkeypatch):
        """The control: `llama_memory_seq_rm` agrees to a cut before the oldest token."""
        monkeypatch.setattr(ChatEngine, "_has_window_before", lambda _engine, _position: True)
        engine = load(model_folder / "gpt-oss-tiny-MXFP4.gguf")._engine
        kld, reused = cut_and_continue(engine, some_tokens(engine, 600, 1), 50, some_tokens(engine, 20, 2))
        assert reused == 50
        assert kld > 0.1

    @pytest.mark.parametrize(("kept", "reused"), [(30, 0), (99, 0), (100, 100)])
    def test_of_a_recurrent_state(self, load, write_tiny, tmp_path, kept, reused):
        """A state cannot be cut, but it can be continued."""
        engine = load(write_tiny("mamba", tmp_path / "mamba-tiny-F32.gguf"))._engine
        kld, found = cut_and_continue(engine, some_tokens(engine, 100, 1), kept, some_tokens(engine, 9, 2))
        assert found == reused
        assert kld < 1e-3

    @pytest.mark.nightly
    def test_of_gemma_3(self, load, gemma3):
        """Window 512 and batches of 64: the cache has 768 cells, and 232 is the oldest of 1000 tokens."""
        engine = load(gemma3)._engine
        text = engine.prompt_tokens((Path(__file__).parents[3] / "docs" / "limits.md").read_text())
        held, more = text[:1000], text[100:120]
        for kept, reused in ((300, 0), (740, 0), (760, 760), (900, 900)):
            kld, found = cut_and_continue(engine, held, kept, more)
            assert found == reused
            assert kld < 0.05, "as much as batches of other sizes differ by rounding"
