"""Scored cases: files against the largest of their family, and settings against the plain one."""

import dataclasses
import json
import shutil

import pytest

from ggufbench.analysis.quality import quality_of
from ggufbench.discovery import discover
from ggufbench.discovery.model import Discovery
from ggufbench.measuring import preparation
from ggufbench.measuring.case import Interrupted, measure_case
from ggufbench.outcomes import Outcome
from ggufbench.planning.plan import Selection
from ggufbench.quality import reference
from ggufbench.report.content import Content
from ggufbench.report.figures import draw_all
from ggufbench.report.page.view import page_of
from ggufbench.report.text.record_details import details, documents
from ggufbench.report.text.terminal import render

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def measured(plan_scores, make_bench, family):
    """The record of each file by its quantization; the largest one is skipped."""
    prepared = plan_scores(family)
    bench = make_bench(prepared)
    return {
        case.model.stated_quantization: (case, case.skip or measure_case(case, bench))
        for case in prepared.cases
    }


@pytest.fixture
def case_of(plan_scores, family):
    """A function that plans one file or setting of the family."""

    def plan(quantization: str, scenario: str = "quality"):
        return plan_scores(family, scenario, selection=Selection([f"tide-{quantization}"]))

    return plan


def divergences(measured) -> dict[str, float]:
    return {
        name: record.summary["kl_divergence"].median
        for name, (_, record) in measured.items()
        if not isinstance(record, str)
    }


def test_smaller_files_are_further_from_the_largest(measured):
    found = divergences(measured)
    assert 0 < found["Q8_0"] < found["Q4_0"] < found["Q2_K"]
    assert measured["F16"][1] == "it is the largest file of this model here, the reference for the others"


def test_a_record_names_its_reference_and_keeps_every_chunk(measured):
    case, record = measured["Q4_0"]
    assert record.outcome is Outcome.MEASURED
    assert (record.reference.quantization, record.reference.corpus) == ("F16", "text.txt")
    assert record.reference.identity == case.reference.model.identity
    (launch,) = record.launches
    assert {chunk.domain for chunk in launch.chunks} == {"text"}
    assert all(chunk.tokens == 15 for chunk in launch.chunks[:-1]), "the last token of 32 has no next one"
    assert set(record.summary) == {
        "kl_divergence",
        "log_probability_change",
        "top_token_agreement",
        "perplexity",
    }
    assert record.targets == record.limits == []


def test_the_same_setting_has_no_divergence_at_all(case_of, make_bench):
    prepared = case_of("Q8_0", "cache-f16")
    (case,) = prepared.cases
    assert case.skip == "this is the plain setting, with which the others are compared"
    same = dataclasses.replace(case, skip=None, reference=dataclasses.replace(case))
    record = measure_case(same, make_bench(prepared))
    assert record.outcome is Outcome.MEASURED, record.reason
    chunks = record.launches[0].chunks
    assert all(chunk.kl_divergence == 0 == chunk.other_likeliest_tokens for chunk in chunks)
    assert record.summary["kl_divergence"].median == 0
    assert quality_of(record).sentence == "the answers are those of the reference"


def test_a_smaller_cache_diverges_more(case_of, make_bench):
    found = []
    for scenario in ("cache-q8_0", "cache-q4_0"):
        prepared = case_of("F16", scenario)
        record = measure_case(prepared.cases[0], make_bench(prepared))
        assert record.reference.setting.type_k == "f16" and record.reference.identity == record.model.identity
        found.append(record.summary["kl_divergence"].median)
    assert 0 < found[0] < found[1]


def test_the_reference_is_evaluated_once_and_then_read_from_the_cache(measured, case_of, make_bench):
    prepared, seen = case_of("Q4_0"), []
    observer = lambda supervisor: seen.append(supervisor.case.model.stated_quantization)  # noqa: E731
    record = measure_case(prepared.cases[0], make_bench(prepared, observer=observer))
    assert set(seen) == {"Q4_0"}
    assert record.summary["kl_divergence"].median == divergences(measured)["Q4_0"]


