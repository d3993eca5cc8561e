"""Log ratios of blocks: which blocks count, which sample represents a launch, which sign is worse."""

import math

import pytest

from ggufbench.analysis.pairs import Pairs, best_sample, block_problem, pairs, second_over_first, worsening
from ggufbench.analysis.verdicts import answers, changed_answer, changed_device, worst
from ggufbench.outcomes import Outcome
from ggufbench.records.comparison import Block, Verdict
from ggufbench.records.parts import Disturbance
from ggufbench.records.schema import Effective, Launch, MemoryMark, PageCache, Sample

DECODE, MEMORY = "decode_tokens_per_second", "peak_rss_bytes"
BUSY = [Disturbance("other work", 0.5)]


def launch(*seconds, outcome=Outcome.MEASURED, disturbed=(), peak=100, digest="a") -> Launch:
    samples = [
        Sample(phase="decode", seconds=s, tokens=10, disturbed=BUSY if n in disturbed else [])
        for n, s in enumerate(seconds)
    ]
    return Launch(
        outcome=outcome,
        wall_seconds=1,
        page_cache=PageCache(asked="warm", resident_fraction=1, state="warm"),
        samples=[Sample(phase="decode", seconds=0.001, tokens=10, warmup=True), *samples],
        marks=[MemoryMark(after="prompt", figures={"peak_rss_bytes": peak})],
        digest=digest,
    )


def block(baseline, candidate, number=1, order=("baseline", "candidate"), disturbed=None) -> Block:
    launches = {"baseline": baseline, "candidate": candidate}
    return Block(run_id="r", case_id="c", number=number, order=order, disturbed=disturbed, launches=launches)


def test_best_sample_without_interference_represents_a_launch():
    assert best_sample(launch(1.0, 0.5, 2.0), DECODE, 1) == 20
    assert best_sample(launch(1.0, 0.5, 2.0, disturbed={1}), DECODE, 1) == 10
    assert best_sample(launch(1.0, disturbed={0}), DECODE, 1) is None
    assert best_sample(launch(1.0, outcome=Outcome.CRASHED), DECODE, 1) is None


def test_worse_is_above_zero_for_rates_and_memory():
    found = pairs([block(launch(1.0, peak=100), launch(1.1, peak=90))], DECODE, "baseline", 1)
    assert found.log_ratios == [pytest.approx(math.log(1.1))]
    assert (found.reference, found.candidate) == ([10], [pytest.approx(10 / 1.1)])
    memory = pairs([block(launch(1.0, peak=100), launch(1.1, peak=90))], MEMORY, "baseline", 1)
    assert memory.log_ratios == [pytest.approx(math.log(0.9))]
    assert worsening(DECODE, 10, 5) == -worsening(DECODE, 5, 10) > 0


def test_incomplete_blocks_and_interference_do_not_count():
    broken = launch(1.0, outcome=Outcome.HUNG)
    blocks = [
        block(launch(1.0), launch(1.0), disturbed="busy"),
        block(launch(1.0), broken),
        Block(run_id="r", case_id="c", number=2, order=["baseline"], launches={"baseline": launch(1.0)}),
    ]
    assert pairs(blocks, DECODE, "baseline", 1).log_ratios == []
    assert pairs([block(launch(1.0), launch(1.0))], DECODE, "anchor", 1).log_ratios == []


def test_block_problem_does_not_depend_on_the_arm():
    clean, busy = launch(1.0), launch(1.0, disturbed={0})
    one, other = (block_problem(both, [DECODE, MEMORY], 1) for both in ([clean, busy], [busy, clean]))
    assert one == other
    assert one == (
        "no sample of decode_tokens_per_second without interference: other processes used 50 % of the machine"
    )
    assert block_problem([clean, launch(1.0, 1.0, disturbed={0})], [DECODE, MEMORY], 1) is None
    assert block_problem([clean, launch(outcome=Outcome.CRASHED)], [DECODE], 1) is None


def test_order_effect_follows_the_order_not_the_arms():
    slow_second = block(launch(1.0), launch(1.2))
    slow_first = block(launch(1.0), launch(1.2), order=("candidate", "baseline"))
    assert second_over_first([slow_second, slow_first], DECODE, 1) == [
        pytest.approx(math.log(1.2)),
        pytest.approx(-math.log(1.2)),
    ]


def test_larger_tolerance_counts():
    found = Pairs(reference=[0.1, 0.1, 0.2], candidate=[], log_ratios=[])
    assert found.tolerance(0.2, 0.05) == pytest.approx(0.5)
    assert found.tolerance(0.2, 0.001) == 0.2
    assert Pairs([], [], []).tolerance(0.2, 0.05) == 0.2


def test_changed_answer_differs_from_a_varying_baseline():
    same, other = launch(1.0, digest="a"), launch(1.0, digest="b")
    assert answers([block(same, other), block(same, same)]) == {"baseline": ["a"], "candidate": ["a", "b"]}
    assert "differ (b, baseline a)" in changed_answer({"baseline": ["a"], "candidate": ["a", "b"]})
    assert changed_answer({"baseline": ["a"], "candidate": ["a"]}) is None
    assert changed_answer({"baseline": ["a", "b"], "candidate": ["c"]}) is None
    assert changed_answer({"candidate": ["c"]}) is None


def test_layers_that_fell_back_to_the_cpu_are_a_changed_device():
    def on(**layers):
        return launch(1.0).model_copy(update={"effective": effective(layers)})

    assert changed_device(on(CUDA0=23), on(CPU=23)) == (
        "the candidate has 0 layers on devices other than the CPU, the baseline 23"
    )
    assert changed_device(on(MTL0=23), on(Metal=23)) is None
    assert changed_device(launch(1.0), on(CPU=23)) is None


def effective(layers) -> Effective:
    numbers = dict.fromkeys(("n_ctx", "n_batch", "n_ubatch", "n_threads", "n_threads_batch"), 1)
    words = dict.fromkeys(("load_mode", "flash_attn", "type_k", "type_v"))
    return Effective(**numbers, **words, description="", devices=[], layers=layers, buffers={})


def test_worst_verdict_decides():
    assert worst([Verdict.NO_REGRESSION, Verdict.REGRESSION, Verdict.INCONCLUSIVE]) is Verdict.REGRESSION
    assert worst([Verdict.IMPROVEMENT, Verdict.NO_REGRESSION]) is Verdict.NO_REGRESSION
    assert worst([Verdict.BROKEN, Verdict.REGRESSION]) is Verdict.BROKEN
    assert worst([]) is Verdict.INCONCLUSIVE
