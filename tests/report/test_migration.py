"""Answers to whether llama.cpp can replace transformers, and the conditions for a yes."""

import dataclasses

import pytest

from ggufbench.analysis.migration import migrations
from ggufbench.worker.job import TRANSFORMERS

BASELINE = {"provider": TRANSFORMERS, "scenario": "transformers-gguf", "dtype": "float32", "launches": 4}
APP = {"provider": "answers:get_chat_model", "scenario": "app"}


def answers(records):
    """The only row, and its answers by question."""
    (row,) = migrations(records)
    return row, {answer.question: answer for answer in row.answers}


@pytest.fixture
def ours(make_record):
    return make_record(launches=4, digest="aaaa")


def test_four_yes_answers_recommend_removal_with_numbers(make_record, ours):
    row, found = answers([ours, make_record(**APP), make_record(speed=0.2, memory=4, **BASELINE)])
    assert [answer.answer for answer in row.answers] == ["yes"] * 4
    assert row.verdict == "yes"
    assert row.sentence.startswith(f"llama.cpp can replace transformers for {ours.model.name}-")
    assert "5.0 times" in found["faster"].sentence and "transformers-gguf" in found["faster"].sentence
    assert "0.25 of what" in found["smaller"].sentence
    assert "the documented third" in found["smaller"].sentence
    assert "not the documented third" not in found["smaller"].sentence
    assert (row.case_id, row.fingerprint) == (ours.case_id, ours.machine.fingerprint)


def test_faster_baseline_gives_no(make_record, ours):
    row, found = answers([ours, make_record(speed=1.5, memory=4, **BASELINE)])
    assert found["faster"].answer == "no"
    assert "0.67 times" in found["faster"].sentence
    assert found["smaller"].answer == "yes"
    assert row.verdict == "no"
    assert row.sentence.startswith("llama.cpp cannot replace transformers for ")


def test_every_measured_baseline_must_be_beaten(make_record, ours):
    slow = make_record(speed=0.1, memory=4, **BASELINE)
    fast = make_record(speed=2, memory=0.5, **(BASELINE | {"scenario": "transformers-bf16"}))
    _, found = answers([ours, slow, fast])
    assert found["faster"].answer == found["smaller"].answer == "no"
    assert "transformers-bf16" in found["faster"].sentence
    assert "transformers-bf16" in found["smaller"].sentence


def test_interval_that_includes_one_is_not_a_yes(make_record, ours):
    """The estimate is 0.5 % faster, and the launches differ by more."""
    _, found = answers([ours, make_record(speed=0.995, memory=4, **BASELINE)])
    assert found["faster"].answer == "not measured"
    assert "; more launches needed)" in found["faster"].sentence


def test_one_launch_each_is_too_few(make_record):
    _, found = answers(
        [make_record(launches=1), make_record(speed=0.1, memory=4, **(BASELINE | {"launches": 1}))]
    )
    assert found["stable"].answer == "not measured"
    assert found["faster"].answer == found["smaller"].answer == "not measured"
    assert "too few launches" in found["faster"].sentence and "too few launches" in found["smaller"].sentence


@pytest.mark.parametrize(
    ("outcome", "reason", "words"),
    [
        ("hung", "no answer in load for 60 s", "hung in load (no answer for 60 s)"),
        ("crashed", "crashed (SIGSEGV) in load", "crashed in load (SIGSEGV)"),
        ("out of memory", "the kernel killed it", "ran out of memory in load"),
        ("failed", "it knows no such model", "failed in load: it knows no such model"),
    ],
)
def test_broken_baseline_counts_as_beaten_and_is_named(make_record, ours, outcome, reason, words):
    signal = "SIGSEGV" if outcome == "crashed" else None
    broken = make_record(outcome=outcome, phase="load", reason=reason, signal=signal, **BASELINE)
    _, found = answers([ours, broken])
    for question in ("faster", "smaller"):
        assert found[question].answer == "yes"
        assert words in found[question].sentence
    assert words in found["stable"].sentence


def test_hung_baseline_does_not_hide_a_measured_one(make_record, ours):
    hung = make_record(outcome="hung", phase="load", reason="no answer in load for 60 s", **BASELINE)
    fast = make_record(speed=2, memory=0.5, **(BASELINE | {"scenario": "transformers-bf16"}))
    _, found = answers([ours, hung, fast])
    assert found["faster"].answer == "no"


