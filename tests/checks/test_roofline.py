"""Physical bounds, compared with hand-computed numbers, and the results judged by them."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufbench.checks.roofline import (
    PROMPT_LIMIT,
    attended_tokens,
    decode_bytes,
    encode_flops,
    evaluate_limits,
    measuring_error,
    prompt_flops,
    rate_at,
)
from ggufbench.discovery.model import AttentionShape, KvShape
from ggufbench.metrics import summarize
from ggufbench.worker.job import Setting, Workload

CPU = Setting(device="cpu", n_threads=2, n_threads_batch=2)


@dataclass(frozen=True)
class Facts:
    """A model of 1 GB and half a billion weights, with one full and one sliding layer."""

    file_size_bytes: int = 10**9
    decode_bytes_per_token: int = 10**9
    prompt_parameters: int = 500_000_000
    sliding_window: int = 4
    kv: KvShape = field(default_factory=lambda: KvShape(full_k=64, full_v=32, sliding_k=64, sliding_v=32))
    attention: AttentionShape = field(default_factory=lambda: AttentionShape(full=1024, sliding=1024))


@dataclass(frozen=True)
class Rates:
    """A machine that reads 10 GB/s and computes 100 GFLOP/s with two threads."""

    read_bytes_per_second: dict = field(default_factory=lambda: {1: 6e9, 2: 10e9})
    flops_per_second: dict = field(default_factory=lambda: {1: 50e9, 2: 100e9})
    disk_read_bytes_per_second: float | None = 2e9
    last_cache_bytes: int = 32 * 2**20
    disturbance: str | None = None


def test_encoded_sequences_attend_in_both_directions(hold):
    """2 x 500M weights x 8, and 2 x 8 x (1024 x 8 full + 1024 x 2 of the window of 4)."""
    workload = Workload(8, 0, sequences=3)
    needed = 2 * 500_000_000 * 8 + 2 * 8 * (1024 * 8 + 1024 * 2)
    assert encode_flops(Facts(), workload) == needed
    result = hold(workload=workload, encode_tokens_per_second=[50.0, 60.0])["encode"]
    assert result.metric == "encode_tokens_per_second" and result.judged
    assert result.bound == pytest.approx(100e9 * 8 / needed)


@pytest.fixture
def hold():
    """A function that compares samples by metric with the machine; results by name."""

    def hold(setting=CPU, facts=None, rates=None, workload=None, **samples):
        summary = {name: summarize(name, [values]) for name, values in samples.items()}
        results = evaluate_limits(
            facts or Facts(), setting, workload or Workload(100, 10), summary, rates or Rates()
        )
        return {result.name: result for result in results}

    return hold


@given(depth=st.integers(0, 200), tokens=st.integers(1, 200), window=st.integers(0, 100))
def test_attended_tokens_is_the_sum_over_the_new_tokens(depth, tokens, window):
    each = (min(depth + i, window or depth + i) for i in range(1, tokens + 1))
    assert attended_tokens(depth, tokens, window) == sum(each)


def test_decode_bytes_by_hand():
    # 2 tokens after 10: the full layer reads 11 and 12 tokens, the sliding one 4 and 4.
    workload = Workload(generated_tokens=2, depth=10)
    assert decode_bytes(Facts(), CPU, workload) == 10**9 + 96 * 2 * (11.5 + 4)
    quantized = replace(CPU, type_k="q8_0", type_v="q4_0")
    assert decode_bytes(Facts(), quantized, workload) == 10**9 + (64 * 34 / 32 + 32 * 18 / 32) * 15.5


def test_prompt_flops_by_hand():
    # 2 tokens after 10 attend to 23 tokens in the full layer and to 8 in the sliding one.
    workload = Workload(prompt_tokens=2, depth=10)
    assert prompt_flops(Facts(), workload) == 2 * 500e6 * 2 + 2 * 1024 * (23 + 8)


@given(
    depth=st.integers(0, 10**6),
    more=st.integers(1, 1000),
    kind=st.sampled_from(["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl"]),
)
def test_a_deeper_token_costs_more(depth, more, kind):
    setting = replace(CPU, type_k=kind, type_v=kind)
    shallow, deep = Workload(depth=depth), Workload(depth=depth + more)
    assert decode_bytes(Facts(), setting, shallow) < decode_bytes(Facts(), setting, deep)
    assert prompt_flops(Facts(), shallow) < prompt_flops(Facts(), deep)


@pytest.mark.parametrize(
    ("rates", "threads", "expected"),
    [
        ({1: 5.0, 2: 8.0, 4: 12.0}, 2, 8.0),
        ({1: 5.0, 2: 8.0, 4: 12.0}, 3, 12.0),  # the next larger number: never too low
        ({1: 5.0, 2: 8.0, 4: 12.0}, 99, 12.0),
        ({1: 9.0, 2: 8.0}, 2, 9.0),  # one of two threads may be idle
        ({1: 9.0, 2: 20.0}, 1, 9.0),
        ({}, 1, None),
    ],
)
def test_rate_at_a_number_of_threads(rates, threads, expected):
    assert rate_at(rates, threads) == expected


def test_a_decode_rate_as_a_fraction_of_its_bound(hold):
    decode = hold(decode_tokens_per_second=[7.0, 8.0, 9.0])["decode"]
    assert decode.bound == pytest.approx(10.0, rel=1e-4)
    assert (decode.measured, decode.metric) == (8.0, "decode_tokens_per_second")
    assert decode.fraction == pytest.approx(0.8, rel=1e-4)
    assert decode.highest_fraction == pytest.approx(0.9, rel=1e-4)
    assert decode.judged
    assert decode.sentence == (
        "decode: 8 tokens/s is 80 % of 10 tokens/s, from reading 1 GB for each token at 10 GB/s"
    )


def test_the_fastest_sample_is_judged(hold):
    results = hold(decode_tokens_per_second=[8.0, 8.0, 12.0])
    assert results["decode"].fraction < 1
    error = measuring_error(list(results.values()))
    assert error is not None and "decode reached 120 % of the limit of this machine" in error
    assert measuring_error(list(hold(decode_tokens_per_second=[8.0, 9.9]).values())) is None


def test_cached_weights_raise_the_limit(hold):
    facts = replace(Facts(), decode_bytes_per_token=200 * 2**20)
    decode = hold(facts=facts, decode_tokens_per_second=[50.0])["decode"]
    assert decode.judged
    assert decode.limit == pytest.approx(200 / (200 - 32), rel=1e-3)
    assert 1.0 < decode.highest_fraction < decode.limit
    assert measuring_error([decode]) is None


def test_model_that_fits_the_cache_is_not_judged(hold):
    facts = replace(Facts(), decode_bytes_per_token=100 * 2**20)
    decode = hold(facts=facts, decode_tokens_per_second=[1000.0])["decode"]
    assert decode.fraction > 1
    assert not decode.judged
    assert "(not judged: 105 MB can be read partly from the last-level cache of 33.6 MB)" in decode.sentence
    assert measuring_error([decode]) is None


def test_a_prompt_may_be_a_little_faster_than_the_calibration(hold):
    bound = hold(prompt_tokens_per_second=[1.0])["prompt"].bound
    assert bound == pytest.approx(100, rel=1e-3)
    for factor, wrong in ((1.2, False), (1.3, True), (75, True)):
        prompt = hold(prompt_tokens_per_second=[bound * factor])["prompt"]
        assert (prompt.judged, prompt.limit) == (True, PROMPT_LIMIT)
        assert (measuring_error([prompt]) is not None) is wrong, factor


def test_limits_measured_with_interference_judge_nothing(hold):
    rates = replace(Rates(), disturbance="process 7 (x) uses 90 % of a core")
    results = hold(rates=rates, decode_tokens_per_second=[99.0], prompt_tokens_per_second=[9999.0])
    assert [result.judged for result in results.values()] == [False, False]
    assert all("process 7 (x)" in result.sentence for result in results.values())
    assert measuring_error(list(results.values())) is None


def test_a_cold_load_is_shown_in_seconds(hold):
    load = hold(cold_load_seconds=[0.4, 1.0, 2.0])["load"]
    assert (load.bound, load.measured, load.fraction) == (0.5, 1.0, 0.5)
    assert load.highest_fraction == pytest.approx(1.25)
    assert not load.judged
    assert measuring_error([load]) is None
    assert "50 % of the speed of reading 1 GB at 2 GB/s" in load.sentence


@pytest.mark.parametrize("device", ["metal", "cuda", "vulkan", "rpc"])
def test_limits_apply_to_the_cpu_only(hold, device):
    assert hold(Setting(device=device), decode_tokens_per_second=[1e9]) == {}


def test_unknown_limits_are_left_out(hold):
    samples = {
        "decode_tokens_per_second": [1.0],
        "prompt_tokens_per_second": [1.0],
        "cold_load_seconds": [1.0],
    }
    assert set(hold(**samples)) == {"decode", "prompt", "load"}
    unmeasured = Rates(
        read_bytes_per_second={}, flops_per_second={}, disk_read_bytes_per_second=None, last_cache_bytes=1
    )
    assert hold(rates=unmeasured, **samples) == {}
    assert "prompt" not in hold(facts=replace(Facts(), prompt_parameters=0), **samples)
    assert hold() == {}
    assert hold(cold_load_seconds=[0.0]) == {}
