"""One context for many callers: each gets its own answer, and an unread answer does not block others."""

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ggufbench.chat import engine
from ggufbench.chat.model import ChatModelError

ANSWERS = {
    "Hello": "Hello! What shall we do?",
    "Hey": "Hey there.",
    "hi": "Hi, how are you today?",
    "Count to ten.": "one two three four five six seven eight nine ten",
}
SECOND = 20
"""Seconds; long enough for a busy machine, because the waits take milliseconds."""


def test_threads_get_their_own_answers(trained):
    questions = list(ANSWERS) * 5

    def ask(question: str) -> str:
        return "".join(chunk.text for chunk in trained.stream(question))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, questions)) == [ANSWERS[question] for question in questions]


async def _streamed(chat, question: str) -> str:
    return "".join([chunk.text async for chunk in chat.astream(question)])


def test_tasks_get_their_own_answers(trained):
    async def ask_all():
        asked = [_streamed(trained, question) for question in ANSWERS]
        whole = [trained.ainvoke(question) for question in ANSWERS]
        return await asyncio.gather(*asked), [answer.content for answer in await asyncio.gather(*whole)]

    streamed, whole = asyncio.run(ask_all())
    assert streamed == whole == list(ANSWERS.values())


def test_task_may_ask_while_it_reads(trained):
    async def ask():
        async for _ in trained.astream("Count to ten."):
            return (await trained.ainvoke("Hey")).content
        return None

    assert asyncio.run(asyncio.wait_for(ask(), SECOND)) == "Hey there."


def test_thread_errors_reach_the_task(trained):
    with pytest.raises(ChatModelError, match="does not name a bound tool"):
        asyncio.run(_streamed(trained.bind(tool_choice="nobody"), "Hello"))


class TestClosedEarly:
    def test_closed_stream_stops_and_releases_the_lock(self, make_random, spy):
        chat, sampled = make_random(), spy("llama_sampler_sample")
        stream = chat.stream("Hello")
        for _ in range(3):
            next(stream)
        stream.close()
        made = len(sampled)
        assert made < 10
        assert chat.invoke("Hello", max_tokens=2).content
        assert len(sampled) == made + 2

    def test_garbage_collected_stream_stops(self, make_random):
        chat = make_random()
        next(chat.stream("Hello"))
        gc.collect()
        assert chat.invoke("Hello", max_tokens=2).content

    def test_closed_asynchronous_stream_stops(self, make_random, spy, wait_until):
        chat, sampled = make_random(max_tokens=900), spy("llama_sampler_sample")

        async def leave() -> None:
            async for _ in chat.astream("Hello"):
                break
            await chat.ainvoke("Hello", max_tokens=2)

        asyncio.run(asyncio.wait_for(leave(), SECOND))
        assert not _threads()
        assert len(sampled) < 900

    def test_cancelled_task_stops(self, make_random, spy):
        chat, sampled = make_random(max_tokens=900), spy("llama_sampler_sample")

        async def cancel() -> None:
            for asked in (chat.ainvoke("Hello"), _streamed(chat, "Hello")):
                before = len(sampled)
                task = asyncio.create_task(asked)
                while len(sampled) < before + 3:
                    await asyncio.sleep(0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await chat.ainvoke("Hello", max_tokens=2)

        asyncio.run(asyncio.wait_for(cancel(), SECOND))
        assert len(sampled) < 1800

    def test_task_cancelled_while_waiting_does_not_ask(self, make_random):
        chat = make_random()
        stream = chat.stream("Hello")
        next(stream)

        async def cancel() -> None:
            task = asyncio.create_task(_streamed(chat, "Hello"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(asyncio.wait_for(cancel(), SECOND))
        deadline = time.monotonic() + SECOND
        while _threads() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not _threads()
        assert next(stream) is not None  # the other answer continues unaffected


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "ggufbench-chat"]


class TestNobodyWaitsForEver:
    def test_question_inside_an_open_stream_is_refused(self, make_random):
        chat = make_random()
        stream = chat.stream("Hello")
        next(stream)
        with pytest.raises(ChatModelError, match="still being streamed in this thread; read it to its end"):
            chat.invoke("Hello")
        assert chat.get_num_tokens("Hello")  # counting tokens does not need the lock
        stream.close()
        assert chat.invoke("Hello", max_tokens=1)

    def test_waiting_for_an_unread_answer_times_out(self, make_random, monkeypatch):
        monkeypatch.setattr(engine, "_UNREAD_TIMEOUT", 0.2)
        chat = make_random()
        stream = chat.stream("Hello")
        next(stream)
        with ThreadPoolExecutor(1) as pool, pytest.raises(ChatModelError, match="open and unread"):
            pool.submit(chat.invoke, "Hello").result(SECOND)

    def test_waiting_for_an_answer_being_read_continues(self, make_random, monkeypatch):
        monkeypatch.setattr(engine, "_UNREAD_TIMEOUT", 0.5)
        chat = make_random()
        with ThreadPoolExecutor(1) as pool:
            stream = chat.stream("Hello", max_tokens=30)
            next(stream)
            waiting = pool.submit(chat.invoke, "Hello", max_tokens=1)
            for _ in stream:
                time.sleep(0.03)
            assert waiting.result(SECOND)


def test_closed_model_message(make_random):
    chat = make_random()
    chat.close()
    chat.close()
    with pytest.raises(ChatModelError, match="is closed; load it again"):
        chat.invoke("Hello")
    with pytest.raises(ChatModelError, match="is closed"):
        chat.get_num_tokens("Hello")


def test_an_interrupted_answer_leaves_the_context_usable(trained, monkeypatch):
    """Ctrl-C can arrive between any two tokens."""
    api = trained._engine.api
    real, calls = api.llama_decode, []

    def interrupted(*arguments):
        result = real(*arguments)
        calls.append(result)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(api, "llama_decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained.invoke("Count to ten.")
    monkeypatch.undo()
    assert trained.invoke("Count to ten.").content == ANSWERS["Count to ten."]
