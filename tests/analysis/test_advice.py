"""Advice and changed answers, from the record of a real case and from modified copies of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from ggufbench.analysis.advice import advise, breakdown_of
from ggufbench.analysis.answer_changes import changed_work
from ggufbench.launching.launcher import Interpreter
from ggufbench.machine.facts import source_state
from ggufbench.machine.parts import BusyProcess, Conditions
from ggufbench.measuring.case import Bench, measure_case
from ggufbench.measuring.preparation import Request, prepare_run
from ggufbench.outcomes import Outcome
from ggufbench.records.parts import LimitResult
from ggufbench.records.schema import Environment, PageCache, Record
from ggufbench.records.store import read_record

MIB = 2**20


@pytest.fixture(scope="module")
def record(model_folder, scenario_folder, tmp_path_factory, one_probe) -> Record:
    """A qwen3 as Q4_0, whose weights llama.cpp repacks on most processors."""
    request = Request(
        places=[model_folder / "qwen3-tiny-Q4_0.gguf"], scenarios=["cpu"], scenario_folder=scenario_folder,
        results=tmp_path_factory.mktemp("none"),
    )  # fmt: skip
    prepared = prepare_run(request, Interpreter())
    return measure_case(prepared.cases[0], Bench("run", prepared.machine, source_state(model_folder)))


@pytest.fixture
def change(record):
    """A function that returns the record with modified values, those of launches in each launch."""

    def change(launch=None, effective=None, **values):
        launches = []
        for one in record.launches:
            inside = one.effective.model_copy(update=effective or {})
            launches.append(one.model_copy(update={"effective": inside, **(launch or {})}))
        return record.model_copy(update={"launches": launches, **values})

    return change


def has(sentences, *words):
    """True if one of the sentences contains all of these words."""
    return any(all(word in sentence for word in words) for sentence in sentences)


def buffers(**model):
    """Buffers of a file of 100 MiB."""
    return {"model": {name: size * MIB for name, size in model.items()}, "KV": {"CPU": 1 * MIB}}


def large(change, **values):
    """The record with a file of 100 MiB and a peak of 240 MiB."""
    marks = [
        mark.model_copy(update={"figures": {"peak_rss_bytes": 240 * MIB, "rss_bytes": 40 * MIB}})
        for mark in change().launches[0].marks
    ]
    model = change().model.model_copy(update={"file_size_bytes": 100 * MIB})
    return change(launch={"marks": marks}, model=model, **values)


def test_repacked_copies_are_named_with_the_saving(change):
    twice = large(change, effective={"buffers": buffers(CPU_Mapped=100, CPU_REPACK=90)})
    assert has(advise(twice), "90 MiB of the peak are repacked copies", 'load_mode = "none"', "2.40 to 1.50")
    once = large(change, effective={"buffers": buffers(CPU=10, CPU_REPACK=90), "load_mode": "none"})
    assert not has(advise(once), "repacked")


def test_flash_attention_off_is_named(change, record):
    assert not has(advise(change(effective={"flash_attn": "on"})), "flash attention")
    assert has(
        advise(change(effective={"flash_attn": "off"})),
        "llama.cpp does not support flash attention for this model",
    )
    setting = record.setting.__class__("cpu", flash_attn="off")
    assert has(advise(change(effective={"flash_attn": "off"}, setting=setting)), 'try flash_attn = "on"')


def test_oversized_context_is_named(change):
    reserved = {"model": {"CPU": 100 * MIB}, "KV": {"CPU": 64 * MIB}}
    wide = large(change, effective={"buffers": reserved, "n_ctx": 32768})
    assert has(advise(wide), "n_ctx = 32768 reserves 64 MiB of KV cache", "n_ctx = 256 needs about 0 MiB")
    assert not has(advise(large(change, effective={"buffers": reserved, "n_ctx": 256})), "n_ctx")


def test_oversized_context_on_a_mac_is_named(change):
    reserved = {"model": {"MTL0_Mapped": 100 * MIB}, "KV": {"MTL0": 64 * MIB}}
    assert has(advise(large(change, effective={"buffers": reserved, "n_ctx": 32768})), "64 MiB of KV cache")


def test_flash_attention_on_another_device_is_named(change):
    elsewhere = {"flash_attn": "off", "fused_elsewhere": {"Flash Attention": "CPU"}}
    assert has(advise(change(effective=elsewhere)), "on this device: it would run on CPU")


def test_threads_on_every_core_with_other_work_are_named(change, record):
    cores = record.machine.usable_cores
    environment = Environment(
        disturbed=3,
        judged=4,
        kinds={"waiting": 3},
        processes=[BusyProcess(1, "hog", 0.4)],
        sentence="interference",
    )
    setting = record.setting.__class__("cpu", n_threads=cores)
    busy = change(environment=environment, setting=setting)
    assert has(advise(busy), f"n_threads = {cores} uses every core", "used 40 % of one") is (cores > 1)
    assert not has(advise(change(setting=setting)), "uses every core"), "without other work they do no harm"


def test_unused_bandwidth_suggests_more_threads(change, record):
    machine = record.machine.model_copy(update={"physical_cores": 8})
    limit = LimitResult("decode", "decode_tokens_per_second", 10, 50, 0.2, 0.2, 1.0, True, "20 %")
    assert has(
        advise(change(machine=machine, limits=[limit])), "20 % of the memory bandwidth with 1 of 8 cores"
    )
    assert not has(advise(change(machine=machine)), "bandwidth")


@pytest.mark.parametrize(
    ("asked", "resident", "state", "words"),
    [
        ("cold", 1.0, "warm", "no cold load was measured, because 100 % of the file stayed"),
        ("cold", None, "unknown", "this system does not report what is in the page cache"),
        ("warm", 0.6, "partial", "only 60 % of the file stayed in the page cache"),
        ("warm", 1.0, "warm", None),
        ("cold", 0.0, "cold", None),
    ],
)
def test_loads_that_were_neither_cold_nor_warm_are_named(change, asked, resident, state, words):
    sentences = advise(
        change(launch={"page_cache": PageCache(asked=asked, resident_fraction=resident, state=state)})
    )
    assert has(sentences, words) if words else not has(sentences, "page cache")


def test_model_too_small_for_the_loop_is_named(change, record):
    token = record.summary["token_p50_seconds"].median
    assert has(advise(change(launch={"loop_overhead_seconds": token / 10})), "measuring loop takes 10.0 %")
    assert not has(advise(change(launch={"loop_overhead_seconds": token / 1000})), "loop")


def test_battery_power_is_named(change):
    assert has(advise(change(launch={"conditions": [Conditions(power_source="battery")]})), "battery")


def test_crash_with_amx_has_a_remedy(change, record):
    provider = record.provider.model_copy(update={"system_info": "CPU : AVX2 = 1 | AMX_INT8 = 1 |"})
    crashed = {"outcome": Outcome.CRASHED, "phase": "prompt", "provider": provider}
    assert has(advise(change(**crashed)), "AMX", "repack = false")
    assert not has(advise(change(**{**crashed, "phase": "load"})), "AMX")


def test_launches_with_different_answers_are_named(record):
    first, second = record.launches
    other = second.model_copy(update={"digest": "0" * 16})
    sentences = advise(record.model_copy(update={"launches": [first, other]}))
    assert has(sentences, "2 different answers")
    assert not has(advise(record), "answers")


def test_record_without_launches_has_no_advice(record):
    empty = record.model_copy(update={"launches": [], "summary": {}, "limits": []})
    assert advise(empty) == []
    assert breakdown_of(empty) is None


def test_breakdown_of_a_real_record_is_within_reserved_memory(record):
    found, peak = breakdown_of(record), record.summary["peak_rss_bytes"]
    assert peak.minimum <= found.measured_bytes <= peak.maximum
    weights = found.parts["mapped"] + found.parts["repacked"] + found.parts["weights"]
    assert weights >= record.model.tensor_bytes
    assert found.parts["interpreter"] > 10 * MIB


def test_changed_answers_are_reported_with_the_change_in_speed(change, record):
    slower = {
        name: summary if name != "decode_tokens_per_second" else replace_median(summary, 0.5)
        for name, summary in record.summary.items()
    }
    later = change(launch={"digest": "f" * 16}, run_id="later", summary=slower)
    found = changed_work(later, record)
    assert (found.earlier_run_id, found.earlier_digest) == ("run", record.launches[0].digest)
    assert found.digest == "f" * 16
    assert found.ratios["decode_tokens_per_second"] == pytest.approx(0.5)
    assert found.ratios["ready_seconds"] == pytest.approx(1)


def test_no_change_for_equal_answers_or_different_subjects(change, record):
    assert changed_work(record, record) is None
    assert changed_work(record, None) is None
    other = change(launch={"digest": "f" * 16}, setting=record.setting.__class__("cpu", n_ctx=512))
    assert changed_work(other, record) is None
    assert changed_work(change(launch={"digest": None}), record) is None


def replace_median(summary, factor):
    """The summary with its median multiplied by a factor."""
    return summary.__class__(
        **{field: getattr(summary, field) for field in summary.__slots__ if field != "median"},
        median=summary.median * factor,
    )


class TestUnusedLogits:
    """Buffers in the wording of a CUDA build's log, which cannot run here."""

    @staticmethod
    def advice(change, **compute):
        held = {"output": {"CUDA_Host": 1 * MIB}, "compute": {name: n * MIB for name, n in compute.items()}}
        return advise(change(effective={"buffers": held, "n_ubatch": 512}))

    def test_a_device_holds_them(self, change):
        sentences = self.advice(change, CUDA0=514, CUDA_Host=12)
        assert has(
            sentences,
            "on CUDA0 reserves 511 MiB",
            "the last of 512 tokens",
            "smaller n_ubatch",
            "n_outputs_max",
        )

    def test_the_host_does_not(self, change):
        assert not has(self.advice(change, CPU=514), "n_outputs_max")

    def test_a_context_for_one_output_has_none(self, change):
        assert not has(self.advice(change, CUDA0=21, CUDA_Host=12), "n_outputs_max")


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        pytest.param("smollm2", "engine", marks=pytest.mark.real),
        pytest.param("gemma3", "engine", marks=pytest.mark.nightly),
        pytest.param("smollm2", "llamacpp", marks=pytest.mark.nightly),
    ],
)
def test_the_memory_of_a_real_model_is_explained(request, plan_cases, make_bench, name, provider):
    """Their vocabularies have 49 and 262 thousand tokens; only the layer reserves unused logits."""
    prepared = plan_cases(request.getfixturevalue(name), launches=1, repetitions=1)
    (case,) = prepared.cases
    case = replace(
        case,
        scenario=case.scenario.model_copy(update={"provider": provider}),
        setting=replace(case.setting, n_batch=128, n_ubatch=128),
        workload=replace(case.workload, generated_tokens=4),
    )
    record = measure_case(case, make_bench(prepared))
    found = breakdown_of(record)
    assert found.explained > 0.95
    assert (found.untouched_bytes > 8 * MIB) == (provider == "llamacpp")
    if provider == "engine":
        assert abs(case.estimate.host_bytes - found.measured_bytes) < 64 * MIB


STORED = sorted(Path(__file__).parents[1].glob("fixtures/results/first/*-cpu.json"))


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_the_memory_of_stored_records_is_explained(path):
    """They are of contexts that reserved the logits of a whole ubatch."""
    found = breakdown_of(read_record(path))
    assert found.explained > 0.95
    assert found.untouched_bytes > 8 * MIB


def test_weights_that_were_not_locked_are_reported(record, change):
    setting = record.setting.__class__(device="cpu", load_mode="mmap+mlock")
    weights = record.launches[0].effective.buffers["model"]["CPU_Mapped"]

    def locked(share):
        figures = {"peak_rss_bytes": 50 * MIB, "locked_bytes": round(share * weights)}
        marks = [mark.model_copy(update={"figures": figures}) for mark in record.launches[0].marks]
        return advise(change(launch={"marks": marks}, setting=setting))

    assert has(locked(0.0), "locked only", "ulimit")
    assert not has(locked(1.0), "locked only")
    assert not has(advise(record), "locked only")
