"""Rows for a picker: every loadable model with its measurements on this machine."""

import json
import os
import shutil
from dataclasses import replace

import pytest
from pydantic_core import to_jsonable_python

from ggufbench.chat import LlamaCppModelConfig, find_gguf_in_cache, get_gguf_models_from_cache, rows
from ggufbench.discovery import discover
from ggufbench.errors import GgufbenchError
from ggufbench.measuring.case import measure_case
from ggufbench.outcomes import Outcome
from ggufbench.records.store import read_record, write_record

NEW, OLD = "0" * 39 + "2", "0" * 39 + "1"


def test_every_model_of_the_cache_is_a_row(hub, quantized, split, no_models):
    hub.add("b/two", {"two-Q8_0.gguf": quantized("Q8_0"), "two-Q4_0.gguf": quantized("Q4_0")})
    hub.add("a/one", {f"parts/{path.name}": path for path in split} | {"mmproj.gguf": no_models["mmproj"]})
    found = get_gguf_models_from_cache()
    assert [(row.repository, row.quantization) for row in found] == [
        ("a/one", "Q8_0"),
        ("b/two", "Q4_0"),
        ("b/two", "Q8_0"),
    ]
    one, two = found[0], found[1]
    assert one.path.name == split[0].name
    assert one.file_size_bytes == sum(path.stat().st_size for path in split)
    assert (two.label, two.name, two.architecture) == ("two-Q4_0", "two", "llama")
    assert (two.source, two.cost, two.measured) == ("huggingface", "free", None)
    assert two.path == find_gguf_in_cache("b/two")
    assert two.trained_context == 2048
    assert two.parameters > 1_000_000
    assert two.chat_template


def test_rows_are_json(hub, quantized, note, tmp_path):
    hub.add("a/b", {"b-Q4_0.gguf": quantized("Q4_0")})
    note(tmp_path / "results", quantized("Q4_0"), rate=30.0)
    [row] = json.loads(
        json.dumps(to_jsonable_python(get_gguf_models_from_cache(results=tmp_path / "results")))
    )
    assert row["cost"] == "free"
    assert row["path"].endswith("/b-Q4_0.gguf")
    assert row["measured"]["outcome"] == "measured"
    assert row["measured"]["decode_tokens_per_second"] == 30.0


def test_a_row_makes_its_config(hub, quantized):
    hub.add("a/b", {"b-Q4_0.gguf": quantized("Q4_0", context=512)})
    [row] = get_gguf_models_from_cache()
    config = row.config(temperature=0.0)
    assert isinstance(config, LlamaCppModelConfig)
    assert (config.model, config.model_path, config.temperature) == ("a/b", str(row.path), 0.0)
    assert config.n_ctx == 512, "not longer than it was trained for"
    assert row.config(n_ctx=64).n_ctx == 64


def test_newest_revision_of_a_file(hub, quantized):
    hub.add("a/b", {"b-Q4_0.gguf": quantized("Q4_0", seed=1), "b-Q8_0.gguf": quantized("Q8_0")}, OLD)
    new = hub.add("a/b", {"b-Q4_0.gguf": quantized("Q4_0")}, NEW)
    found = get_gguf_models_from_cache()
    assert [(row.quantization, row.path.parent.name) for row in found] == [("Q4_0", NEW), ("Q8_0", OLD)]
    assert found[0].path == new / "b-Q4_0.gguf"


def test_rows_of_discovered_models(hub, quantized, tmp_path):
    snapshot = hub.add("a/b", {"b-Q4_0.gguf": quantized("Q4_0")})
    folder = tmp_path / "own"
    folder.mkdir()
    shutil.copy(quantized("Q8_0"), folder / "mine-Q8_0.gguf")
    found = rows([*discover().models, *discover([folder]).models])
    assert [(row.source, row.path) for row in found] == [
        ("huggingface", snapshot / "b-Q4_0.gguf"),
        ("path", folder / "mine-Q8_0.gguf"),
    ]
    assert found[1].config().model == "mine"


def test_missing_cache_has_no_models(hub, tmp_path):
    assert get_gguf_models_from_cache() == []
    assert get_gguf_models_from_cache(cache_dir=tmp_path / "none") == []
    assert rows([]) == []


def test_results_folder_of_the_user(hub, quantized, note, tmp_path, monkeypatch):
    hub.add("a/b", {"b-Q4_0.gguf": quantized("Q4_0")})

    def rate(**options):
        [row] = get_gguf_models_from_cache(**options)
        return row.measured and row.measured.decode_tokens_per_second

    assert rate() is None
    note(tmp_path / "home" / "results", quantized("Q4_0"), rate=1.0)
    assert rate() == 1.0, "results in the current folder"
    note(tmp_path / "named", quantized("Q4_0"), rate=2.0)
    monkeypatch.setenv("GGUFBENCH_RESULTS", str(tmp_path / "named"))
    assert rate() == 2.0
    note(tmp_path / "given", quantized("Q4_0"), rate=3.0)
    assert rate(results=tmp_path / "given") == 3.0
    assert rate(results=tmp_path / "none") is None


