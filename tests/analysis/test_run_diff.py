"""Pairs of cases of two stored runs, whose ids may differ."""

import dataclasses
from pathlib import Path

import pytest

from ggufbench.analysis.run_diff import between
from ggufbench.metrics import Summary
from ggufbench.records.schema import Reference
from ggufbench.records.store import read_record

RECORD = Path(__file__).parents[1] / "fixtures" / "results" / "first" / "llama-1.1b-Q8_0-cpu.json"


@pytest.fixture(scope="module")
def record():
    return read_record(RECORD)


def renamed(record, case_id: str, **model):
    return record.model_copy(update={"case_id": case_id, "model": record.model.model_copy(update=model)})


def test_cases_are_paired_by_identity_and_not_by_id(record):
    other = renamed(record, "twin", identity="0" * 16)
    later = [renamed(record, "twin-0b1c2d", name="llama (one)"), renamed(other, "new", name="llama (two)")]
    found = between([record, other], later)
    assert [case.case_id for case in found.cases] == ["twin-0b1c2d", "new"]
    assert all(case.changes and case.problem is None for case in found.cases)
    assert (found.only_earlier, found.only_later) == ([], [])


def test_a_file_that_was_written_again_is_paired_by_its_name(record):
    (case,) = between([record], [renamed(record, "again-0b1c2d", identity="0" * 16)]).cases
    assert case.problem == "the file differs: it was quantized or written again"


def test_other_models_are_not_paired(record):
    found = between([record], [renamed(record, record.case_id, identity="0" * 16, name="another")])
    assert found.cases == []
    assert (found.only_earlier, found.only_later) == ([record.case_id], [record.case_id])


def test_answers_are_compared_if_their_reference_is_the_same(record):
    reference = Reference(
        name="m", quantization="F16", identity="i", file_size_bytes=1, setting=record.setting,
        corpus="built-in", corpus_digest="d", chunk_tokens=256,
    )  # fmt: skip
    divergence = Summary("nats", "lower", 0.2, 0.2, 0.2, 1, [0.2])
    before = record.model_copy(update={"reference": reference, "summary": {"kl_divergence": divergence}})
    worse = dataclasses.replace(divergence, median=0.3, per_launch=[0.3])
    after = before.model_copy(update={"summary": {"kl_divergence": worse}})
    other = after.model_copy(update={"reference": reference.model_copy(update={"corpus_digest": "e"})})

    (compared,) = between([before], [after]).cases
    (refused,) = between([before], [other]).cases

    assert [(one.metric, one.earlier, one.later) for one in compared.changes] == [("kl_divergence", 0.2, 0.3)]
    assert refused.problem == "the answers were compared with another reference, or over other texts"
