"""llama.cpp's own time, measured in the process in which a chat model calls it."""

import time
from types import SimpleNamespace

import pytest

from ggufbench.worker.decode_clock import DecodeClock


class FakeLibrary(SimpleNamespace):
    """A fake of the bindings' module: its `llama_decode` takes the given number of milliseconds."""

    def __init__(self):
        super().__init__(waited=[])
        self.llama_decode = lambda context, milliseconds: time.sleep(milliseconds / 1000) or 7
        self.llama_synchronize = self.waited.append


@pytest.fixture
def library():
    return FakeLibrary()


@pytest.fixture
def clock(library):
    return DecodeClock(library)


def test_the_call_is_forwarded_and_the_device_synchronized(library, clock):
    assert library.llama_decode("context", 1) == 7
    assert library.waited == ["context"]


def answer(library, decodes_before_each_text, own_milliseconds=1):
    """Times of the texts of a stream with the given decodes of 2 ms for each, and the layer's own time."""
    stamps = []
    for decodes in decodes_before_each_text:
        for _ in range(decodes):
            library.llama_decode("context", 2)
        time.sleep(own_milliseconds / 1000)
        stamps.append(time.perf_counter_ns())
    return stamps


def test_each_later_token_has_its_time_and_llama_cpp_s_part(library, clock):
    stamps = answer(library, [3, 1, 1, 1])
    times = clock.tokens_between(stamps)
    assert len(times.seconds) == len(times.native_seconds) == 3, "the first text's decodes are before it"
    assert sum(times.seconds) == pytest.approx((stamps[-1] - stamps[0]) / 1e9)
    for whole, native in zip(times.seconds, times.native_seconds, strict=True):
        assert 0.002 <= native < whole
        assert whole - native >= 0.001


def test_text_that_was_held_back_is_several_tokens(library, clock):
    times = clock.tokens_between(answer(library, [1, 3]))
    assert len(times.seconds) == 3
    assert len(set(times.seconds)) == 1


def test_text_without_a_decode_belongs_to_the_next_or_last_token(library, clock):
    stamps = answer(library, [1, 0, 1, 0])
    times = clock.tokens_between(stamps)
    assert len(times.seconds) == 1
    assert times.seconds[0] == pytest.approx((stamps[-1] - stamps[0]) / 1e9)


def test_no_token_times_without_a_decode(library, clock):
    assert clock.tokens_between(answer(library, [1, 0, 0])) is None
    library.llama_decode("context", 1)
    clock.clear()
    assert clock.tokens_between([0, time.perf_counter_ns()]) is None
