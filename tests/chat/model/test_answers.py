"""Answers: whole and streamed texts, their end, and their token usage."""

import ctypes

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.prompts import ChatPromptTemplate

from ggufbench.chat.chunks import text_chunk
from ggufbench.chat.model import ChatLlamaCpp, ChatModelError
from ggufbench.chat.text_reader import TextReader, stop_texts

TEN = "one two three four five six seven eight nine ten"


def joined(chunks) -> AIMessageChunk:
    first, *rest = chunks
    return first + rest


def test_langchain_usage_from_its_documentation(trained_path):
    chat = ChatLlamaCpp(model_path=str(trained_path), n_ctx=512, n_gpu_layers=0, n_threads=1, temperature=0)
    assert chat.invoke([HumanMessage("Hello")]).content == "Hello! What shall we do?"
    assert chat.invoke([SystemMessage("You are a pirate."), HumanMessage("Who are you?")]).content == (
        "Arr, a pirate."
    )
    prompt = ChatPromptTemplate.from_messages([("system", "You are a {role}."), ("human", "{question}")])
    chain = prompt | chat | StrOutputParser()
    asked = {"role": "pirate", "question": "Who are you?"}
    assert chain.invoke(asked) == "Arr, a pirate."
    assert "".join(chain.stream(asked)) == "Arr, a pirate."
    assert [answer.content for answer in chat.batch(["Hey", "hello"])] == ["Hey there.", "Hello again."]


def test_characters_of_several_bytes_arrive_whole(trained, known):
    pieces = [chunk.text for chunk in trained.stream("Write me 2 haikus. Only include the haikus.")]
    assert "".join(pieces) == known["haikus"]
    assert trained.invoke("Write me 2 haikus. Only include the haikus.").content == known["haikus"]
    assert not any("�" in piece for piece in pieces)


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:.*has no chat template")
@pytest.mark.parametrize("seed", range(4))
def test_text_equals_llama_cpp_detokenization(sentencepiece_path, spy, seed):
    sampled = spy("llama_sampler_sample")
    chat = ChatLlamaCpp(
        model_path=str(sentencepiece_path), n_ctx=256, n_gpu_layers=0, n_threads=1, temperature=5, top_k=0,
        top_p=1, min_p=0, seed=seed, max_tokens=120,
    )  # fmt: skip
    text = "".join(chunk.text for chunk in chat.stream("Hello"))
    api, vocabulary = chat._engine.api, chat._engine.vocabulary
    tokens = [token for token in sampled if not api.llama_vocab_is_eog(vocabulary, token)]
    assert len(tokens) > 20
    buffer = ctypes.create_string_buffer(8192)
    array = (ctypes.c_int32 * len(tokens))(*tokens)
    size = api.llama_detokenize(vocabulary, array, len(tokens), buffer, len(buffer), False, False)
    assert text == buffer.raw[:size].decode("utf-8", errors="replace")
    sampled.clear()
    chat.reset()
    assert chat.invoke("Hello").content == text


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:.*has no chat template")
def test_sentencepiece_leading_space_is_stripped(sentencepiece_path):
    chat = ChatLlamaCpp(model_path=str(sentencepiece_path), n_ctx=256, n_gpu_layers=0, n_threads=1)
    assert chat._engine.strips_space
    reader = TextReader(strip_space=True)
    assert [reader.feed(piece) for piece in (b" ba", b" be", b"")] == ["ba", " be", ""]


@pytest.mark.real
def test_missing_template_warns_and_uses_chatml(sentencepiece_path):
    with pytest.warns(UserWarning, match="no chat template, so ChatML is used"):
        chat = ChatLlamaCpp(model_path=str(sentencepiece_path), n_ctx=256, n_gpu_layers=0, n_threads=1)
    assert chat.invoke("Hello", max_tokens=3).usage_metadata["input_tokens"] > 20  # the tags in characters


