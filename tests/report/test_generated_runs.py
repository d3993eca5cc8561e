"""Every output from generated runs: any outcome, provider and device, few or equal samples, hostile names."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from ggufbench.cli.app import app
from ggufbench.export import EXPORTERS
from ggufbench.export.exporter import Wanted
from ggufbench.metrics import METRICS
from ggufbench.outcomes import Outcome
from ggufbench.records.comparison import Arm, Cell, Comparison, Verdict
from ggufbench.records.comparisons import write_comparison
from ggufbench.records.parts import Disturbance
from ggufbench.records.runs import read_run
from ggufbench.records.samples import summaries
from ggufbench.records.schema import ChunkScores, Launch, ProviderFacts, Record, Reference
from ggufbench.records.store import write_record
from ggufbench.report.content import Content
from ggufbench.report.figures import Figures, draw_all, save_figures
from ggufbench.report.page import render
from ggufbench.worker.job import ENGINE, LANGCHAIN, SCORER, TRANSFORMERS

RUN, EARLIER = "20260202T000000Z-bbbb", "20260101T000000Z-aaaa"
NAMES = [
    "llama", "_model", "_", "$x_1^2$", "\\frac{1}{2}", "100 % %s {0}", "two\nlines", "\u202eevil\u2066",
    "עברית", "<script>alert(1)</script>", "]]>&amp;\"'", "\x1b[31m\x00\x85", "\ufffe\ud7ff",
    "=1+1", "-2", "+3", "@sum(1)", "[red]bold[/red]", "|a|`b`", "漢字🦙", "w" * 200, " ",
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Plan:
    """One record of a generated run."""

    how: dict
    """Arguments of make_record."""
    samples: str
    without: frozenset[str]
    """Metrics that are missing in its summary."""


def powers(lowest: int, highest: int) -> st.SearchStrategy[float]:
    return st.integers(lowest, highest).map(lambda power: 10.0**power)


PLANS = st.builds(
    Plan,
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(NAMES)
            | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9),
            "quantization": st.sampled_from(["Q8_0", "Q4_K_M", "F16", *NAMES]),
            "scenario": st.sampled_from(["cpu", "rpc", "transformers-bf16", *NAMES]),
            "provider": st.sampled_from([ENGINE, TRANSFORMERS, LANGCHAIN]),
            "outcome": st.sampled_from(["measured"] * 6 + list(Outcome)),
            "phase": st.sampled_from(["load", "prompt", "decode"]),
            "reason": st.none() | st.sampled_from(NAMES),
            "speed": powers(-6, 6),
            "memory": powers(-4, 5),
            "launches": st.integers(1, 3),
            "generated": st.sampled_from([1, 2, 5, 64]),
            "device": st.sampled_from(["cpu", "metal", "cuda"]),
            "original": st.none() | st.just("models/original"),
            "file_size": st.none() | st.sampled_from([1, 10**3, 10**15]),
        }
    ),
    st.sampled_from(["all", "one", "equal", "interference", "few", "scored"]),
    st.frozensets(st.sampled_from(list(METRICS)), max_size=6) | st.just(frozenset(METRICS)),
)
VERDICTS = st.lists(
    st.tuples(st.sampled_from(list(Verdict)), st.sampled_from([-0.99, 0.0, 1e-9, 5.0, 1e9])), max_size=3
)
RUNS = st.tuples(st.lists(PLANS, max_size=5), VERDICTS).filter(lambda run: run[0] or run[1])


def records_of(make_record, plans: Sequence[Plan]) -> list[Record]:
    """A valid record for each plan with another case."""
    made = {}
    for plan in plans:
        record = make_record(**plan.how)
        launches = _LIMITED[plan.samples](record.launches)
        found = summaries(launches, record.loaded_bytes)
        summary = {name: one for name, one in found.items() if name not in plan.without}
        changes = {"launches": launches, "summary": summary, "run_id": RUN, "limits": record.limits[:1]}
        if plan.samples == "scored":
            changes |= {"reference": reference_of(record), "provider": ProviderFacts(name=SCORER)}
        record = record.model_copy(update=changes)
        made[record.case_id] = Record.model_validate_json(record.model_dump_json(), strict=True)
    return list(made.values())


def reference_of(record: Record) -> Reference:
    """A reference, which is the file itself for some."""
    identity = record.model.identity if record.model.quantization == "Q8_0" else "another"
    return Reference(
        name=record.model.name, quantization=NAMES[5], identity=identity, file_size_bytes=1,
        setting=record.setting, corpus=NAMES[10], corpus_digest="x", chunk_tokens=256,
    )  # fmt: skip


def _scored(launches: Sequence[Launch]) -> list[Launch]:
    """Launches with scores: none at all, tiny, and vast."""
    chunks = [
        ChunkScores(
            domain=NAMES[number], tokens=1 + number, kl_divergence=nats, log_probability=-nats,
            reference_log_probability=-1e6 if number == 3 else 0, other_likeliest_tokens=number,
            widest_gap=nats,
        )
        for number, nats in enumerate([0.0, 1e-12, 0.5, 1e6])
    ]  # fmt: skip
    return [launch.model_copy(update={"chunks": chunks[: len(launches)]}) for launch in launches]


def _changed(launches: Sequence[Launch], change) -> list[Launch]:
    return [
        one.model_copy(update={"samples": [change(sample) for sample in one.samples]}) for one in launches
    ]


def _one(launches: Sequence[Launch]) -> list[Launch]:
    last = {sample.phase: sample for launch in launches[-1:] for sample in launch.samples}
    return [launch.model_copy(update={"samples": list(last.values())}) for launch in launches[-1:]]


def _equal(launches: Sequence[Launch]) -> list[Launch]:
    return _changed(
        launches,
        lambda one: one.model_copy(update={"seconds": 1.0, "token_seconds": [0.5] * len(one.token_seconds)}),
    )


def _all_with_interference(launches: Sequence[Launch]) -> list[Launch]:
    return _changed(launches, lambda one: one.model_copy(update={"disturbed": [Disturbance("heat", 1.0)]}))


_LIMITED = {
    "all": list,
    "one": _one,
    "equal": _equal,
    "interference": _all_with_interference,
    "scored": _scored,
    "few": lambda launches: [launch.model_copy(update={"samples": [], "marks": []}) for launch in launches],
}


def comparisons_of(base: Record, verdicts) -> list[Comparison]:
    """One comparison for each verdict, with a cell, and without numbers if nothing was measured."""
    roles = ("baseline", "candidate")
    arms = [
        Arm(role=role, name=NAMES[number], kind="requirement", scenario="cpu", setting=base.setting,
            provider=base.provider) for number, role in enumerate(roles)
    ]  # fmt: skip
    made = []
    for number, (verdict, change) in enumerate(verdicts):
        measured = verdict not in (Verdict.BROKEN, Verdict.MISSING)
        ends = {"low": max(-1.0, change - 0.5), "high": change + 0.5, "level": 0.9, "tolerance": 0.05}
        numbers = {"change": change, "reference_median": 2.0, "candidate_median": 1e-9, **ends}
        cell = Cell(
            metric="decode_tokens_per_second", verdict=verdict, pairs=6, **(numbers if measured else {})
        )
        made.append(
            Comparison(
                run_id=RUN, case_id=f"{NAMES[number]}-compared", created=base.created, wall_seconds=1,
                verdict=verdict, reason=None if measured else NAMES[9], cells=[cell], arms=arms, seed=1,
                model=base.model, workload=base.workload, tolerance=base.tolerance, machine=base.machine,
                source=base.source, blocks=6, disturbed_blocks=0, launches=12,
            )
        )  # fmt: skip
    return made


class Page(HTMLParser):
    """Reads a page strictly enough to see elements and texts that a name could have added."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)


