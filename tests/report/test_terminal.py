"""The end of a run at three widths, and names that must not look alike.

To draw the snapshots again: `GGUFBENCH_DRAW=1 pytest tests/report/test_terminal.py`.
"""

import dataclasses
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from ggufbench.report.page.results import results_table as page_results
from ggufbench.report.text.names import Name, shortened
from ggufbench.report.text.phrases import MEMORY_IN_TOTAL, PEAK_OF_PROCESS
from ggufbench.report.text.record_details import details, run_summary
from ggufbench.report.text.terminal import render, table, text

SNAPSHOTS = Path(__file__).parent / "snapshots"
WIDTHS = (80, 120, 200)
LONG = "gemma-3-12b-it-abliterated-v2-i1-GGUF-Q4_K_M"


NAMES = st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "M"])), max_size=8)


@pytest.fixture
def end_of_run(first_run):
    """A function: what `pytest bench` prints of a stored run on a terminal of that width."""

    def drawn(width: int) -> str:
        lines = render(run_summary(first_run.records, [], [], width), width, color=False).splitlines()
        return "".join(f"{line.rstrip()}\n" for line in lines)

    return drawn


@pytest.mark.parametrize("width", WIDTHS)
def test_the_end_of_a_run_is_as_drawn(end_of_run, width):
    snapshot = SNAPSHOTS / f"end_of_run_{width}.txt"
    if os.environ.get("GGUFBENCH_DRAW"):
        snapshot.write_text(end_of_run(width), encoding="utf-8")
    assert end_of_run(width) == snapshot.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal_and_no_name_is_broken(end_of_run, width):
    shown = end_of_run(width)
    assert max(map(len, shown.splitlines())) <= width
    for name in ("gpt-oss-100m-MXFP4 ~", "llama-1.1b-IQ4_NL ~", "transformers-bf16", "transformers-gguf"):
        assert name in shown
    assert "1963 t/s" in shown and "crashed (SIGSEGV)" in shown


def test_a_long_name_is_shortened_in_the_middle():
    assert shortened([LONG], 20) == {LONG: "gemma-3-1\u2026GUF-Q4_K_M"}
    assert shortened([LONG], 60) == {LONG: LONG}


def test_names_that_differ_in_the_middle_stay_distinct():
    names = [f"{'a' * 30}-{middle}-{'b' * 30}" for middle in ("one", "two")]
    assert shortened(names, 20) == {name: name for name in names}
    ends = [f"{'a' * 30}{end}" for end in ("-cpu", "-rpc")]
    assert len(set(shortened(ends, 12).values())) == 2


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "M"])), max_size=8),
    st.integers(4, 40),
)
def test_names_are_never_alike_and_fit_unless_they_stay_whole(names, width):
    shown = shortened(names, width)
    assert len(set(shown.values())) == len(set(names))
    assert all(cell_len(spelled) <= width or spelled == name for name, spelled in shown.items())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_figures_keep_their_width_and_sentences_wrap_before_names_are_cut(width):
    shown = table("Case", ">Rate", "Reason")
    shown.add_row(Name(f"{LONG[:24]}-cpu"), text("12345.6 t/s"), text("the file does not fit " * 4))
    drawn = render(shown, width, color=False)
    assert f"{LONG[:24]}-cpu" in drawn and "12345.6 t/s" in drawn
    assert max(map(len, drawn.splitlines())) <= width


def test_a_name_cannot_steer_the_terminal():
    shown = table("Case")
    shown.add_row(Name("a\x1b[31m", below="b\u202e"))
    drawn = render(shown, 80, color=False)
    assert "a\\x1b[31m" in drawn and "b\\u202e" in drawn and "\x1b" not in drawn


def test_many_cases_are_shown_without_their_details(make_record):
    record = make_record()
    few, many = (render(details([record] * number), 200, False) for number in (100, 101))
    assert "One token" in few and "left out" not in few
    assert "of 101 cases are left out; choose cases with --match, or use --json." in many
    assert len(many.splitlines()) < 20


def test_memory_has_the_same_words_as_on_the_page(make_record):
    base = make_record()
    device = dataclasses.replace(base.summary["peak_rss_bytes"], median=5e9)
    on_gpu = base.model_copy(update={"summary": {**base.summary, "device_bytes": device}})
    assert PEAK_OF_PROCESS in render(details([base, on_gpu]), 200, False)
    assert PEAK_OF_PROCESS not in render(details([base]), 200, False)
    notes = page_results([on_gpu], {}).notes
    assert notes[0].startswith("Medians.") and PEAK_OF_PROCESS in notes[0] and MEMORY_IN_TOTAL in notes[0]
