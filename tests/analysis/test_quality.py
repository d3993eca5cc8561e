"""Quality of a record in numbers and words, and the verdict on a gated divergence."""

from pathlib import Path

import pytest

from ggufbench.analysis.quality import GRADES, quality_of
from ggufbench.analysis.verdicts import divergence_cell
from ggufbench.records.comparison import Divergence, Verdict
from ggufbench.records.samples import answer_quality
from ggufbench.records.schema import ChunkScores
from ggufbench.records.store import read_record

STORED = Path(__file__).parents[1] / "fixtures" / "results" / "first"


def chunk(
    divergence: float, domain: str = "prose", tokens: int = 100, others: int = 3, **changes
) -> ChunkScores:
    values = {"log_probability": -2.0, "reference_log_probability": -1.9, "widest_gap": 0.5, **changes}
    return ChunkScores(
        domain=domain, tokens=tokens, kl_divergence=divergence, other_likeliest_tokens=others, **values
    )


@pytest.fixture
def record():
    """A stored record of speeds."""
    return read_record(min(STORED.glob("*-cpu.json")))


@pytest.fixture
def scored(record):
    """A function that returns a record with these chunks."""

    def make(*chunks: ChunkScores):
        launch = record.launches[0].model_copy(update={"chunks": list(chunks)})
        return record.model_copy(update={"launches": [launch]})

    return make


def test_means_are_over_tokens(scored):
    quality = quality_of(scored(chunk(0.1, tokens=100, others=10), chunk(0.4, tokens=300, others=0)))
    assert quality.kl_divergence.value == pytest.approx(0.325)
    assert quality.other_likeliest_share.value == pytest.approx(10 / 400)
    assert quality.log_probability_change.value == pytest.approx(-0.1)
    assert (quality.perplexity, quality.reference_perplexity) == pytest.approx((7.389, 6.686), rel=1e-3)


def test_each_domain_has_its_own_mean(scored):
    quality = quality_of(scored(*[chunk(0.1, "prose")] * 9, chunk(0.7, "code")))
    assert {one.domain: one.kl_divergence.value for one in quality.domains} == pytest.approx(
        {"prose": 0.1, "code": 0.7}
    )
    assert quality.domains[0].kl_divergence.low is not None and quality.domains[1].kl_divergence.low is None


@pytest.mark.parametrize(
    ("divergence", "others", "sentence"),
    [
        (0.0, 0, "the answers are those of the reference"),
        (0.005, 0, "nearly lossless: the likeliest token is the same everywhere"),
        (0.05, 3, "good: another token would be the likeliest after 3 of 100 tokens"),
        (0.2, 10, "noticeable: another token would be the likeliest after 10 of 100 tokens"),
        (0.9, 40, "severe: another token would be the likeliest after 40 of 100 tokens"),
    ],
)
def test_meaning(scored, divergence, others, sentence):
    assert quality_of(scored(chunk(divergence, others=others))).sentence == sentence


def test_a_rare_change_is_counted_in_thousands(scored):
    quality = quality_of(scored(chunk(0.002, tokens=1000, others=4)))
    assert quality.sentence.endswith("after 4.0 of 1,000 tokens")


def test_grades_rise():
    assert [most for most, _ in GRADES] == sorted(most for most, _ in GRADES)


def test_a_record_of_speeds_has_no_quality(record):
    assert quality_of(record) is None


def test_metrics_of_all_chunks_are_single_values():
    found = answer_quality([chunk(0.1, tokens=100), chunk(0.4, tokens=300)])
    assert found["kl_divergence"] == [pytest.approx(0.325)]
    assert found["top_token_agreement"] == [pytest.approx(1 - 6 / 400)]
    assert found["perplexity"] == [pytest.approx(7.389, rel=1e-3)]
    assert answer_quality([chunk(0.1, log_probability=-5000.0)])["perplexity"] == []


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.001, 0.009, Verdict.NO_REGRESSION),
        (0.008, 0.012, Verdict.INCONCLUSIVE),
        (0.011, 0.02, Verdict.REGRESSION),
    ],
)
def test_a_gated_divergence_is_judged_by_its_interval(low, high, verdict):
    found = Divergence(kl_divergence=(low + high) / 2, low=low, high=high, most=0.01, tokens=4000)
    cell = divergence_cell(found, 6, None)
    assert cell.verdict is verdict and cell.pairs == 6
    assert "nats from the baseline" in cell.reason and "the limit is 0.01" in cell.reason
    broken = divergence_cell(found, 6, (Verdict.BROKEN, "the candidate crashed"))
    assert (broken.verdict, broken.reason) == (Verdict.BROKEN, "the candidate crashed")


def test_a_divergence_of_few_chunks_is_judged_by_its_mean():
    found = Divergence(kl_divergence=0.02, low=None, high=None, most=0.01, tokens=40)
    assert divergence_cell(found, 6, None).verdict is Verdict.REGRESSION
