"""The door for pytest: one parameter for each case, measured once, its numbers shared by the case's tests.

A test that takes the fixture `gguf_case` gets a case; pytest-benchmark gets the worker's own clock values.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from ggufbench.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufbench.planning.plan import Case
    from ggufbench.pytest_plugin.gate import Gate
    from ggufbench.pytest_plugin.session import PytestSession
    from ggufbench.records.schema import Record

_CHAT_MODELS = "chat_models"
_GIB = 2**30


class VirtualClock:
    """A timer for pytest-benchmark that tells the seconds a worker has measured, not those that pass here."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """The virtual time in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let the seconds of one round pass."""
        self._now += seconds


worker_clock = VirtualClock()
"""Give it to a test: `@pytest.mark.benchmark(timer=worker_clock)`."""


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


@dataclass(frozen=True, slots=True)
class GgufCase:
    """What a benchmark holds: one case, measured at most once in a session."""

    case: Case
    _run: PytestSession = field(repr=False)

    @property
    def record(self) -> Record:
        """The record, measured now if it was not yet; skips the test where the case cannot run."""
        return self._run.record(self.case)

    def replay(self, benchmark: Any, metric: str) -> None:
        """Give pytest-benchmark one round for each sample of the metric.

        Its table only knows seconds: rates become seconds per token (the column OPS then reads tokens per
        second), and one second stands for one GiB of memory.
        """
        if self._run.gate is not None:
            self._replay_gate(self._run.gate, benchmark, metric)
            return
        record = self.record
        benchmark.extra_info.update(_extra_info(record))
        rounds = [_as_seconds(value, metric) for value in self._run.samples(record, metric)]
        if not rounds and record.outcome == "measured":
            pytest.skip(f"{record.case_id}: {_why_absent(record, metric)}")
        _pedantic(benchmark, rounds, lambda: self._check(record, metric))

    def _replay_gate(self, gate: Gate, benchmark: Any, metric: str) -> None:
        """The same for a comparison: the candidate's best sample of each launch, and the gate's verdict."""
        comparison, cell = gate.cell(self.case.id, metric)
        benchmark.extra_info.update(
            case=self.case.id, run=comparison.run_id, verdict=str(cell.verdict), change=cell.change
        )
        rounds = [_as_seconds(value, metric) for value in cell.candidate_values]
        if not rounds:
            gate.check(comparison, cell)
            pytest.skip(f"{self.case.id}: {comparison.reason or 'no pair was counted'}")
        _pedantic(benchmark, rounds, lambda: gate.check(comparison, cell))

    def _check(self, record: Record, metric: str) -> None:
        from ggufbench.outcomes import Outcome

        if record.outcome not in (Outcome.MEASURED, Outcome.ENVIRONMENT):
            if record.is_baseline:
                # That the baseline hangs or crashes is a result about it, not a failure of what is measured.
                pytest.skip(f"baseline: {record.case_id}: {record.outcome}: {record.reason}")
            pytest.fail(f"{record.case_id}: {record.outcome}: {record.reason}", pytrace=False)
        missed = [t for t in record.targets if t.metric == metric and t.status == "missed"]
        if missed and self._run.config.getoption("enforce_targets"):
            pytest.fail(f"{record.case_id}: target missed: {missed[0].sentence}", pytrace=False)


_RUN: pytest.StashKey[PytestSession] = pytest.StashKey()


def _pedantic(benchmark: Any, rounds: list[float], check: Callable[[], None]) -> None:
    """Replay the rounds. A failure inside must not take the other benchmarks' numbers with it.

    pytest-benchmark registers its statistics first and forgives only `Exception`; pytest's own failures and
    Ctrl-C are not among them, and would break its report for the whole session.
    """
    left = list(rounds)

    def play() -> None:
        check()
        if left:
            worker_clock.advance(left.pop(0))

    try:
        benchmark.pedantic(play, rounds=max(1, len(rounds)))
    except BaseException:
        benchmark.has_error = True
        raise


def _why_absent(record: Record, metric: str) -> str:
    """Why a case that was measured has no sample of a metric."""
    is_cold = metric.startswith("cold_")
    loads = [launch.page_cache for launch in record.launches if launch.page_cache]
    if is_cold and not any(found.asked == "cold" for found in loads):
        return "its scenario asks for no cold launch"
    if is_cold and not any(found.state == "cold" for found in loads):
        return "no load was cold: the file stayed in the page cache"
    return f"no sample of {metric} is free of disturbance"


def _as_seconds(value: float, metric: str) -> float:
    from ggufbench.metrics import METRICS

    unit = METRICS[metric].unit
    if unit == "tokens/s":
        return 1 / value
    return value / _GIB if unit == "bytes" else value


def _extra_info(record: Record) -> dict[str, Any]:
    return {
        "case": record.case_id,
        "run": record.run_id,
        "outcome": str(record.outcome),
        "model": record.model.identity,
        "metrics": {name: {"median": s.median, "unit": s.unit} for name, s in record.summary.items()},
    }