def unprintable(text: str) -> set[str]:
    """Characters that a terminal or a browser could interpret."""
    return {letter for letter in set(text) if not letter.isprintable()} - {"\n"}


def check_drawings(records, comparisons, folder: Path) -> None:
    """The page, every figure as SVG and PNG, and the overview."""
    content = Content(records, comparisons, runs=[RUN])
    drawn = draw_all(content)
    page = render(content, drawn=drawn)
    tags = Page(page).tags
    assert tags.count("script") == 1 and tags.count("html") == 1 and not {"img", "iframe"} & set(tags)
    assert not unprintable(page)
    paths = save_figures(content, folder)
    assert len(paths) == 2 * len(drawn)
    for path in paths:
        if path.suffix == ".svg":
            assert not {"script", "image"} & {tag.tag.rpartition("}")[2] for tag in ET.parse(path).iter()}
        else:
            assert path.read_bytes().startswith(b"\x89PNG")
    if drawn:
        Figures(content).save_overview(folder / "overview.png", NAMES[5])


def check_commands(records, comparisons, results: Path) -> None:
    """Every command that reads a stored run."""
    for one in records:
        write_record(results, one)
        write_record(
            results, one.model_copy(update={"run_id": EARLIER, "created": "2026-01-01T00:00:00+00:00"})
        )
    for one in comparisons:
        write_comparison(results, one)
    found = read_run(results, RUN)
    assert not found.problems
    assert sorted(found.case_ids) == sorted(one.case_id for one in [*records, *comparisons])
    place = ("--results", str(results))
    for width, words, codes in (
        ("60", ("show", RUN), {0}),
        ("200", ("show", RUN), {0}),
        ("80", ("show", RUN, "--json"), {0}),
        ("80", ("compare", EARLIER, RUN), {0, 2, 12}),
        ("80", ("card", RUN), {0, 2}),
        ("60", ("history",), {0, 2}),
        ("200", ("gate", RUN), {0, 2, 10, 11, 12, 14}),
    ):
        done = CliRunner(env={"COLUMNS": width}).invoke(app, [*words, *place], catch_exceptions=False)
        assert done.exit_code in codes, done.output[-500:]
        assert not unprintable(done.output), words
        assert done.exit_code != 2 or done.stderr.count("\n") == 1
    for name, exporter in EXPORTERS.items():
        for wanted in (Wanted(), Wanted(summaries=True)):
            content = exporter.content(found, wanted)
            if name == "csv":
                rows = list(csv.reader(io.StringIO(content.decode())))
                assert all(len(row) == len(rows[0]) for row in rows)
            elif not exporter.is_binary:
                assert not unprintable(content.decode())


@pytest.fixture
def places(tmp_path):
    """A function that returns an unused folder for each example."""
    made = []

    def new() -> Path:
        made.append(tmp_path / str(len(made)))
        made[-1].mkdir()
        return made[-1]

    return new


FEW = settings(max_examples=3, derandomize=True, suppress_health_check=list(HealthCheck))
MANY = settings(max_examples=150, suppress_health_check=list(HealthCheck))


@settings(FEW)
@given(run=RUNS)
def test_every_command_shows_any_run(make_record, places, run):
    records = records_of(make_record, run[0])
    check_commands(records, comparisons_of(make_record(), run[1]), places())


@settings(FEW, max_examples=2)
@given(run=RUNS)
def test_every_picture_shows_any_run(make_record, places, run):
    records = records_of(make_record, run[0])
    check_drawings(records, comparisons_of(make_record(), run[1]), places())


@pytest.mark.nightly
@settings(MANY)
@given(run=RUNS)
def test_every_output_shows_many_runs(make_record, places, run):
    records, comparisons = records_of(make_record, run[0]), comparisons_of(make_record(), run[1])
    check_commands(records, comparisons, places())
    check_drawings(records, comparisons, places())
