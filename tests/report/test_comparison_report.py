"""A comparison in the terminal, in Markdown and in one sentence, and its exit code."""

import pytest

from ggufbench.analysis.pairs import Pairs
from ggufbench.analysis.verdicts import judged_cell
from ggufbench.comparing.conclusion import exit_code
from ggufbench.machine.parts import Machine, SourceState
from ggufbench.records.comparison import Arm, Comparison, Verdict
from ggufbench.records.schema import ModelIdentity, ProviderFacts
from ggufbench.report.text.comparison import comparison_report, headline, markdown, sentence
from ggufbench.report.text.terminal import render
from ggufbench.stats.sequential_test import Series, judge
from ggufbench.thresholds import Tolerance
from ggufbench.worker.job import Setting, Workload

DECODE, MEMORY = "decode_tokens_per_second", "peak_rss_bytes"
SLOWER = [0.081, 0.079, 0.083, 0.078, 0.085, 0.080, 0.082, 0.077, 0.084, 0.086]
SAME = [0.001, -0.002, 0.003, -0.001, 0.002, -0.003]


def cell(metric, log_ratios, override=None):
    found = Pairs([100.0] * len(log_ratios), [90.0] * len(log_ratios), log_ratios)
    return judged_cell(metric, "baseline", found, judge({0: Series(log_ratios, 0.05)})[0], override)


def comparison(*cells, name="llama", **changes) -> Comparison:
    numbers = dict.fromkeys(
        (
            "file_size_bytes", "tensor_bytes", "decode_bytes_per_token", "parameters", "trained_context",
            "layers", "experts", "experts_used", "sliding_window",
        ),
        1,
    )  # fmt: skip
    model = ModelIdentity(
        name=name, quantization="Q8_0", identity="i", path="p", repository=None, source="s",
        architecture="llama", synthetic=True, **numbers,
    )  # fmt: skip
    machine = Machine(
        fingerprint="f", cpu="c", architecture="a", physical_cores=1, logical_cores=1, usable_cores=1,
        l3_cache_bytes=1, memory_gib=1, operating_system="o", virtualization="v", devices=[],
    )  # fmt: skip
    arms = [
        Arm(
            role=role, name=arm, kind="requirement", scenario="cpu", setting=Setting("cpu"),
            provider=ProviderFacts(name="engine"),
        )
        for role, arm in (("baseline", "llama-cpp-python==0.3.35"), ("candidate", "."))
    ]  # fmt: skip
    values = {
        "run_id": "r", "case_id": f"{name}-cpu", "created": "2026-01-01", "wall_seconds": 1,
        "verdict": cells[0].verdict if cells else Verdict.MISSING, "model": model, "workload": Workload(),
        "tolerance": Tolerance(), "machine": machine, "source": SourceState(commit=None, dirty=None),
        "seed": 7, "arms": arms, "blocks": 10, "disturbed_blocks": 0, "launches": 22, "cells": list(cells),
    }  # fmt: skip
    return Comparison(**{**values, **changes})


def test_sentence_names_metric_estimate_interval_and_tolerance():
    slow = cell(DECODE, SLOWER)
    assert slow.verdict is Verdict.REGRESSION
    said = sentence(comparison(slow), slow)
    assert said.startswith("decode_tokens_per_second: regression: 8.5 % slower than the baseline (")
    assert "interval +8.3 to +8.7 %" in said and "tolerance 5 %" in said and "10 pairs" in said
    assert "larger than the baseline" in sentence(comparison(slow), cell(MEMORY, SLOWER))
    assert "faster" in sentence(comparison(slow), cell(DECODE, [-x for x in SLOWER]))


def test_sentence_of_a_broken_cell_gives_the_reason():
    broken = cell(DECODE, SAME, (Verdict.BROKEN, "the candidate crashed: SIGSEGV"))
    said = sentence(comparison(broken), broken)
    assert said == "decode_tokens_per_second: broken: the candidate crashed: SIGSEGV"


@pytest.mark.parametrize("width", [60, 80, 100, 144])
def test_table_fits_the_terminal_and_shows_every_verdict(width):
    report = comparison_report([comparison(cell(DECODE, SLOWER), cell(MEMORY, SAME))], [], width)
    text = render(report, width, color=False)
    assert max(map(len, text.splitlines())) <= width
    words = " ".join(text.split())
    assert "regression" in words and "llama-cpp-python==0.3.35" in words and "seed 7" in words
    assert "no regression" in words and "+8.3 to +8.7 %" in words and "10" in words


def test_hostile_names_are_escaped_in_terminal_and_markdown():
    name = "<img src=x>|`rm`\x1b[31m[red]"
    found = comparison(cell(DECODE, SLOWER), name=name)
    text = render(comparison_report([found], [("a\x1b[2J", "b")], 100), 100, color=False)
    assert "\x1b" not in text and "<img src=x>" in text and "[red]" in text
    shown = markdown([found], [(name, name)])
    assert "<img" not in shown and "\x1b" not in shown and "\\|\\`rm\\`" in shown


def test_markdown_has_a_row_for_each_cell():
    lines = markdown([comparison(cell(DECODE, SLOWER), cell(MEMORY, SAME))], []).splitlines()
    assert lines[0] == "### ggufbench: regression in 1 of 1 cases"
    (row,) = [line for line in lines if line.startswith("| decode ")]
    assert row.endswith("| **regression** |") and "+8.3 to +8.7 %" in row
    assert len([line for line in lines if line.startswith("| ")]) == 3


def test_worst_case_determines_the_exit_code():
    passed, slow = comparison(cell(MEMORY, SAME)), comparison(cell(DECODE, SLOWER))
    unclear = comparison(cell(DECODE, SAME[:3]))
    broken = comparison(cell(DECODE, SAME, (Verdict.BROKEN, "it crashed")))
    gone, no_baseline = (
        comparison(verdict=Verdict.MISSING, lacking=role) for role in ("candidate", "baseline")
    )
    assert headline([passed, slow]) == "regression in 1 of 2 cases, no regression in 1 of 2 cases"
    for found, code in (
        ([passed], 0), ([passed, unclear], 0), ([passed, slow], 10), ([slow, broken], 11), ([slow, gone], 11),
        ([passed, no_baseline], 12), ([slow, no_baseline], 10), ([], 14),
        ([comparison(cell(DECODE, []))], 14),
    ):  # fmt: skip
        assert exit_code(found, strict=False) == code, found
    assert exit_code([passed, unclear], strict=True) == 13
    assert exit_code([passed], strict=True) == 0