class TestStopStrings:
    def test_text_before_a_stop_string_is_returned(self, trained):
        for stop in (["four"], ["ee fo"], ["nothing like it", " five", "four"], "four"):
            cut = min(TEN.find(word) for word in stop_texts(stop) if word in TEN)
            pieces = [chunk.text for chunk in trained.stream("Count to ten.", stop=stop)]
            assert "".join(pieces) == TEN[:cut]
            answer = trained.invoke("Count to ten.", stop=stop)
            assert answer.content == TEN[:cut]
            assert answer.response_metadata["finish_reason"] == "stop"

    def test_partial_stop_string_is_returned_at_the_end(self, trained):
        assert trained.invoke("Count to ten.", stop=["tennis"]).content == TEN
        assert joined(trained.stream("Count to ten.", stop=["ten!", "nine eleven"])).content == TEN

    def test_model_stop_strings_are_the_default(self, trained_path):
        chat = ChatLlamaCpp(
            model_path=str(trained_path),
            n_ctx=512,
            n_gpu_layers=0,
            n_threads=1,
            temperature=0,
            stop="three",
        )
        assert chat.invoke("Count to ten.").content == "one two "
        assert chat.invoke("Count to ten.", stop=["five"]).content == "one two three four "

    @pytest.mark.parametrize("stop", ["", [""], [1], b"END", {"END"}, 7, [["END"]], ["a\x1b[31m", None]])
    def test_unusable_stop_is_refused_in_one_sentence(self, make_random, stop):
        with pytest.raises(ChatModelError, match=r"stop = .* is not usable") as caught:
            make_random().invoke("Hello", stop=stop)
        assert str(caught.value).isprintable()

    def test_result_is_independent_of_piece_boundaries(self):
        text = "aab aaab雪 aaaab 雪雪 end"
        for stop in ("aaab", "雪雪", "b雪", " end"):
            for size in range(1, 12):
                raw, reader = text.encode(), TextReader([stop])
                received = ""
                for start in range(0, len(raw), size):
                    received += reader.feed(raw[start : start + size])
                    if reader.stopped:
                        break
                assert received + reader.end() == text[: text.find(stop)]


