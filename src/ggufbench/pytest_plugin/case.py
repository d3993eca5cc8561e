"""The value of the fixture `gguf_case`, and the replay of its samples to pytest-benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from ggufbench.pytest_plugin.clock import worker_clock
from ggufbench.pytest_plugin.options import option

if TYPE_CHECKING:
    from ggufbench.planning.plan import Case
    from ggufbench.pytest_plugin.gate import Gate
    from ggufbench.pytest_plugin.session import PytestSession
    from ggufbench.records.schema import Record

_GIB = 2**30

Replay = tuple[list[float], Callable[[], None]]
"""Duration of each round in seconds, and a check that fails the test."""


@dataclass(frozen=True, slots=True)
class GgufCase:
    """One case, measured at most once in a session."""

    case: Case
    _run: PytestSession = field(repr=False)

    @property
    def record(self) -> Record:
        """The record, measured on the first access. Skips the test if the case cannot run."""
        return self._run.record(self.case)

    def replay(self, benchmark: Any, metric: str) -> None:
        """Give pytest-benchmark one round for each sample of the metric.

        pytest-benchmark only handles seconds: rates become seconds per token (so that the column OPS shows
        tokens per second), and one second means one GiB of memory.
        """
        gate = self._run.gate
        try:
            if gate is None:
                rounds, check = self._measured(benchmark, metric)
            else:
                rounds, check = self._compared(gate, benchmark, metric)
        except BaseException as reason:
            # A test that ended before it used the fixture would get a warning from pytest-benchmark.
            rounds, check = [], partial(_raise, reason)
        _pedantic(benchmark, rounds, check)

    def _measured(self, benchmark: Any, metric: str) -> Replay:
        """The samples of the metric, and the check of the record."""
        record = self.record
        benchmark.extra_info.update(_extra_info(record))
        rounds = [_as_seconds(value, metric) for value in self._run.samples(record, metric)]
        if not rounds and record.outcome == "measured":
            pytest.skip(f"{record.case_id}: {_why_absent(record, metric)}")
        return rounds, lambda: self._check(record, metric)

    def _compared(self, gate: Gate, benchmark: Any, metric: str) -> Replay:
        """The best sample of each launch of the candidate, and the verdict of the gate."""
        comparison, cell = gate.cell(self.case.id, metric)
        benchmark.extra_info.update(
            case=self.case.id, run=comparison.run_id, verdict=str(cell.verdict), change=cell.change
        )
        rounds = [_as_seconds(value, metric) for value in cell.candidate_values]
        if not rounds:
            gate.check(comparison, cell)
            pytest.skip(f"{self.case.id}: {comparison.reason or 'no valid pair was measured'}")
        return rounds, lambda: gate.check(comparison, cell)

    def _check(self, record: Record, metric: str) -> None:
        from ggufbench.outcomes import Outcome

        if record.outcome not in (Outcome.MEASURED, Outcome.ENVIRONMENT):
            if record.is_baseline:
                # A crash of the baseline is a result, not a failure of the measured model.
                pytest.skip(f"baseline: {record.case_id}: {record.outcome}: {record.reason}")
            pytest.fail(f"{record.case_id}: {record.outcome}: {record.reason}", pytrace=False)
        missed = [t for t in record.targets if t.metric == metric and t.status == "missed"]
        if missed and option(self._run.config, "enforce-targets"):
            pytest.fail(f"{record.case_id}: target missed: {missed[0].sentence}", pytrace=False)


def _raise(reason: BaseException) -> None:
    raise reason


def _pedantic(benchmark: Any, rounds: list[float], check: Callable[[], None]) -> None:
    """Replay the rounds. A failure must not lose the numbers of other benchmarks.

    pytest-benchmark registers its statistics first and handles only `Exception`. The failures of pytest and
    Ctrl-C are not subclasses of it, and would break the report of the whole session.
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
    """The reason why a measured case has no sample of a metric."""
    if record.reference is not None:
        return "its scenario compares answers and times nothing"
    is_cold = metric.startswith("cold_")
    loads = [launch.page_cache for launch in record.launches if launch.page_cache]
    if is_cold and not any(found.asked == "cold" for found in loads):
        return "its scenario has no cold launches"
    if is_cold and not any(found.state == "cold" for found in loads):
        return "no load was cold: the file stayed in the page cache"
    return f"every sample of {metric} had interference"


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
