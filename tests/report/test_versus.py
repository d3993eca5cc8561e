"""Pairs of records and baselines, and the compared part of their workload."""

import dataclasses

import pytest

from ggufbench.analysis.baselines import COMPARED, compare_with_baselines, memory_of
from ggufbench.worker.job import TRANSFORMERS

PACKED = {"provider": TRANSFORMERS, "scenario": "transformers-gguf", "dtype": "float32"}
WHOLE = {
    "provider": TRANSFORMERS,
    "scenario": "transformers-bf16",
    "dtype": "bfloat16",
    "weights": "safetensors",
}
Q8, Q4 = {"quantization": "Q8_0"}, {"quantization": "Q4_K_M"}


def pairs(records):
    return [(one.record.case_id, one.baseline.case_id) for one in compare_with_baselines(records)]


def with_samples(record, change):
    """The record with changed samples and an unchanged summary."""
    launches = [
        launch.model_copy(update={"samples": [change(sample) for sample in launch.samples]})
        for launch in record.launches
    ]
    return record.model_copy(update={"launches": launches})


def test_each_quantization_has_gguf_and_original_baselines(baseline_records):
    found = pairs(baseline_records)
    for quantization in ("Q8_0", "Q4_K_M"):
        ours = f"llama-1.1b-{quantization}-cpu"
        theirs = {baseline for record, baseline in found if record == ours}
        assert theirs == {f"llama-1.1b-{quantization}-transformers-gguf", "llama-1.1b-Q8_0-transformers-bf16"}


def test_ratios_are_llama_cpp_over_transformers(make_record):
    ours = make_record(launches=4)
    theirs = make_record(launches=4, speed=0.25, memory=2.0, **PACKED)
    (one,) = compare_with_baselines([ours, theirs])
    assert set(one.ratios) == set(COMPARED)
    assert one.ratios["ready_seconds"].value == pytest.approx(0.25, rel=1e-6)
    assert one.ratios["decode_tokens_per_second"].value == pytest.approx(4, rel=1e-6)
    assert one.ratios["peak_rss_bytes"].value == pytest.approx(0.5, rel=1e-6)
    assert one.ratios["decode_tokens_per_second"].low < 4 < one.ratios["decode_tokens_per_second"].high
    assert list(one.notes) == []


def test_decode_counts_the_tokens_that_both_generated(make_record):
    """Later tokens are slower here: counting all of them would give another ratio."""

    def slower_after_16(sample):
        if sample.phase != "decode":
            return sample
        tokens = [seconds if n < 16 else 10 * seconds for n, seconds in enumerate(sample.token_seconds)]
        return sample.model_copy(update={"token_seconds": tokens, "seconds": sum(tokens)})

    ours = with_samples(make_record(launches=3, generated=64), slower_after_16)
    theirs = make_record(launches=3, generated=16, speed=0.5, **PACKED)
    (one,) = compare_with_baselines([ours, theirs])
    assert one.ratios["decode_tokens_per_second"].value == pytest.approx(2, rel=0.02)
    assert one.ratios["token_p50_seconds"].value == pytest.approx(0.5, rel=0.02)
    assert any(
        "generated 64 tokens and transformers 16: the first 16 are compared" in note for note in one.notes
    )


def test_longer_baseline_is_shortened_too(make_record):
    ours, theirs = make_record(generated=16), make_record(generated=64, speed=0.5, **PACKED)
    (one,) = compare_with_baselines([ours, theirs])
    assert one.ratios["decode_tokens_per_second"].value == pytest.approx(2, rel=0.05)


def test_chunks_of_several_tokens_are_not_shortened(make_record):
    ours = with_samples(
        make_record(generated=64),
        lambda sample: sample.model_copy(update={"token_seconds": sample.token_seconds[::2]}),
    )
    (one,) = compare_with_baselines([ours, make_record(generated=16, **PACKED)])
    assert "decode_tokens_per_second" not in one.ratios
    assert "prompt_tokens_per_second" in one.ratios


@pytest.mark.parametrize(
    ("change", "gone", "kept"),
    [
        ({"prompt_tokens": 64}, "prompt_tokens_per_second", "decode_tokens_per_second"),
        ({"depth": 1024}, "decode_tokens_per_second", "ready_seconds"),
    ],
)
def test_metric_of_a_different_workload_is_left_out_with_a_note(make_record, change, gone, kept):
    ours, theirs = make_record(), make_record(**PACKED)
    theirs = theirs.model_copy(update={"workload": dataclasses.replace(theirs.workload, **change)})
    (one,) = compare_with_baselines([ours, theirs])
    assert gone not in one.ratios
    assert kept in one.ratios
    assert any(note.startswith(f"no ratio of {gone}") for note in one.notes)


