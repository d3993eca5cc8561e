"""`ggufbench pick` without a terminal: output for programs, and errors."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ggufbench.chat import LlamaCppModelConfig, get_gguf_models_from_cache
from ggufbench.machine.facts import memory_limit_bytes
from ggufbench.outcomes import Outcome
from ggufbench.records.store import read_folder, run_folders, write_record

pytestmark = pytest.mark.real

PICK = (sys.executable, "-m", "ggufbench.cli", "pick")


@pytest.fixture
def run(tmp_path, hub_cache):
    """A function that runs the command without a terminal; only the test's cache has models."""

    def run(*arguments, command=PICK, **env):
        done = subprocess.run(
            [*command, *map(str, arguments)],
            cwd=tmp_path,
            env={
                **os.environ, "HOME": str(tmp_path), "HF_HUB_CACHE": str(hub_cache), "TERM": "xterm-256color",
                "COLUMNS": "200", **env,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,  # the tests may be run from a terminal
            timeout=120,
            check=False,
        )  # fmt: skip
        done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
        assert "Traceback" not in done.stderr, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        return done

    return run


@pytest.fixture
def refused(run):
    """A function that returns the error sentence of an invalid request."""

    def refused(*arguments, **how) -> str:
        done = run(*arguments, **how)
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("ggufbench: ")
        return done.stderr

    return refused


@pytest.fixture
def listed(run):
    """A function that returns the models printed by --json."""

    def listed(*arguments, **env):
        done = run("--json", *arguments, **env)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)["models"]

    return listed


def test_json_equals_the_rows_of_applications(listed, hub_cache, tmp_path):
    found = listed()
    rows = get_gguf_models_from_cache(cache_dir=hub_cache, results=tmp_path)
    same = [
        {**dataclasses.asdict(row), "path": str(row.path), "synthetic": True, "larger_than_memory": False}
        for row in rows
    ]
    assert sorted(found, key=lambda row: row["label"]) == sorted(same, key=lambda row: row["label"])
    assert [row["label"] for row in found] == ["llama-tiny-Q4_0", "llama-tiny-Q8_0", "Qwen3-tiny-Q8_0"]
    assert all(row["cost"] == "free" and row["measured"] is None for row in found)
    assert found[2]["path"].endswith(
        "/snapshots/5f0b02c75b57c5855da9ae460ce51323ea669d8a/Qwen3-tiny-Q8_0.gguf"
    )


def test_json_is_matched_and_sorted(listed):
    assert [row["label"] for row in listed("--match", "Q8 SOMEONE")] == ["llama-tiny-Q8_0"]
    sizes = [row["file_size_bytes"] for row in listed("--sort", "size")]
    assert len(sizes) == 3 and sizes == sorted(sizes)
    assert [row["quantization"] for row in listed("--sort", "quantization")] == ["Q4_0", "Q8_0", "Q8_0"]
    assert listed("--match", "nosuch") == []


def test_places_option(listed, model_folder):
    named = listed("--models", model_folder)
    assert [row["name"] for row in named] == ["gpt-oss-tiny", "llama-tiny", "qwen3-tiny"]
    assert listed(GGUFBENCH_MODELS=str(model_folder)) == named


def test_measurements_of_this_machine_are_shown(listed, run_pytest, hub_cache, tmp_path):
    llama = next(hub_cache.glob("*/snapshots/*/llama-tiny-Q4_0.gguf"))
    done = run_pytest("--models", str(llama), "--scenario", "cpu")
    assert done.returncode == 0, done.stdout
    rows = listed("--results", run_pytest.results, "--sort", "speed")
    assert [row["label"] for row in rows] == ["llama-tiny-Q4_0", "llama-tiny-Q8_0", "Qwen3-tiny-Q8_0"]
    measured = rows[0]["measured"]
    assert (measured["scenario"], measured["outcome"]) == ("cpu", "measured")
    assert measured["decode_tokens_per_second"] > 0 and measured["load_seconds"] > 0
    assert measured["peak_rss_bytes"] > rows[0]["file_size_bytes"]
    assert (
        listed(
            GGUFBENCH_RESULTS=str(run_pytest.results),
        )[0]["measured"]
        == measured
    )

    # A variant of that record, a day later: it crashed.
    (record,) = read_folder(run_folders(run_pytest.results)[-1])
    later = {
        "outcome": Outcome.CRASHED,
        "run_id": "20990101T000000Z-0001",
        "created": "2099-01-01T00:00:00+00:00",
    }
    write_record(run_pytest.results, record.model_copy(update={**later, "summary": {}}))
    rows = listed("--results", run_pytest.results, "--sort", "speed")
    crashed = next(row for row in rows if row["label"] == "llama-tiny-Q4_0")
    assert crashed["measured"]["outcome"] == "crashed"


def test_a_model_larger_than_this_machines_memory_is_marked(listed, llama_folder):
    (model,) = llama_folder.iterdir()
    os.truncate(model, memory_limit_bytes() + 1)  # a sparse file, which takes no disk space
    (row,) = listed("--models", model)
    assert row["larger_than_memory"] and row["file_size_bytes"] > memory_limit_bytes()


def test_missing_terminal_message(refused):
    assert "there is no terminal; use --json" in refused()


@pytest.mark.parametrize("kind", ["dumb", "", "unknown"])
def test_dumb_terminal_message(refused, kind):
    assert f"the picker cannot draw on a terminal of the type TERM={kind!r}" in refused(TERM=kind)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--json", "--output", "path"), "use only one of them"),
        (("--json", "--results", "nowhere"), "--results 'nowhere' is not a folder"),
        (("--json", "--models", "nowhere"), "the file or folder nowhere does not exist"),
    ],
)
def test_invalid_request_messages(refused, arguments, words):
    assert words in refused(*arguments)


@pytest.mark.parametrize("arguments", [("--sort", "colour"), ("--output", "yaml"), ("extra",)])
def test_a_wrong_command_line_exits_2(run, arguments):
    assert run(*arguments).returncode == 2


def test_missing_textual_message_and_json(refused, run):
    code = "import sys; sys.modules['textual'] = None; import ggufbench.cli.app; ggufbench.cli.app.main()"
    command = (sys.executable, "-c", code, "pick")
    assert 'pip install "ggufbench[tui]"' in refused(command=command)
    assert len(json.loads(run("--json", command=command).stdout)["models"]) == 3


def test_help_lists_keys_and_exit_codes(run):
    shown = run("--help").stdout
    for words in ("MODEL=$(ggufbench pick)", "Ctrl-S", "130 without one", "--output", "--json"):
        assert words in shown


def test_command_line_does_not_import_textual():
    code = "import sys, ggufbench.cli.pick; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"textual", "rich", "pydantic", "psutil", "asyncio"} & set(done.stdout.split())


def test_a_config_loads_the_file_that_was_picked(hub_cache, tmp_path):
    (row,) = [one for one in get_gguf_models_from_cache(cache_dir=hub_cache) if one.name == "Qwen3-tiny"]
    config = json.loads(row.config().model_dump_json())
    assert LlamaCppModelConfig(**config) == row.config() and Path(config["model_path"]).is_file()
