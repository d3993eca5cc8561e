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

_MEASURES = "measures"
_MEASURED = ("load", "prompt", "encode", "decode", "chat", "quality")
_NOTHING = pytest.param(None, id="no-case", marks=pytest.mark.skip(reason="there is no case to measure"))
_RUN: pytest.StashKey[PytestSession] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of a run; every pytest session of this environment has them, hence their prefix."""
    add_options(parser, "ggufbench", prefix="--gguf-")


def pytest_configure(config: pytest.Config) -> None:
    """Nothing is looked for until a benchmark is collected."""
    from ggufbench.pytest_plugin.session import PytestSession

    config.addinivalue_line(
        "markers", f"{_MEASURES}(what): take only the cases that measure prompt, encode, decode or chat"
    )
    config.stash[_RUN] = PytestSession(config)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One parameter for each planned case, with an id that does not depend on other files."""
    if "gguf_case" in metafunc.fixturenames:
        ids = metafunc.config.stash[_RUN].case_ids(_measured(metafunc.definition))
        # An empty list would be an error with `empty_parameter_set_mark = fail_at_collect`.
        cases = [pytest.param(id_, id=id_) for id_ in ids] or [_NOTHING]
        metafunc.parametrize("gguf_case", cases, indirect=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """End the session if planning failed; an error during collection would print a traceback.

    Benchmarks of something that no case measures are deselected.
    """
    run = config.stash[_RUN]
    run.raise_usage_error()
    for item in items:
        _check_mark(item)
    items[:] = [item for item in items if _is_kept(_measured(item), run)]


def _is_kept(what: str, run: PytestSession) -> bool:
    """True for a benchmark of something that a case measures; without any case, loading says so."""
    return not what or bool(run.case_ids(what)) or (what == "load" and not run.case_ids())


def _measured(item: pytest.Item) -> str:
    """Argument of the item's mark; empty without it."""
    mark = item.get_closest_marker(_MEASURES)
    return str(mark.args[0]) if mark is not None and mark.args else ""


def _check_mark(item: pytest.Item) -> None:
    """Raise UsageError for a mark that names nothing that a case measures."""
    if item.get_closest_marker(_MEASURES) is not None and _measured(item) not in _MEASURED:
        known = ", ".join(_MEASURED)
        raise pytest.UsageError(
            f"{item.nodeid}: {_MEASURES}({_measured(item)!r}) names nothing that is measured; "
            f"write one of {known}"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, Any, Any]:
    """Keep at SIGTERM and SIGHUP what Ctrl-C keeps, in a session that measures."""
    if not session.config.stash[_RUN].is_planned:
        return (yield)
    from ggufbench.processes import termination_as_interrupt

    with termination_as_interrupt():
        return (yield)


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