@pytest.mark.parametrize("outcome", ["hung", "crashed", "out of memory", "failed"])
def test_broken_baseline_is_listed_without_ratios(make_record, outcome):
    reason = "no answer in decode for 90 s"
    theirs = make_record(outcome=outcome, phase="decode", reason=reason, **PACKED)
    assert "cold_ready_seconds" in theirs.summary, "it loaded before it broke"
    (one,) = compare_with_baselines([make_record(), theirs])
    assert one.ratios == {}
    assert one.notes[0].startswith("transformers ")
    assert "decode" in one.notes[0]


def test_skipped_cases_are_left_out(make_record):
    skipped = make_record(outcome="skipped", reason="torch is not installed", **PACKED)
    assert compare_with_baselines([make_record(), skipped]) == []
    assert compare_with_baselines([make_record(outcome="skipped", reason="no"), make_record(**PACKED)]) == []


def test_other_machine_or_file_is_not_a_baseline(make_record):
    ours = make_record(**Q8)
    elsewhere = make_record(fingerprint="0" * 16, **Q8, **PACKED)
    other_file = make_record(file_size=12345, **Q8, **PACKED)
    other_original = make_record(original="models/other", **Q4, **WHOLE)
    assert compare_with_baselines([ours, elsewhere, other_file, other_original]) == []


def test_the_newest_record_of_a_case_counts(make_record):
    old = make_record(speed=0.5, created="2026-01-01T00:00:00+00:00", run_id="old", **PACKED)
    new = make_record(speed=0.1, created="2026-01-02T00:00:00+00:00", run_id="new", **PACKED)
    for records in ([old, new], [new, old]):
        (one,) = compare_with_baselines([make_record(), *records])
        assert one.baseline.run_id == "new"
        assert any("measured in two runs" in note for note in one.notes)


def test_original_is_one_case_for_all_quantizations(make_record):
    home = {"original": "models/llama"}
    with_q8 = make_record(created="2026-01-01T00:00:00+00:00", **Q8, **home, **WHOLE)
    with_q4 = make_record(created="2026-01-02T00:00:00+00:00", **Q4, **home, **WHOLE)
    (one,) = compare_with_baselines([make_record(**Q8, **home), with_q8, with_q4])
    assert one.baseline is with_q4


def test_differences_are_noted(make_record):
    theirs = make_record(device="cuda", **PACKED)
    threads = theirs.setting.n_threads + 3
    theirs = theirs.model_copy(update={"setting": dataclasses.replace(theirs.setting, n_threads=threads)})
    (one,) = compare_with_baselines([make_record(outcome="environment", reason="a backup ran"), theirs])
    notes = " ".join(one.notes)
    assert f"transformers {threads}" in notes
    assert "transformers on cuda" in notes
    assert "a backup ran" in notes


def test_impossible_numbers_give_no_ratio(make_record):
    broken = make_record(**PACKED)
    summary = {
        name: dataclasses.replace(values, per_launch=[0.0, float("inf"), -1.0, float("nan")])
        for name, values in broken.summary.items()
    }
    (one,) = compare_with_baselines([make_record(), broken.model_copy(update={"summary": summary})])
    assert one.ratios == {}


def test_number_of_pairs_per_case_is_limited(make_record):
    ours = [make_record(scenario=f"cpu-{n}") for n in range(50)]
    theirs = [make_record(**(PACKED | {"scenario": f"transformers-{n}"})) for n in range(50)]
    assert len(compare_with_baselines(ours + theirs)) <= 4 * len(ours)


def test_memory_includes_separate_devices(first_run, make_record):
    rpc = [record for record in first_run.records if record.setting.device == "rpc"]
    for record in rpc:
        device = record.summary["device_bytes"].median
        peaks = record.summary["peak_rss_bytes"].per_launch
        assert memory_of(record) == [peak + device for peak in peaks]
        as_metal = record.model_copy(update={"setting": dataclasses.replace(record.setting, device="metal")})
        assert memory_of(as_metal) == peaks
    assert memory_of(make_record(outcome="hung", phase="load")) == []
