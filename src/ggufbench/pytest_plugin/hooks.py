"""Hooks for pytest: the options, one parameter for each case, the exit code and the tables at the end.

A test that takes the fixture `gguf_case` gets a case, which is measured once for all tests that share it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from ggufbench.exit_codes import ExitCode
from ggufbench.pytest_plugin.options import add_options

if TYPE_CHECKING:
    from ggufbench.pytest_plugin.case import GgufCase
    from ggufbench.pytest_plugin.session import PytestSession

_CHAT_MODELS = "chat_models"
_RUN: pytest.StashKey[PytestSession] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of a run; every pytest session of this environment has them, hence their prefix."""
    add_options(parser, "ggufbench", prefix="--gguf-")


def pytest_configure(config: pytest.Config) -> None:
    """Nothing is looked for until a benchmark is collected."""
    from ggufbench.pytest_plugin.session import PytestSession

    config.addinivalue_line("markers", f"{_CHAT_MODELS}: take only the cases that measure a chat model")
    config.stash[_RUN] = PytestSession(config)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One parameter for each planned case, with an id that stays the same when other files come and go."""
    if "gguf_case" in metafunc.fixturenames:
        chat_models = metafunc.definition.get_closest_marker(_CHAT_MODELS) is not None
        ids = metafunc.config.stash[_RUN].case_ids(chat_models=chat_models)
        metafunc.parametrize("gguf_case", ids, ids=ids, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """End the session where the plan could not be made; while collecting, pytest would show a traceback.

    A benchmark of chat models, where no case is one, is left out.
    """
    run = config.stash[_RUN]
    run.raise_usage_error()
    others = [item for item in items if item.get_closest_marker(_CHAT_MODELS) is None]
    if len(others) < len(items) and not run.case_ids(chat_models=True):
        items[:] = others


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was selected is known; the gate measures nothing else."""
    gate = session.config.stash[_RUN].gate
    if gate is not None:
        gate.select(session.items)


@pytest.fixture
def gguf_case(request: pytest.FixtureRequest) -> GgufCase:
    """A case; its launches run when a test first asks for a number."""
    from ggufbench.pytest_plugin.case import GgufCase

    run = request.config.stash[_RUN]
    return GgufCase(run.cases[request.param], run)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, Any, Any]:
    """A run of benchmarks that measured nothing is not a pass."""
    result = yield
    run = session.config.stash[_RUN]
    if run.gate is not None:
        session.exitstatus = run.gate.exit_code(int(session.exitstatus))
    elif run.measured_nothing() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = ExitCode.NOTHING_MEASURED
    return result


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """What will run, and how long it will take."""
    return config.stash[_RUN].announcement()


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table of everything that was measured, skipped or found unusable."""
    config.stash[_RUN].summarize(terminalreporter)