def measured_of(path, results):
    [row] = rows(discover([path]).models, results)
    return row.measured


def test_only_records_of_this_machine_count(quantized, note, tmp_path):
    path = quantized("Q4_0")
    record = read_record(note(tmp_path / "here", path, rate=1.0))
    for number, changes in enumerate(
        ({"cpu": "another one"}, {"memory_gib": 1}, {"operating_system": "none"})
    ):
        other = record.machine.model_copy(update={"fingerprint": "0" * 16, **changes})
        note(tmp_path / "elsewhere", path, rate=2.0, machine=other, case_id=f"case-{number}")
    assert measured_of(path, tmp_path / "elsewhere") is None
    gpu = record.machine.model_copy(update={"fingerprint": "0" * 16, "devices": ["a GPU"]})
    note(tmp_path / "with-gpu", path, rate=3.0, machine=gpu)
    assert measured_of(path, tmp_path / "with-gpu").decode_tokens_per_second == 3.0


def test_preferred_record(quantized, note, tmp_path):
    path, results = quantized("Q4_0"), tmp_path / "results"
    record = read_record(note(results, path, rate=1.0, created="2026-01-05T00:00:00+00:00"))
    setting, provider, workload = record.setting, record.provider, record.workload

    def add(rate: float, **changes):
        note(results, path, rate, **{"created": "2026-01-09T00:00:00+00:00", **changes})
        return measured_of(path, results).decode_tokens_per_second

    assert add(2.0, workload=replace(workload, depth=1024)) == 1.0, "an ordinary one goes before"
    assert add(3.0, provider=provider.model_copy(update={"name": "app:chat"})) == 1.0, "llama.cpp alone does"
    assert add(4.0, setting=replace(setting, device="rpc")) == 1.0, "a config never uses a server"
    assert add(5.0, provider=provider.model_copy(update={"name": "transformers"})) == 1.0
    assert add(6.0, outcome="skipped") == 1.0
    assert add(7.0, created="2026-01-04T00:00:00+00:00") == 1.0, "an older one does not count"
    assert add(8.0) == 8.0, "a newer one does"
    older = "2026-01-01T00:00:00+00:00"
    assert add(9.0, setting=replace(setting, device="metal"), created=older) == 9.0, "the best device does"


def test_broken_records_are_ignored(quantized, note, tmp_path):
    path, results = quantized("Q4_0"), tmp_path / "results"
    stored = note(results, path, rate=5.0)
    text = stored.read_text()
    folder = results / "20300101T000000Z-aaaa"
    folder.mkdir()
    (folder / "half.json").write_text(text[: len(text) // 2])
    (folder / "other.json").write_text(text.replace('"measured"', '"marvellous"'))
    (folder / "deep.json").write_text("[" * 100_000 + read_record(stored).model.identity)
    (folder / "folder.json").mkdir()
    (folder / "gone.json").symlink_to("nothing")
    assert measured_of(path, results).decode_tokens_per_second == 5.0
    assert measured_of(path, stored) is None, "a file is not a results folder"


def test_control_characters_of_a_record_are_removed(quantized, note, tmp_path):
    note(tmp_path / "results", quantized("Q4_0"), rate=5.0, scenario="cpu\x1b[2J\n")
    assert measured_of(quantized("Q4_0"), tmp_path / "results").scenario.isprintable()


def test_real_measurement_appears_in_the_row(hub, quantized, plan_cases, make_bench, tmp_path):
    """A real measurement of a file reaches the row of its copy through the stored record."""
    folder = tmp_path / "measured"
    folder.mkdir()
    shutil.copy(quantized("Q4_0"), folder / "x-Q4_0.gguf")
    prepared = plan_cases(folder)
    record = measure_case(prepared.cases[0], make_bench(prepared))
    assert record.outcome is Outcome.MEASURED
    write_record(tmp_path / "results", record)
    hub.add("a/b", {"b-Q4_0.gguf": quantized("Q4_0"), "b-Q8_0.gguf": quantized("Q8_0")})
    four, eight = get_gguf_models_from_cache(results=tmp_path / "results")
    assert eight.measured is None
    assert four.measured.outcome is Outcome.MEASURED
    assert four.measured.scenario == "cpu"
    assert four.measured.created == record.created
    for metric in ("decode_tokens_per_second", "prompt_tokens_per_second", "load_seconds", "peak_rss_bytes"):
        assert getattr(four.measured, metric) == record.summary[metric].median > 0


def test_a_file_name_that_is_not_text_is_refused_with_the_reason(quantized, tmp_path):
    path = tmp_path / os.fsdecode(b"bad\xff.gguf")
    try:
        shutil.copy(quantized("Q8_0"), path)
    except OSError:
        pytest.skip("this file system takes only text")
    (row,) = rows(discover([path]).models)
    with pytest.raises(GgufbenchError, match=r"bad\\xff.gguf is not valid UTF-8, .* rename the file"):
        row.config()