@pytest.mark.parametrize("phase", ["start", "import"])
def test_library_that_cannot_be_imported_is_not_measured(make_record, ours, phase):
    broken = make_record(outcome="failed", phase=phase, reason="No module named torch", **BASELINE)
    _, found = answers([ours, broken])
    assert found["faster"].answer == found["smaller"].answer == "not measured"


def test_without_a_baseline_the_sentence_names_the_command(make_record, ours):
    row, found = answers([ours, make_record(outcome="skipped", reason="not installed", **BASELINE)])
    assert found["faster"].answer == "not measured"
    assert "--scenario transformers-gguf" in found["faster"].sentence
    assert "docs/providers.md" in found["same interface"].sentence
    assert row.verdict == "not measured"
    assert "not known whether llama.cpp is faster, smaller or usable" in row.sentence


@pytest.mark.parametrize("outcome", ["hung", "crashed", "failed", "out of memory"])
def test_broken_llama_cpp_case_is_not_stable(make_record, outcome):
    broken = make_record(outcome=outcome, phase="decode", reason="it broke", launches=4)
    row, found = answers([broken, make_record(**BASELINE)])
    assert found["stable"].answer == "no"
    assert found["faster"].answer == "not measured"
    assert row.verdict == "no"


def test_launches_with_unequal_answers_are_not_stable(ours, make_record):
    changed = [
        launch.model_copy(update={"digest": launch.digest and f"{n}"})
        for n, launch in enumerate(ours.launches)
    ]
    _, found = answers([ours.model_copy(update={"launches": changed}), make_record(**BASELINE)])
    assert found["stable"].answer == "no"
    assert "4 different answers" in found["stable"].sentence


def test_chat_model_counts_only_for_the_same_file(make_record, ours):
    other = make_record(file_size=777, **APP)
    broken = make_record(outcome="failed", phase="load", reason="no such option", **APP)
    for record, answer in ((make_record(**APP), "yes"), (broken, "not measured"), (other, "not measured")):
        rows = migrations([ours, record])
        row = next(row for row in rows if row.case_id == ours.case_id)
        assert row.answers[3].answer == answer
    assert "no such option" in migrations([ours, broken])[0].answers[3].sentence


def test_one_row_for_each_llama_cpp_case(baseline_records, make_record):
    rpc = make_record(baseline_records[0], scenario="rpc", device="rpc")
    rows = migrations([*baseline_records, rpc])
    assert [row.case_id for row in rows] == [
        record.case_id for record in [*baseline_records, rpc] if record.provider.name != TRANSFORMERS
    ]
    assert {row.scenario for row in rows} == {"cpu", "rpc"}


def test_memory_on_a_device_is_included(make_record, first_run):
    """The weights are in the memory of the server: that of the process alone would be too small."""
    rpc = next(record for record in first_run.records if record.setting.device == "rpc")
    total = rpc.summary["peak_rss_bytes"].median + rpc.summary["device_bytes"].median
    between = 0.5 * (total + rpc.summary["peak_rss_bytes"].median)
    factor = between / rpc.summary["peak_rss_bytes"].median
    rpc = make_record(rpc, launches=4)
    baseline = make_record(rpc, speed=0.1, memory=factor, device="cpu", **BASELINE)
    row = next(row for row in migrations([rpc, baseline]) if row.scenario == rpc.scenario)
    assert row.answers[2].answer == "no"


def test_stored_run_has_all_answers(first_run):
    rows = migrations(first_run.records)
    assert len(rows) == sum(1 for record in first_run.records if record.provider.name == "engine")
    for row in rows:
        assert len(row.answers) == 4
        assert row.sentence.endswith(".")


def test_rate_that_cannot_be_compared_is_not_measured(make_record, ours):
    baseline = make_record(speed=0.1, memory=4, **BASELINE)
    workload = dataclasses.replace(baseline.workload, prompt_tokens=3)
    _, found = answers([ours, baseline.model_copy(update={"workload": workload})])
    assert found["faster"].answer == "not measured"
    assert "cannot be compared" in found["faster"].sentence