def test_groups_within_a_small_budget_give_the_same_scores(
    measured, case_of, make_bench, tmp_path, monkeypatch
):
    monkeypatch.setenv("GGUFBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(reference, "MOST_BYTES", 6 * 4 * 16 * 2048)
    prepared = case_of("Q4_0")
    record = measure_case(prepared.cases[0], make_bench(prepared))
    assert record.outcome is Outcome.MEASURED and len(record.launches) > 1
    expected = measured["Q4_0"][1].launches[0].chunks
    assert [chunk for launch in record.launches for chunk in launch.chunks] == expected
    assert record.summary["kl_divergence"].median == pytest.approx(divergences(measured)["Q4_0"], rel=1e-12)
    assert not list(tmp_path.rglob("*.f32")), "rows that no later case can use are deleted"


def test_damaged_rows_in_the_cache_are_written_again(measured, case_of, make_bench, tmp_path, monkeypatch):
    monkeypatch.setenv("GGUFBENCH_CACHE", str(tmp_path))
    prepared = case_of("Q4_0")
    measure_case(prepared.cases[0], make_bench(prepared))
    rows = sorted(tmp_path.rglob("*.f32"))
    rows[0].write_bytes(rows[0].read_bytes()[:-4])
    record = measure_case(prepared.cases[0], make_bench(prepared))
    assert record.summary["kl_divergence"].median == divergences(measured)["Q4_0"]


def test_a_full_disk_is_a_failed_case_with_the_amounts(case_of, make_bench, tmp_path, monkeypatch):
    monkeypatch.setenv("GGUFBENCH_CACHE", str(tmp_path))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(reference.shutil, "disk_usage", lambda _folder: usage._replace(free=1000))
    prepared = case_of("Q4_0")
    record = measure_case(prepared.cases[0], make_bench(prepared))
    assert record.outcome is Outcome.FAILED
    assert "the distributions of one chunk have 120 KiB, and 1000 B is free in" in record.reason
    assert "name another folder with GGUFBENCH_CACHE" in record.reason


def test_a_reference_that_cannot_be_loaded_fails_the_case_with_its_reason(
    case_of, make_bench, tmp_path, monkeypatch
):
    monkeypatch.setenv("GGUFBENCH_CACHE", str(tmp_path))
    prepared = case_of("Q4_0")
    (case,) = prepared.cases
    absent = tmp_path / "tide-F16.gguf"
    model = dataclasses.replace(case.reference.model, path=absent, shards=(absent,))
    broken = dataclasses.replace(case.reference, model=model)
    record = measure_case(dataclasses.replace(case, reference=broken), make_bench(prepared))
    assert record.outcome is Outcome.FAILED
    assert record.reason.startswith("the reference, tide-F16, could not be scored:")
    assert "was replaced, changed or removed" in record.reason


def test_another_tokenizer_is_refused_and_not_scored(family, plan_scores, make_bench, tmp_path):
    """The same vocabulary in another order: the same text has other tokens."""
    for name in ("tide-F16.gguf", "tide-Q8_0.gguf"):
        shutil.copy(family / name, tmp_path)
    for pair in ((b"ti", b"se"), (b"he", b"at"), (b"ve", b"is"), (b"ri", b"fo")):
        swap_tokens(tmp_path / "tide-Q8_0.gguf", *pair)
    prepared = plan_scores(tmp_path, selection=Selection(["tide-Q8_0"]))
    record = measure_case(prepared.cases[0], make_bench(prepared))
    assert record.outcome is Outcome.SKIPPED
    assert "its tokenizer or chat template gives other tokens than the reference's" in record.reason


def swap_tokens(path, *pair: bytes) -> None:
    """Exchange two tokens of equal length in the vocabulary of a file."""
    content = path.read_bytes()
    first, second = (len(token).to_bytes(8, "little") + token for token in pair)
    assert content.count(first) and content.count(second)
    marked = content.replace(first, b"\0" * len(first), 1)
    path.write_bytes(marked.replace(second, first, 1).replace(b"\0" * len(first), second, 1))


def test_tables_page_and_figure_show_the_answers(measured):
    records = [record for _, record in measured.values() if not isinstance(record, str)]
    shown = render(details(records), 80, False)
    assert "nats from F16, perplexity" in shown and "another token would be the likeliest after" in shown
    assert max(map(len, shown.splitlines())) <= 80
    (document, *_) = documents(records)
    assert json.dumps(document["quality"]) and document["quality"]["domains"]["text"]["tokens"] > 100
    content = Content(records)
    page = page_of(content, draw_all(content))
    assert [row.name for row in page.answers] == ["tide-Q8_0", "tide-Q4_0", "tide-Q2_K"]
    assert "quality" in {figure.name for figure in page.figures} and page.results is None


def test_a_cache_that_cannot_be_written_fails_the_case_with_its_reason(
    case_of, make_bench, tmp_path, monkeypatch
):
    (tmp_path / "reference-distributions").write_text("a file where the folder should be")
    monkeypatch.setenv("GGUFBENCH_CACHE", str(tmp_path))
    prepared = case_of("Q4_0")
    record = measure_case(prepared.cases[0], make_bench(prepared))
    assert record.outcome is Outcome.FAILED
    assert "reference-distributions" in record.reason and "could not be scored" in record.reason


@pytest.mark.parametrize(
    ("quantization", "words"), [("F16", "while its reference was scored"), ("Q4_0", "in score")]
)
def test_ctrl_c_ends_with_a_record_that_says_where(
    case_of, make_bench, tmp_path, monkeypatch, quantization, words
):
    monkeypatch.setenv("GGUFBENCH_CACHE", str(tmp_path))

    def interrupt(supervisor):
        if supervisor.case.model.stated_quantization == quantization and supervisor.phase == "score":
            raise KeyboardInterrupt

    prepared = case_of("Q4_0")
    with pytest.raises(Interrupted) as caught:
        measure_case(prepared.cases[0], make_bench(prepared, observer=interrupt))
    assert caught.value.record.outcome is Outcome.FAILED
    assert words in caught.value.record.reason and not caught.value.record.summary
    assert not list(tmp_path.rglob("index.json")) or quantization == "Q4_0"


def test_a_context_shorter_than_a_chunk_is_skipped(case_of, plan_scores, family, monkeypatch):
    found = [dataclasses.replace(m, trained_context=16) for m in discover([family]).models]
    monkeypatch.setattr(preparation, "discover", lambda _places: Discovery(tuple(found), ()))
    reasons = {case.skip for case in plan_scores(family).cases}
    assert "its context is 16 tokens, and a chunk of this scenario has 32" in reasons
