"""Hooks for pytest: the options, one parameter for each case, the exit code and the summary.

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
_NOTHING = pytest.param(None, id="no-case", marks=pytest.mark.skip(reason="there is no case to measure"))
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
    """One parameter for each planned case, with an id that does not depend on other files."""
    if "gguf_case" in metafunc.fixturenames:
        chat_models = metafunc.definition.get_closest_marker(_CHAT_MODELS) is not None
        ids = metafunc.config.stash[_RUN].case_ids(chat_models=chat_models)
        # An empty list would be an error with `empty_parameter_set_mark = fail_at_collect`.
        cases = [pytest.param(id_, id=id_) for id_ in ids] or [_NOTHING]
        metafunc.parametrize("gguf_case", cases, indirect=True)


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
