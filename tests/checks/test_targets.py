"""Targets compared with measured values."""

from pathlib import Path

import pytest

from ggufbench.checks.targets import evaluate_targets
from ggufbench.metrics import summarize
from ggufbench.planning.scenario import load_scenarios

ELEVEN_GB = 11_000_000_000
CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def promises():
    """The targets that ggufbench ships."""
    return load_scenarios(CHECKOUT / "scenarios", ["cpu"])[0].targets


@pytest.fixture
def hold(promises):
    """A function that compares seconds and bytes of one launch with the shipped targets; results by name."""

    def hold(file_size, seconds=None, peak=None):
        samples = {"ready_seconds": seconds, "cold_ready_seconds": seconds, "peak_rss_bytes": peak}
        summary = {name: summarize(name, [[value]]) for name, value in samples.items() if value is not None}
        return {result.name: result for result in evaluate_targets(promises, file_size, summary)}

    return hold


def test_example_of_the_documentation(hold):
    load = hold(ELEVEN_GB, 7.0)["load"]
    assert (load.limit, load.promise) == (pytest.approx(10.0), pytest.approx(5.0))
    assert (load.status, load.metric, load.measured) == ("met", "ready_seconds", 7.0)
    assert load.sentence == "load: 7 s, within the limit of 10 s (not within the promised 5 s)"


@pytest.mark.parametrize(
    ("seconds", "status", "words"),
    [
        (4.9, "met", "(and within the promised 5 s)"),
        (10.1, "missed", "over the limit of 10 s (not within"),
    ],
)
def test_values_around_limit_and_promise(hold, seconds, status, words):
    load = hold(ELEVEN_GB, seconds)["load"]
    assert load.status == status
    assert words in load.sentence


def test_value_equal_to_the_limit_is_met(hold):
    limits = hold(ELEVEN_GB)
    reached = hold(ELEVEN_GB, limits["load"].limit, limits["memory"].limit)
    assert {result.status for result in reached.values()} == {"met"}
    promised = hold(ELEVEN_GB, limits["load"].promise)["load"]
    assert "(and within the promised" in promised.sentence


@pytest.mark.parametrize("size", [0, 1, 4_000_000, 1_000_000_000])
def test_small_file_has_one_second(hold, size):
    load = hold(size, 1.0)["load"]
    assert (load.limit, load.promise, load.status) == (1.0, 1.0, "met")
    assert hold(size, 1.01)["load"].status == "missed"


def test_memory_limit_is_a_ratio_of_the_file_plus_an_allowance(hold):
    limit = 1.1 * ELEVEN_GB + 512 * 2**20
    memory = hold(ELEVEN_GB, peak=limit + 1e6)["memory"]
    assert memory.limit == pytest.approx(limit)
    assert (memory.status, memory.promise, memory.metric) == ("missed", None, "peak_rss_bytes")
    assert memory.sentence == "memory: 12052 MiB, over the limit of 12051 MiB"
    assert hold(0, peak=512 * 2**20)["memory"].status == "met"


def test_unmeasured_target_is_neither_met_nor_missed(hold):
    for result in hold(ELEVEN_GB).values():
        assert (result.status, result.measured) == ("not applicable", None)
        assert result.sentence == f"{result.name}: {result.metric} was not measured"


def test_median_is_compared_with_the_target(promises):
    summary = {"ready_seconds": summarize("ready_seconds", [[9.0], [9.5], [60.0]])}
    load, cold, _memory = evaluate_targets(promises, ELEVEN_GB, summary)
    assert (load.measured, load.status) == (9.5, "met")
    assert cold.status == "not applicable", "a warm load says nothing of a cold one"


def test_outputs_of_an_encoder_are_allowed_in_addition(promises):
    size, outputs = 10**8, 10**9
    peak = 1.1 * size + 2**29 + outputs
    for bytes_, status in ((peak, "met"), (peak + 1, "missed")):
        summary = {"peak_rss_bytes": summarize("peak_rss_bytes", [[bytes_]])}
        assert evaluate_targets(promises, size, summary, outputs)[2].status == status
