"""Findings: the sentences at the beginning of a report."""

import pytest

from ggufbench.analysis.findings import findings
from ggufbench.records.comparison import Verdict
from ggufbench.worker.job import TRANSFORMERS

BASELINE = {"provider": TRANSFORMERS, "scenario": "transformers-gguf", "dtype": "float32"}


def sentences(found, kind=None):
    return [one.sentence for one in found if kind in (None, one.kind)]


def one_with(found, words):
    (match,) = [one for one in found if words in one.sentence]
    return match


def test_worst_findings_come_first(baseline_records, make_record):
    crashed = make_record(
        name="broken", outcome="crashed", phase="decode", reason="crashed", signal="SIGABRT"
    )
    found = findings([*baseline_records, crashed])
    kinds = [one.kind for one in found]
    assert kinds == sorted(kinds, key=["bad", "warn", "good"].index)
    assert set(kinds) == {"bad", "warn", "good"}
    assert found[0].sentence == f"llama.cpp crashed in decode (SIGABRT) in 1 of 5 cases: {crashed.case_id}."


def test_target_sentence_counts_cases_and_names_the_worst(make_record):
    """The target for files of at most one gigabyte is one second."""
    base = make_record(file_size=10**8)
    ready = base.summary["ready_seconds"].median
    good = [make_record(base, name=f"good-{n}") for n in range(3)]
    slow = make_record(base, name="slow", speed=ready / 2)
    slower = make_record(base, name="slower", speed=ready / 3)
    (found,) = [
        one
        for one in findings([*good, slow, slower])
        if one.sentence.startswith("load: target met in 3 of 5")
    ]
    assert found.kind == "bad"
    assert found.sentence.index("slower") < found.sentence.index(slow.case_id)
    assert "limit 1 s" in found.sentence
    assert list(found.case_ids) == [slower.case_id, slow.case_id]
    (met,) = [one for one in findings(good) if one.sentence.startswith("load: target met in all 3 cases")]
    assert met.kind == "good"


def test_failures_of_transformers_are_warnings(baseline_records):
    found = findings(baseline_records)
    hung = one_with(found, "transformers hung in load (no answer for 60 s)")
    crashed = one_with(found, "transformers crashed in load (SIGSEGV)")
    assert hung.kind == crashed.kind == "warn"
    assert list(hung.case_ids) == ["qwen3-0.6b-Q8_0-transformers-gguf"]


def test_each_ratio_to_transformers_is_one_sentence(make_record):
    records = []
    for n, speed in enumerate((0.5, 0.1, 0.05)):
        records += [
            make_record(name=f"m{n}", launches=3),
            make_record(name=f"m{n}", launches=3, speed=speed, memory=1 / speed, **BASELINE),
        ]
    found = sentences(findings(records), "good")
    assert "llama.cpp loads 2.0 to 20 times as fast as transformers over 3 models." in found
    assert "llama.cpp answers 2.0 to 20 times as fast as transformers over 3 models." in found
    assert "llama.cpp takes 0.05 to 0.50 of the memory of transformers over 3 models." in found


def test_metric_in_which_transformers_is_faster_is_reported(make_record):
    records = [
        make_record(name="a"), make_record(name="a", speed=0.1, **BASELINE),
        make_record(name="b"), make_record(name="b", speed=4, **BASELINE),
    ]  # fmt: skip
    found = one_with(findings(records), "answers faster than transformers in only 1 of 2 comparisons")
    assert found.kind == "bad"
    assert list(found.case_ids) == [records[2].case_id]


def test_the_fastest_quantization_is_named(make_record):
    records = [
        make_record(name="llama", quantization="Q8_0"),
        make_record(name="llama", quantization="Q4_0", speed=2),
        make_record(name="alone", quantization="Q8_0", speed=9),
    ]
    found = one_with(findings(records), "fastest quantization")
    assert "llama as Q4_0" in found.sentence
    assert "alone" not in found.sentence


def test_interference_and_unequal_answers_are_warnings(make_record):
    disturbed = make_record(name="a", outcome="environment", reason="a backup had 40 % of a core")
    record = make_record(name="b", launches=2)
    launches = [launch.model_copy(update={"digest": f"{n}"}) for n, launch in enumerate(record.launches)]
    found = findings([disturbed, record.model_copy(update={"launches": launches})])
    assert one_with(found, "interference in 1 of 2 cases").kind == "warn"
    assert "a backup had 40 %" in one_with(found, "interference").sentence
    assert one_with(found, "gave different answers").kind == "warn"


def test_number_of_sentences_does_not_grow_with_records(baseline_records):
    def copies(count):
        return [
            record.model_copy(
                update={
                    "case_id": f"{record.case_id}-{n}",
                    "model": record.model.model_copy(update={"identity": f"{record.model.identity}-{n}"}),
                }
            )
            for n in range(count)
            for record in baseline_records
        ]

    few, many = findings(copies(2)), findings(copies(1100))
    assert len(many) == len(few)
    assert max(len(one.sentence) for one in many) < 400


def test_failures_with_different_reasons_share_sentences(make_record):
    failed = [
        make_record(name=f"m{n}", outcome="failed", phase="load", reason=f"tensor {n} is " + "very " * 100)
        for n in range(40)
    ]
    found = findings(failed)
    assert len(found) < 10
    assert max(len(sentence) for sentence in sentences(found)) < 400
    assert sum(len(one.case_ids) for one in found) == 40


def test_no_findings_without_measured_cases(make_record):
    assert findings([]) == []
    assert findings([make_record(outcome="skipped", reason="no")]) == []


@pytest.mark.parametrize(("verdict", "kind"), [
    (Verdict.REGRESSION, "bad"), (Verdict.BROKEN, "bad"), (Verdict.MISSING, "bad"),
    (Verdict.INCONCLUSIVE, "warn"), (Verdict.IMPROVEMENT, "good"), (Verdict.NO_REGRESSION, "good"),
])  # fmt: skip
def test_verdict_of_a_comparison_determines_its_finding(make_comparison, verdict, kind):
    other = make_comparison("other", Verdict.NO_REGRESSION, 0.0)
    found = findings([], [other, make_comparison("this one", verdict, 0.081)])
    said = one_with(found, "this one")
    assert said.kind == kind
    assert said.sentence.startswith(f"gate: {verdict} in ")
    if verdict is Verdict.REGRESSION:
        assert "decode_tokens_per_second 8.1 % slower" in said.sentence
        assert found[0] is said


@pytest.fixture
def make_comparison(make_record):
    """A function that makes a comparison of one cell with that verdict and change."""
    from ggufbench.records.comparison import Cell, Comparison

    def make(case_id, verdict, change):
        record = make_record()
        return Comparison(
            run_id=record.run_id, case_id=case_id, created=record.created, wall_seconds=1, verdict=verdict,
            model=record.model, workload=record.workload, tolerance=record.tolerance, machine=record.machine,
            source=record.source, seed=1, arms=[], blocks=6, disturbed_blocks=0, launches=12,
            cells=[Cell(metric="decode_tokens_per_second", verdict=verdict, pairs=6, change=change)],
        )  # fmt: skip

    return make
