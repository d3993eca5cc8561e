"""Older releases of llama-cpp-python: renamed settings are translated, unsupported ones are refused.

Compiling each release takes minutes; here the installed one is given the interface of an older release.
"""

import dataclasses
from pathlib import Path

import pytest

from ggufbench.checks.native_log import parse_load_log
from ggufbench.launching.launcher import Interpreter, launch
from ggufbench.measuring.case import measure_case
from ggufbench.outcomes import Outcome
from ggufbench.worker.protocol import Loaded

OLDER = Interpreter(entry=Path(__file__).parents[1] / "workers" / "older_release.py")


@pytest.fixture
def load(llama_folder, plan_cases, monkeypatch):
    """A function that loads a model in a release with that interface, and returns how the launch ended."""
    case = plan_cases(llama_folder, launches=1).cases[0]

    def once(shape, **setting):
        monkeypatch.setenv("LLAMA_TEST_SHAPE", shape)
        chosen = dataclasses.replace(case, setting=dataclasses.replace(case.setting, **setting))
        job = chosen.job(1, load_only=True)
        return launch(job, lambda _phase: 60, interpreter=OLDER)

    return once


def facts(ended):
    """Facts from the library's own log."""
    assert ended.outcome is Outcome.MEASURED, ended.reason
    return parse_load_log(ended.find(Loaded).log)


def test_an_older_release_does_the_same_work(llama_folder, plan_cases, make_bench, monkeypatch):
    monkeypatch.setenv("LLAMA_TEST_SHAPE", "flags")
    prepared = plan_cases(llama_folder, launches=1)
    newer = measure_case(prepared.cases[0], make_bench(prepared))
    older = measure_case(prepared.cases[0], make_bench(prepared, interpreter=OLDER))
    assert older.outcome is Outcome.MEASURED, older.reason
    assert set(older.summary) == set(newer.summary)
    assert older.launches[0].digest == newer.launches[0].digest
    assert older.launches[0].effective == newer.launches[0].effective
    assert [mark.after for mark in older.launches[0].marks] == [m.after for m in newer.launches[0].marks]
    assert older.provider.versions["llama.cpp"] == "unknown", "an unreported value is not invented"
    assert older.provider.versions["llama-cpp-python"] == newer.provider.versions["llama-cpp-python"]


@pytest.mark.parametrize(
    ("asked", "done"),
    [
        ("auto", "mmap"),
        ("none", "none"),
        ("mmap", "mmap"),
        ("mlock", "mlock"),
        ("mmap+mlock", "mmap+mlock"),
        ("dio", "dio"),
    ],
)
def test_load_mode_is_translated_for_older_releases(load, asked, done):
    assert facts(load("flags", load_mode=asked)).load_mode == done


@pytest.mark.parametrize("asked", ["on", "off"])
def test_flash_attention_is_translated_to_a_boolean(load, asked):
    assert facts(load("bool-flash", flash_attn=asked)).flash_attn == asked


def test_default_buffer_types_need_no_field(load):
    assert "CPU" in facts(load("no-repack")).layers


@pytest.mark.parametrize(
    ("shape", "setting", "sentence"),
    [
        (
            "no-dio",
            {"load_mode": "dio"},
            'does not support load_mode = "dio": it has no use_direct_io; change it',
        ),
        (
            "bool-flash",
            {"flash_attn": "auto"},
            'does not support flash_attn = "auto": it has only "on" and "off"',
        ),
        (
            "no-repack",
            {"repack": False},
            "does not support repack = false: it has no use_extra_bufts; change it",
        ),
        ("too-old", {}, "has no llama_get_memory, which ggufbench needs; install a newer release"),
    ],
)
def test_unsupported_settings_of_a_release_are_refused(load, shape, setting, sentence):
    ended = load(shape, **setting)
    assert ended.outcome is Outcome.FAILED
    assert ended.reason.startswith("llama-cpp-python ") and sentence in ended.reason
    assert ended.find(Loaded) is None
