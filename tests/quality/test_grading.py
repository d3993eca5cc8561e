"""Grades of an answer check: by rounding, by gaps, and in words."""

import pytest

from ggufbench.quality.grading import (
    LEAST_DIVERGENCE,
    MOST_ROUNDINGS,
    WIDE_GAP,
    PassageScores,
    describe,
    graded,
)


def scores(divergence: float, gap: float = 0.0) -> PassageScores:
    return PassageScores("prose", 96, False, [divergence] * 4, [gap, 0.0, 0.0, 0.0])


ROUNDING = {"flash_attn = off": [scores(0.002)], "n_ubatch = 64": [scores(0.001)]}


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (scores(0.0), "same answers"),
        (scores(0.002), "other rounding"),
        (scores(0.002 * MOST_ROUNDINGS * 0.99), "other rounding"),
        (scores(0.002 * MOST_ROUNDINGS * 1.01), "other answers"),
        (scores(0.002, WIDE_GAP * 0.99), "other rounding"),
        (scores(0.002, WIDE_GAP * 1.01), "other answers"),
    ],
)
def test_verdicts(found, verdict):
    check = graded([found], ROUNDING)
    assert check.verdict == verdict
    assert describe(check)
    assert (check.reason is None) == (verdict != "other answers")


def test_without_rounding_a_small_divergence_still_passes():
    assert graded([scores(LEAST_DIVERGENCE * 0.9)], {}).verdict == "other rounding"
    assert graded([scores(LEAST_DIVERGENCE * 1.1)], {}).verdict == "other answers"


def test_each_passage_is_held_to_its_own_rounding():
    found = [scores(0.0), scores(0.009)]
    check = graded(found, {"flash_attn = off": [scores(0.01), scores(0.002)]})
    assert check.verdict == "other answers"
    assert [passage.rounding_divergence for passage in check.passages] == [0.01, 0.002]


def test_the_reason_names_the_text_the_way_and_the_limit():
    check = graded([scores(0.05)], ROUNDING)
    assert check.reason == (
        "the candidate's distributions differ by 0.05 nats a token in prose (96 tokens, in batches), "
        f"and rounding explains {0.002 * MOST_ROUNDINGS:.2g}"
    )
    gap = graded([scores(0.002, 2.5)], ROUNDING)
    assert "another token is the likeliest at 1 of 4 positions" in gap.reason
    assert "once across a gap of 2.5 nats, which rounding does not cross" in gap.reason
