"""Hooks for pytest: the options, one parameter for each case, the exit code and the summary.

A test that takes the fixture `gguf_case` gets a case, which is measured once for all tests that share it.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from ggufbench.exit_codes import ExitCode

if TYPE_CHECKING:
    from ggufbench.pytest_plugin.case import GgufCase
    from ggufbench.pytest_plugin.session import PytestSession

_CHAT_MODELS = "chat_models"
_RUN: pytest.StashKey[PytestSession] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of `pytest bench`."""
    group = parser.getgroup("ggufbench", "benchmarks of GGUF models")
    add = group.addoption
    add("--models", action="append", default=[], metavar="PATH",
        help="look for models in this file or folder instead of the known caches (repeatable; also "
        "GGUFBENCH_MODELS)")  # fmt: skip
    add("--match", action="append", default=[], metavar="PATTERN",
        help="only models whose name or repository matches (repeatable)")  # fmt: skip
    add("--quant", action="append", default=[], metavar="NAME",
        help="only models of this quantization, for example Q4_K_M (repeatable)")  # fmt: skip
    add("--scenario", action="append", default=[], metavar="NAME",
        help="only this scenario, a file's name in the scenarios folder (repeatable)")  # fmt: skip
    add("--scenarios", default=None, metavar="FOLDER", help="read scenarios from this folder")
    add("--launches", type=int, default=None, metavar="N", help="fresh processes for each case")
    add("--cold-launches", type=int, default=None, metavar="N",
        help="fresh processes that only load, after the file's pages were dropped from memory")  # fmt: skip
    add("--repetitions", type=int, default=None, metavar="N", help="timed samples in each launch")
    add("--time-budget", default=None, metavar="TIME",
        help="start no case that would end after this time, for example 10m")  # fmt: skip
    add("--demo-models", default=None, metavar="FOLDER",
        help="where no model is found, make small synthetic ones here and measure those")  # fmt: skip
    add("--results", default=os.environ.get("GGUFBENCH_RESULTS") or "results", metavar="FOLDER",
        help="write records here (default: GGUFBENCH_RESULTS, or results)")  # fmt: skip
    add("--report", nargs="?", const="", default=None, metavar="PATH",
        help="write the page of this run at its end, here or to --report=PATH (default: "
        "RESULTS/RUN/report.html)")  # fmt: skip
    add("--enforce-targets", action="store_true",
        help="fail a test whose measured value misses the documented target")  # fmt: skip
    add("--deadline-scale", type=float, default=1.0, metavar="X",
        help="multiply the deadlines after which a silent worker counts as hung")  # fmt: skip
    add("--gate-baseline", default=None, metavar="ARM",
        help="compare with this Python, requirement or commit, launch by launch, and fail what got "
        "worse")  # fmt: skip
    add("--gate-anchor", default=None, metavar="REQUIREMENT",
        help="a pinned release to measure beside, for the history")  # fmt: skip
    add("--gate-strict", action="store_true", help="fail what stays inconclusive, too (exit code 13)")
    add("--gate-seed", type=int, default=None, metavar="N", help="of the order in each pair")
    add("--gate-allow-other-answers", action="store_true",
        help="judge the speed of a candidate whose greedy tokens are others")  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Nothing is looked for until a benchmark is collected."""
    from ggufbench.pytest_plugin.session import PytestSession

    config.addinivalue_line("markers", f"{_CHAT_MODELS}: take only the cases that measure a chat model")
    config.stash[_RUN] = PytestSession(config)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One parameter for each planned case, with an id that does not depend on other files."""
    if "gguf_case" in metafunc.fixturenames:
        chat_models = metafunc.definition.get_closest_marker(_CHAT_MODELS) is not None
        ids = metafunc.config.stash[_RUN].case_ids(chat_models=chat_models)
        metafunc.parametrize("gguf_case", ids, ids=ids, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """End the session if planning failed; an error during collection would print a traceback.

    Benchmarks of chat models are deselected if no case is a chat model.
    """
    run = config.stash[_RUN]
    run.raise_usage_error()
    others = [item for item in items if item.get_closest_marker(_CHAT_MODELS) is None]
    if len(others) < len(items) and not run.case_ids(chat_models=True):
        items[:] = others


def pytest_collection_finish(session: pytest.Session) -> None:
    """Give the selected cases to the gate, which measures no others."""
    gate = session.config.stash[_RUN].gate
    if gate is not None:
        gate.select(session.items)


@pytest.fixture
def gguf_case(request: pytest.FixtureRequest) -> GgufCase:
    """A case, measured when a test first needs a number."""
    from ggufbench.pytest_plugin.case import GgufCase

    run = request.config.stash[_RUN]
    return GgufCase(run.cases[request.param], run)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, Any, Any]:
    """Set the exit code of the gate, or of a run that measured nothing."""
    result = yield
    run = session.config.stash[_RUN]
    if run.gate is not None:
        session.exitstatus = run.gate.exit_code(int(session.exitstatus))
    elif run.measured_nothing() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = ExitCode.NOTHING_MEASURED
    return result


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """The number of cases and the estimated time."""
    return config.stash[_RUN].announcement()


@pytest.hookimpl(tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the results and the notes; pytest-benchmark's tables follow."""
    config.stash[_RUN].summarize(terminalreporter)
