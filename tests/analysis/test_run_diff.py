"""Pairs of cases of two stored runs, whose ids may differ."""

from pathlib import Path

import pytest

from ggufbench.analysis.run_diff import between
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