class TestUsage:
    def test_counts_equal_the_tokens_of_llama_cpp(self, trained, spy):
        sampled = spy("llama_sampler_sample")
        answer = trained.invoke("Count to ten.")
        usage = answer.usage_metadata
        assert usage["output_tokens"] == len(sampled) - 1  # the last one ends the answer
        assert usage["output_tokens"] == trained.get_num_tokens(answer.content)
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        assert usage["input_token_details"]["cache_read"] == 0
        assert answer.response_metadata == {"finish_reason": "stop", "model_name": trained.model_name}

    def test_last_stream_chunk_has_the_same_counts(self, trained):
        usage = trained.invoke("Count to ten.").usage_metadata
        chunks = list(trained.stream("Count to ten."))
        assert [chunk.usage_metadata for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        whole = joined(chunks)
        for key in ("input_tokens", "output_tokens", "total_tokens"):
            assert whole.usage_metadata[key] == usage[key]
        assert whole.usage_metadata["input_token_details"]["cache_read"] == usage["input_tokens"] - 1
        assert whole.response_metadata["finish_reason"] == "stop"
        assert whole.chunk_position == "last"

    def test_next_turn_evaluates_only_new_tokens(self, trained, spy):
        messages = [HumanMessage("hello"), AIMessage("hello"), HumanMessage("how are you")]
        first = trained.invoke(messages)
        longer = [*messages, first, HumanMessage("Well, thanks.")]
        second = trained.invoke(longer).usage_metadata
        before = first.usage_metadata["input_tokens"] + first.usage_metadata["output_tokens"]
        # All except the last tokens around the answer, which may merge differently.
        assert before - 3 <= second["input_token_details"]["cache_read"] < second["input_tokens"]

    def test_reset_clears_the_cache(self, trained):
        first = trained.invoke("Count to ten.")
        trained.reset()
        again = trained.invoke("Count to ten.")
        assert again.content == first.content
        assert again.usage_metadata["input_token_details"]["cache_read"] == 0


class TestLength:
    def test_max_tokens_end_an_answer(self, make_random):
        chat = make_random(max_tokens=7)
        answer = chat.invoke("Hello")
        assert answer.usage_metadata["output_tokens"] == 7
        assert answer.response_metadata["finish_reason"] == "length"
        assert chat.invoke("Hello", max_tokens=3).usage_metadata["output_tokens"] == 3
        assert chat.bind(max_tokens=2).invoke("Hello").usage_metadata["output_tokens"] == 2

    def test_full_context_ends_an_answer(self, make_random):
        chat = make_random(n_ctx=256, temperature=0)
        answer = chat.invoke("Hello " * 30)
        usage = answer.usage_metadata
        assert answer.response_metadata["finish_reason"] == "length"
        assert usage["total_tokens"] == 256 + 1  # the last token does not need a slot
        assert chat.invoke("Hello").content  # and the next answer is not affected


class TestOptions:
    def test_seed_makes_answers_reproducible(self, make_random):
        def ask(chat, **options):
            chat.reset()
            return chat.invoke("Hello", max_tokens=12, **options).content

        seeded, free = make_random(seed=5), make_random(seed=None)
        assert ask(seeded) == ask(seeded) == ask(free, seed=5)
        assert ask(seeded, seed=6) != ask(seeded)
        assert len({ask(free) for _ in range(4)}) > 1

    def test_every_sampling_option_is_applied(self, make_random):
        def ask(**options):
            chat.reset()
            return chat.invoke("Hello", max_tokens=24, **options).content

        chat = make_random(temperature=1.5, top_k=0, top_p=1, min_p=0, seed=4)
        usual = ask()
        assert len(usual) > 40  # it did not end early
        changes = {"temperature": 0.1, "top_k": 1, "top_p": 1e-6, "min_p": 1, "repeat_penalty": 5, "seed": 2}
        answers = {name: ask(**{name: value}) for name, value in changes.items()}
        assert usual not in answers.values()
        # Each of these leaves only the most likely token.
        assert answers["top_k"] == answers["min_p"] == answers["top_p"] == ask(temperature=0)

    def test_custom_template_replaces_the_file_template(self, make_random):
        chat = make_random(chat_template="{{ messages[0].content }}")
        assert chat.invoke("Hello", max_tokens=1).usage_metadata["input_tokens"] == (
            chat.get_num_tokens("Hello") + 1  # and the first token of all
        )


class Listener(BaseCallbackHandler):
    def __init__(self):
        self.heard = []

    def on_llm_new_token(self, token, *, chunk=None, **_):
        self.heard.append((token, chunk.message.content))


def test_callbacks_get_every_piece_once(trained, trained_path):
    listener = Listener()
    pieces = [chunk.text for chunk in trained.stream("Count to ten.", config={"callbacks": [listener]})]
    assert [token for token, _ in listener.heard] == pieces
    assert all(token == text for token, text in listener.heard)
    streaming = ChatLlamaCpp(
        model_path=str(trained_path), n_ctx=512, n_gpu_layers=0, n_threads=1, temperature=0, streaming=True
    )
    listener = Listener()
    assert streaming.invoke("Count to ten.", config={"callbacks": [listener]}).content == TEN
    assert "".join(token for token, _ in listener.heard) == TEN


class TestChunks:
    def test_copied_chunk_equals_a_constructed_one(self):
        made = ChatGenerationChunk(message=AIMessageChunk(content="text"))
        quick = text_chunk("text")
        assert quick == made
        assert repr(quick) == repr(made)
        assert quick.model_dump() == made.model_dump()
        assert quick.model_fields_set == made.model_fields_set
        assert quick.message.model_fields_set == made.message.model_fields_set
        assert quick.model_copy(deep=True) == made
        assert (quick + text_chunk(" and")).message == (
            made + ChatGenerationChunk(message=AIMessageChunk(content=" and"))
        ).message

    def test_chunks_are_independent(self):
        first, second = text_chunk("a"), text_chunk("b")
        first.message.tool_calls.append({})
        first.message.additional_kwargs["x"] = 1
        first.message.response_metadata["x"] = 1
        first.message.usage_metadata = {}
        assert second == ChatGenerationChunk(message=AIMessageChunk(content="b"))


def test_text_processing_is_linear_in_tokens(make_random, spy):
    pieces, whole = spy("llama_token_to_piece"), spy("llama_detokenize")
    chat = make_random(temperature=2, top_k=0, top_p=1, min_p=0)
    before = len(pieces)
    answer = chat.invoke("Hello", max_tokens=600)
    count = answer.usage_metadata["output_tokens"]
    assert len(pieces) - before <= count
    assert not whole
    chat.reset()
    after = len(pieces)
    assert chat.invoke("Hello", max_tokens=600).content == answer.content
    assert len(pieces) == after  # every token of it is known


def test_identity(trained, trained_path):
    assert trained._llm_type == "llamacpp"
    assert trained._identifying_params["model_path"] == str(trained_path)
    assert trained._identifying_params["temperature"] == 0
    params = trained._get_ls_params(stop=["x"])
    assert params["ls_provider"] == "llamacpp"
    assert params["ls_model_name"] == trained_path.stem
    assert params["ls_stop"] == ["x"]
