"""Tidy tables: one row for each value, the same in every library."""

import statistics
import sys
from pathlib import Path

import pytest

import ggufbench
from ggufbench.records.tables import SAMPLE_COLUMNS, SUMMARY_COLUMNS

CHECKOUT = Path(__file__).resolve().parents[2]
RESULTS = CHECKOUT / "tests" / "fixtures" / "results"


@pytest.fixture(scope="module")
def results():
    return ggufbench.load(RESULTS)


def test_the_samples_without_interference_are_those_of_the_summaries(results):
    by_metric: dict = {}
    for row in results.samples().rows():
        if not row["interference"]:
            by_metric.setdefault((row["run"], row["case"], row["metric"]), []).append(row["value"])
    summaries = results.summaries().rows()
    # First records were written before some metrics existed: those have samples and no summary.
    assert len(summaries) > 300
    for row in summaries:
        values = by_metric[row["run"], row["case"], row["metric"]]
        assert (len(values), statistics.median(values)) == (row["samples"], pytest.approx(row["median"]))
        assert (min(values), max(values)) == pytest.approx((row["minimum"], row["maximum"]))


def test_samples_with_interference_are_marked(results):
    marked = [row for row in results.samples().rows() if row["interference"]]
    disturbed = sum(
        bool(sample.disturbed) and not sample.warmup
        for record in results.records
        for launch in record.launches
        for sample in launch.samples
    )
    assert disturbed and marked
    assert len({(row["case"], row["launch"], row["sample"], row["metric"]) for row in marked}) == len(marked)
    assert sum(row["interference"] for row in results.summaries().rows()) > 0


def test_a_row_names_what_was_measured(results):
    row = results.runs[0].samples().rows()[0]
    assert list(row) == list(SAMPLE_COLUMNS)
    assert row["run"] == "20261128T065005Z-2a46" and row["machine"] == "7865ef10a6b2ab48"
    assert row["build"] == "llama-cpp-python 0.3.36, llama.cpp 0c1e570-dirty, ggml 0.25.3"
    assert (row["launch"], row["sample"], row["unit"]) == (1, 1, "s")


def test_every_column_is_documented():
    page = (CHECKOUT / "docs" / "api.md").read_text().partition("## Columns")[2]
    for name in {*SAMPLE_COLUMNS, *SUMMARY_COLUMNS}:
        assert f"`{name}`" in page


@pytest.mark.parametrize("library", ["pandas", "polars", "arrow"])
def test_every_library_gets_the_same_rows(results, library):
    pytest.importorskip("pyarrow" if library == "arrow" else library)
    convert = {
        "pandas": lambda table: table.to_pandas().to_dict("records"),
        "polars": lambda table: table.to_polars().to_dicts(),
        "arrow": lambda table: table.to_arrow().to_pylist(),
    }[library]
    for table in (results.samples(), results.summaries(), results.runs[0].only(["nothing"]).samples()):
        assert convert(table) == table.rows()


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_a_missing_library_is_named(results, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    with pytest.raises(ggufbench.GgufbenchError, match=f"pip install {library}"):
        getattr(results.samples(), f"to_{library.removeprefix('py')}")()
