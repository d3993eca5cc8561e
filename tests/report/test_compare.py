"""`ggufbench compare`: two stored runs in a table."""

import dataclasses
import json

import pytest

from ggufbench.analysis.run_diff import between
from ggufbench.records.store import write_record

EARLIER, LATER = "20260101T000000Z-aaaa", "20260202T000000Z-bbbb"
EARLY = {"run_id": EARLIER, "created": "2026-01-01T00:00:00+00:00"}
LATE = {"run_id": LATER, "created": "2026-02-02T00:00:00+00:00"}


@pytest.fixture
def compare(tmp_path, ggufbench):
    """A function that runs `ggufbench compare` with arguments on the runs in `compare.results`."""

    def compare(*arguments, columns="160"):
        return ggufbench("compare", "--results", compare.results, *arguments, COLUMNS=columns)

    compare.results = tmp_path / "results"
    compare.results.mkdir()
    return compare


def store(results, *records):
    for record in records:
        write_record(results, record)


def test_order_of_the_arguments_does_not_matter(compare, make_record):
    store(
        compare.results,
        make_record(launches=4, digest="aaaa", **EARLY),
        make_record(launches=4, digest="bbbb", speed=0.8, versions={"llama-cpp-python": "0.4"}, **LATE),
    )
    for order in ((EARLIER, LATER), (LATER, EARLIER)):
        document = json.loads(compare(*order, "--json").stdout)
        assert document["earlier"]["run"] == EARLIER and document["later"]["run"] == LATER
        (case,) = document["cases"]
        changes = {change["metric"]: change for change in case["changes"]}
        assert changes["decode_tokens_per_second"]["ratio"]["value"] == pytest.approx(0.8, rel=1e-6)
        assert changes["ready_seconds"]["ratio"]["value"] == pytest.approx(1.25, rel=1e-6)
        assert case["same_work"] == "no"
        assert case["versions"]["llama-cpp-python"] == ["0.3.36", "0.4"]
        assert document["exit_code"] == 0


@pytest.mark.parametrize("columns", ["60", "160"])
def test_table_shows_ratios_work_and_unmatched_cases(compare, make_record, columns):
    store(
        compare.results,
        make_record(launches=4, **EARLY),
        make_record(launches=4, speed=0.5, **LATE),
        make_record(name="new", **LATE),
        make_record(name="gone", **EARLY),
    )
    done = compare(EARLIER, LATER, columns=columns)
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    assert "0.500" in words and "2.000" in words
    assert "same work?" in words.lower() and "yes" in words
    assert "different times of runs" in words and "`ggufbench ab` decides" in words
    assert "only in the earlier run: gone-" in words and "only in the later run: new-" in words


def test_exit_12_for_runs_of_different_machines(compare, make_record):
    store(compare.results, make_record(**EARLY), make_record(fingerprint="f" * 16, **LATE))
    done = compare(EARLIER, LATER)
    assert done.returncode == 12
    assert "results of two machines are not comparable" in " ".join(done.stdout.split())
    assert "Interval" not in done.stdout
    document = json.loads(compare(EARLIER, LATER, "--json").stdout)
    assert document["cases"][0]["changes"] == [] and document["exit_code"] == 12


@pytest.mark.parametrize("later", [{"name": "other"}, {"outcome": "hung", "phase": "load", "reason": "no"}])
def test_exit_12_with_the_reason_if_nothing_is_comparable(compare, make_record, later):
    store(compare.results, make_record(**EARLY), make_record(**LATE, **later))
    done = compare(EARLIER, LATER)
    assert done.returncode == 12
    words = " ".join(done.stdout.split())
    assert "nothing can be compared" in words or "the later record hung in load" in words


def test_options_select_cases_and_metrics(compare, make_record):
    store(compare.results, *(make_record(name=n, **run) for n in ("one", "two") for run in (EARLY, LATE)))
    chosen = ("--match", "two", "--metric", "token_p50_seconds", "--json")
    document = json.loads(compare(EARLIER, LATER, *chosen).stdout)
    (case,) = document["cases"]
    assert case["case_id"].startswith("two")
    assert [change["metric"] for change in case["changes"]] == ["token_p50_seconds"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((EARLIER, "nonesuch"), "nonesuch is not a run"),
        ((EARLIER, EARLIER), "both arguments name the run"),
        ((EARLIER, LATER, "--metric", "decode_tokens_per_secnd"), "did you mean decode_tokens_per_second?"),
        ((EARLIER, LATER, "--match", "gemma"), "no case in either run matches gemma"),
    ],
)
def test_invalid_request_is_one_sentence_and_exit_2(compare, make_record, arguments, sentence):
    store(compare.results, make_record(**EARLY), make_record(**LATE))
    done = compare(*arguments)
    assert done.returncode == 2
    assert sentence in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_hostile_file_is_reported_and_escaped(compare, make_record):
    name = "\x1b]0;evil\x07[red]"
    store(compare.results, make_record(name=name, **EARLY), make_record(name=name, **LATE))
    (compare.results / LATER / "broken.json").write_text('{"schema_version": 3')
    done = compare(EARLIER, LATER)
    assert done.returncode == 0
    assert "broken.json is not a record" in done.stderr
    assert "\x1b" not in done.stdout and "\x07" not in done.stdout
    assert "[red]" in done.stdout


def test_different_file_of_the_same_name_has_no_ratio(make_record):
    (case,) = between([make_record(**EARLY)], [make_record(file_size=4711, **LATE)]).cases
    assert case.changes == [] and "the file differs" in case.problem


@pytest.mark.parametrize("name", ["prompt_tokens", "generated_tokens", "depth"])
def test_different_workload_has_no_ratio(make_record, name):
    before, after = make_record(**EARLY), make_record(**LATE)
    after = after.model_copy(update={"workload": dataclasses.replace(after.workload, **{name: 7})})
    (case,) = between([before], [after]).cases
    assert case.changes == [] and f"{name} {getattr(before.workload, name)} -> 7" in case.problem


def test_different_setting_is_compared_with_a_note(make_record):
    before, after = make_record(**EARLY), make_record(**LATE)
    after = after.model_copy(update={"setting": dataclasses.replace(after.setting, n_threads=7)})
    (case,) = between([before], [after]).cases
    assert case.changes
    assert f"n_threads {before.setting.n_threads} -> 7" in case.notes


def test_missing_digests_make_equality_unknown(make_record):
    before, after = make_record(launches=2, **EARLY), make_record(launches=2, **LATE)
    blank = [launch.model_copy(update={"digest": None}) for launch in after.launches]
    (case,) = between([before], [after.model_copy(update={"launches": blank})]).cases
    assert case.same_work == "unknown"


def test_run_compared_with_itself_has_ratios_of_one(first_run):
    found = between(first_run.records, first_run.records)
    assert found.is_comparable and not found.on_other_machine
    for case in found.cases:
        for change in case.changes:
            assert change.ratio.value == pytest.approx(1)
            if change.ratio.low is not None:
                assert change.ratio.low <= 1 <= change.ratio.high


def test_runs_without_common_cases_are_not_comparable(make_record):
    found = between([make_record(name="a")], [make_record(name="b")])
    assert not found.cases and not found.is_comparable and not found.on_other_machine
    assert len(found.only_earlier) == len(found.only_later) == 1
