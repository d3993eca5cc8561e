"""Documents that are valid JSON and impossible: every reader refuses the same files, by name."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ggufbench.api.stored import load
from ggufbench.cli.app import app
from ggufbench.history.row import read_excerpt
from ggufbench.records.comparison import Comparison
from ggufbench.records.comparisons import read_comparisons
from ggufbench.records.record_summary import BriefRecord
from ggufbench.records.runs import read_documents
from ggufbench.records.schema import Record
from ggufbench.records.store import StoreError, read_document, read_folder

FIRST = Path(__file__).resolve().parents[1] / "fixtures" / "results" / "first"
DOCUMENT = json.loads((FIRST / "llama-1.1b-Q4_K_M-cpu.json").read_text())
SUMMARY = "summary", "ready_seconds"
SAMPLE = "launches", 0, "samples", 0
HUGE = 10**30
IMPOSSIBLE = [
    (("model", "file_size_bytes"), 0),
    (("model", "file_size_bytes"), -1),
    (("model", "file_size_bytes"), HUGE),
    (("model", "file_size_bytes"), "1000"),
    (("model", "file_size_bytes"), True),
    (("model", "name"), "n" * 20_000),
    (("model", "original"), {"repository": None, "path": "x", "file_size_bytes": 0}),
    (("created",), "yesterday"),
    (("created",), "0001-01-01T00:00:00+23:59"),
    (("created",), ""),
    (("outcome",), "exploded"),
    (("wall_seconds",), -1),
    (("wall_seconds",), 1e300),
    (("setting", "n_ctx"), HUGE),
    (("setting", "n_threads"), "2"),
    (("workload", "prompt_tokens"), -HUGE),
    ((*SUMMARY, "median"), 0),
    ((*SUMMARY, "median"), -0.5),
    ((*SUMMARY, "median"), 1e200),
    ((*SUMMARY, "median"), float("nan")),
    ((*SUMMARY, "minimum"), float("-inf")),
    ((*SUMMARY, "maximum"), float("inf")),
    ((*SUMMARY, "per_launch"), []),
    ((*SUMMARY, "per_launch"), [1e300]),
    ((*SUMMARY, "samples"), 0),
    ((*SUMMARY, "samples"), HUGE),
    (("summary", "watts"), DOCUMENT["summary"]["ready_seconds"]),
    ((*SAMPLE, "seconds"), 5e-324),
    ((*SAMPLE, "seconds"), -1),
    ((*SAMPLE, "tokens"), -1),
    ((*SAMPLE, "evidence"), {"major_faults": 1e300}),
    ((*SAMPLE, "disturbed"), [{"kind": "magic", "share": 0.5}]),
    ((*SAMPLE, "disturbed"), [{"kind": "heat", "share": float("nan")}]),
    (("launches", 0, "marks"), [{"after": "load", "figures": {"peak_rss_bytes": -1}}]),
    (("launches", 0, "page_cache", "resident_fraction"), 1.5),
    (("launches", 0, "conditions"), [{"load_average": 1e300}]),
    (("launches", 0, "log"), [1]),
    (("launches", 0, "stderr"), None),
    (("launches",), {}),
    (("targets", 0, "metric"), "watts"),
    (("limits", 0, "bound"), 1e300),
    (("machine", "memory_gib"), HUGE),
    (("reason",), "r" * 20_000),
    (("machine", "cpu"), "c" * 20_000),
    (("provider", "versions"), {"llama.cpp": "v" * 20_000}),
    (("surprise",), 1),
]


def edited(place, value, document=DOCUMENT) -> dict:
    changed = copy.deepcopy(document)
    inner = changed
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = value
    return changed


def refusals(path: Path, kind="absolute") -> list[str]:
    """The answer of each reader of such a document: its refusal, or nothing."""
    kinds = (Record, BriefRecord) if kind == "absolute" else (Comparison,)
    readers = [lambda kind=one: read_document(path, kind) for one in kinds]
    said = []
    for read in (*readers, lambda: read_excerpt(path, kind)):
        try:
            read()
            said.append("")
        except StoreError as error:
            said.append(str(error).replace("briefrecord", "record"))
    return said


def test_an_impossible_value_is_named_with_its_file(tmp_path):
    for number, (place, value) in enumerate(IMPOSSIBLE):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(edited(place, value)))
        said = refusals(path)
        assert all(said) and len(set(said)) == 1, (place, value, said)
        assert said[0].startswith(f"{path} is not a record of this version of ggufbench: {place[0]}"), said
    (tmp_path / "sound.json").write_text(json.dumps(DOCUMENT))
    found = read_documents(tmp_path)
    assert len(found.records) == 1 and len(found.problems) == len(IMPOSSIBLE)


def test_a_case_counts_once_in_a_run(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(DOCUMENT))
    (tmp_path / "c.json").write_text(json.dumps({**DOCUMENT, "case_id": "another"}))
    first, problem, other = read_folder(tmp_path)
    assert str(problem) == f"{tmp_path / 'b.json'} has the same run and case as a.json; remove one of them"
    assert (first.case_id, other.case_id) == (DOCUMENT["case_id"], "another")


def places(value, place=()):
    """The place of every value in a document."""
    if place:
        yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (*place, key))


SHORT = {**DOCUMENT, "launches": [{**one, "log": one["log"][:1]} for one in DOCUMENT["launches"][-1:]]}
VALUES = [
    None, True, 0, -1, 1, 2**62, HUGE, 5e-324, 1e-9, 0.5, 1e300, float("nan"), float("inf"), "", "1",
    "x" * 20_000, "measured", "\u202e\x00", [], [0], [None] * 2, {}, {"a": 1}, {"\x1b": "b"},
]  # fmt: skip
MUTATION = st.tuples(st.sampled_from(list(places(SHORT))), st.sampled_from(VALUES))


@given(st.lists(MUTATION, min_size=1, max_size=2))
def test_every_reader_accepts_the_same_documents(tmp_path, mutations):
    """One or two values of a real record are replaced; the history takes exactly what is shown."""
    document = SHORT
    for place, value in mutations:
        try:
            document = edited(place, value, document)
        except (TypeError, KeyError, IndexError):
            continue  # the other mutation replaced the object around this place
    path = tmp_path / "x.json"
    path.write_text(json.dumps(document))
    said = refusals(path)
    assert len(set(said)) == 1, said
    shown = read_documents(tmp_path)
    assert (len(shown.records), len(shown.problems)) == ((0, 1) if said[0] else (1, 0))


CELL = {"metric": "decode_tokens_per_second", "verdict": "no regression", "pairs": 10, "change": 0.01}


@pytest.fixture(scope="module")
def comparison() -> dict:
    """A comparison with one metric, made from the facts of a real record."""
    shared = {key: DOCUMENT[key] for key in ("run_id", "case_id", "created", "model", "workload", "machine")}
    how = {key: DOCUMENT[key] for key in ("scenario", "setting", "provider")}
    arms = [
        {"role": role, "name": role, "kind": "current", **how} for role in ("baseline", "candidate", "anchor")
    ]
    return {
        **shared, "wall_seconds": 1.0, "verdict": "no regression", "source": DOCUMENT["source"], "seed": 1,
        "tolerance": {}, "arms": arms, "blocks": 10, "disturbed_blocks": 0, "launches": 22, "cells": [CELL],
    }  # fmt: skip


def test_an_impossible_comparison_is_named_with_its_file(comparison, tmp_path):
    folder = tmp_path / "comparisons"
    folder.mkdir()
    changes = [
        {"cells": [{**CELL, "metric": "watts"}]},
        {"cells": [{**CELL, "change": -2}]},
        {"cells": [{**CELL, "change": 1e300}]},
        {"cells": [{**CELL, "tolerance": -0.1}]},
        {"cells": [{**CELL, "log_ratios": [float("nan")]}]},
        {"cells": [{**CELL, "verdict": "splendid"}]},
        {"model": {**comparison["model"], "file_size_bytes": 0}},
        {"created": "9999-99-99"},
        {"blocks": -1},
    ]
    for number, change in enumerate(changes):
        path = folder / f"{number}.json"
        path.write_text(json.dumps({**comparison, **change}))
        said = refusals(path, "anchored")
        assert len(set(said)) == 1, said
        assert said[0].startswith(
            f"{path} is not a comparison of this version of ggufbench: {next(iter(change))}"
        )
    (folder / "sound.json").write_text(json.dumps(comparison))
    assert refusals(folder / "sound.json", "anchored") == ["", ""]
    found = list(read_comparisons(tmp_path))
    assert sum(isinstance(one, StoreError) for one in found) == len(changes) == len(found) - 1


def test_every_command_names_the_file_and_shows_the_rest(comparison, tmp_path):
    """A run with one sound record, an impossible record, a copy and an impossible comparison."""
    for run, created in (("20260101T000000Z-aaaa", "2026-01-01"), ("20260102T000000Z-bbbb", "2026-01-02")):
        folder = tmp_path / run
        (folder / "comparisons").mkdir(parents=True)
        sound = {**DOCUMENT, "run_id": run, "created": created}
        for name, document in (
            ("a", sound),
            ("copy", sound),
            ("empty", edited(("model", "file_size_bytes"), 0, {**sound, "case_id": "empty"})),
            ("comparisons/watts", {**comparison, "run_id": run, "cells": [{**CELL, "metric": "watts"}]}),
        ):
            (folder / f"{name}.json").write_text(json.dumps(document))
    place, run = ("--results", str(tmp_path)), "20260102T000000Z-bbbb"
    for words, codes in (
        (("show", run), (0,)),
        (("report", run), (0,)),
        (("compare", "20260101T000000Z-aaaa", run), (0,)),
        (("export", run), (0,)),
        (("card", run), (0,)),
        (("history",), (0,)),
        (("gate", run), (0, 12)),
    ):
        done = CliRunner(env={"COLUMNS": "300"}).invoke(app, [*words, *place], catch_exceptions=False)
        assert done.exit_code in codes, done.output
        said = done.output.replace("\n", " ")
        assert "empty.json" in said and "file_size_bytes" in said, (words, said)
        assert "watts.json" in said and "cells.0.metric" in said, (words, said)
        assert words[0] in ("history", "gate") or "copy.json" in said
    (found,) = load(tmp_path / run).runs
    assert [one.case_id for one in found.records] == [DOCUMENT["case_id"]] and len(found.problems) == 3
