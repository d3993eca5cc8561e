"""The run of a pytest session: planned on first use, measured case by case, printed at the end."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ggufbench.errors import GgufbenchError
from ggufbench.paths import unusable_path
from ggufbench.pytest_plugin.benchmark_tables import make_compact
from ggufbench.pytest_plugin.errors import ending_session
from ggufbench.pytest_plugin.options import option
from ggufbench.pytest_plugin.progress import SessionProgress, uncaptured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ggufbench.analysis.answer_changes import ChangedWork
    from ggufbench.calibration.limits import MachineLimits
    from ggufbench.discovery.model import Rejected
    from ggufbench.measuring.case import Bench
    from ggufbench.measuring.preparation import Prepared, Request
    from ggufbench.planning.plan import Case
    from ggufbench.pytest_plugin.gate import Gate
    from ggufbench.records.schema import Record


class PytestSession:
    """The run of a session: prepared on first use; each record is stored at once."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self._prepared: Prepared | None = None
        self._bench: Bench | None = None
        self._cases: dict[str, Case] = {}
        self._records: dict[str, Record] = {}
        self._unstored: dict[str, str] = {}
        """Cases whose record could not be written, with the reason."""
        self._started = time.monotonic()
        self._usage_error: str | None = None
        self._known_limits: MachineLimits | None = None
        self._gate: Gate | None = None

    @property
    def is_planned(self) -> bool:
        """True if cases were planned: the session has benchmarks of models."""
        return bool(self._cases)

    @property
    def gate(self) -> Gate | None:
        """The comparison with a baseline arm; None if there is no such option."""
        return self._gate

    def case_ids(self, what: str = "") -> list[str]:
        """The ids of the planned cases, or of those that measure this; empty if planning failed."""
        try:
            return [id_ for id_, case in self.cases.items() if not what or case.scenario.measures(what)]
        except pytest.UsageError:
            return []

    def raise_usage_error(self) -> None:
        """Raise the error of the plan, if it failed."""
        if self._usage_error is not None:
            raise pytest.UsageError(self._usage_error)

    @property
    def cases(self) -> dict[str, Case]:
        """The planned cases by id. Raises UsageError for a wrong option."""
        try:
            return self._cases or self._plan_cases()
        except GgufbenchError as error:
            self._usage_error = f"ggufbench: {error}"
        except OSError as error:
            if error.filename is None:
                raise
            self._usage_error = f"ggufbench: {unusable_path(error)}"
        raise pytest.UsageError(self._usage_error)

    def _plan_cases(self) -> dict[str, Case]:
        if not self._is_trial and not self.config.getoption("collectonly"):
            from ggufbench.records.store import check_writable

            check_writable(self._results)
        self._cases = {case.id: case for case in self._plan().cases}
        if option(self.config, "gate-baseline") is not None:
            self._plan_gate()
        return self._cases

    def _plan_gate(self) -> None:
        from ggufbench.pytest_plugin.gate import Gate

        self._gate = Gate(self.config, self._request())
        self._gate.plan(self._tell)
        self._gate.say, self._gate.tell = SessionProgress(self.config, []).say, self._tell

    def _plan(self) -> Prepared:
        if hasattr(self.config, "workerinput"):
            raise GgufbenchError("cases cannot be measured in parallel; omit -n")
        if self._prepared is None:
            from ggufbench.launching.launcher import Interpreter
            from ggufbench.measuring.preparation import prepare_run

            self._prepared = prepare_run(self._request(), Interpreter(), tell=self._tell)
        return self._prepared

    def record(self, case: Case) -> Record:
        """The record of a case, measured or skipped on the first call."""
        from ggufbench.outcomes import Outcome

        if case.id not in self._records:
            self._records[case.id] = self._measure(case)
        record = self._records[case.id]
        if record.outcome in (Outcome.SKIPPED, Outcome.NO_ANSWER):
            pytest.skip(f"{case.scenario.name}: {record.reason}")
        if record.outcome is Outcome.ENVIRONMENT and not self._is_trial:
            pytest.skip(f"interference: {record.reason}")
        return record

    def samples(self, record: Record, metric: str) -> list[float]:
        """The samples of a metric without interference, launch by launch."""
        from ggufbench.records.samples import metric_samples

        size = record.loaded_bytes
        return [value for launch in record.launches for value in metric_samples(launch, size).get(metric, [])]

    def measured_nothing(self) -> bool:
        """True if benchmarks were requested and no case was measured."""
        from ggufbench.outcomes import Outcome

        if (
            self._prepared is None
            or self.config.getoption("collectonly")
            or self.config.getoption("benchmark_skip")
        ):
            return False
        return not any(record.outcome is Outcome.MEASURED for record in self._records.values())

    def announcement(self) -> list[str]:
        """One line about the plan, and one with the fix if no model was found."""
        if self._prepared is None:
            return []
        from ggufbench.text import duration

        cases = self._cases.values()
        run = [case for case in cases if case.skip is None]
        found = self._prepared.discovery
        versions = self._prepared.environments[""].versions
        library = f"llama-cpp-python {versions['llama-cpp-python']}, " if versions else ""
        total = duration(sum(case.estimate.seconds for case in run))
        models = len({case.model.identity for case in cases})
        lines = [
            f"ggufbench: {library}{models} models, {len(run)} of {len(cases)} cases can run, about {total}"
        ]
        if not found.models:
            lines.append(
                "ggufbench: no GGUF model was found; name a folder with --gguf-models, or make a model with "
                "`ggufbench synth`"
            )
        return lines

    def summarize(self, reporter: pytest.TerminalReporter) -> None:
        """Print the results, the notes and where the rest is, and make the tables that follow compact."""
        if self._prepared is None or self.config.getoption("collectonly"):
            return
        if self._gate is not None:
            self._gate.summarize(reporter)
        else:
            self._print_results(reporter, self._prepared.discovery.rejected)
        self._write_report(reporter)
        if make_compact(self.config, reporter._tw.fullwidth):
            reporter.section("pytest-benchmark", sep="-")
            reporter.write("The same samples as medians; all columns: --benchmark-verbose\n")

    def _print_results(self, reporter: pytest.TerminalReporter, rejected: Sequence[Rejected]) -> None:
        from ggufbench.report.text.record_details import run_summary
        from ggufbench.report.text.terminal import render

        width, color = reporter._tw.fullwidth, bool(reporter._tw.hasmarkup)
        summary = run_summary(list(self._records.values()), rejected, self._changed_work(), width)
        text = render(summary, width, color).rstrip("\n")
        if text:
            reporter.section("ggufbench")
            reporter.write(text + "\n")
        if self._records and not self._is_trial:
            reporter.write(self._where_stored())

    def _where_stored(self) -> str:
        """The last lines: where the records are, if any could be stored, and how many could not."""
        from ggufbench.text import count

        run, lost, lines = self._run_bench().run_id, len(self._unstored), list[str]()
        if lost:
            reason = next(iter(self._unstored.values()))
            lines.append(f"Not stored: {count(lost, 'record')} of {len(self._records)}: {reason}")
        if lost < len(self._records):
            lines += [f"Records: {self._results / run}", f"Details: ggufbench show {run}"]
        return "".join(f"{line}\n" for line in lines)

    def _write_report(self, reporter: pytest.TerminalReporter) -> None:
        run = self._stored_run()
        if option(self.config, "report") is not None and run is not None:
            from ggufbench.pytest_plugin import report

            report.write(reporter, self._results, run)

    def _stored_run(self) -> str | None:
        """The name of the run; None if nothing was measured or attempted."""
        from ggufbench.outcomes import Outcome

        if self._is_trial:
            return None
        if self._gate is not None:
            answer = self._gate.answer
            return answer.run_id if answer is not None and answer.comparisons else None
        tried = any(
            record.outcome is not Outcome.SKIPPED and case_id not in self._unstored
            for case_id, record in self._records.items()
        )
        return self._run_bench().run_id if tried else None

    def _changed_work(self) -> list[ChangedWork]:
        """Cases whose answer differs from that of their last record."""
        from ggufbench.analysis.answer_changes import changed_work

        earlier = self._plan().earlier
        found = [
            changed_work(record, earlier.get((record.model.identity, record.scenario)))
            for record in self._records.values()
        ]
        return [change for change in found if change is not None]

    def _tell(self, sentence: str) -> None:
        reporter: Any = self.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            with uncaptured(self.config):
                reporter.ensure_newline()
                reporter.write_line(f"ggufbench: {sentence}")

    def _folder(self, name: str) -> Path | None:
        given = option(self.config, name)
        return self.config.invocation_params.dir / str(given) if given else None

    @property
    def _is_trial(self) -> bool:
        """True with `--benchmark-disable`: everything runs once, and nothing is stored."""
        return bool(self.config.getoption("benchmark_disable"))

    @property
    def _results(self) -> Path:
        given = option(self.config, "results") or os.environ.get("GGUFBENCH_RESULTS") or "results"
        return self.config.invocation_params.dir / str(given)

    def _request(self) -> Request:
        from ggufbench.cli.options import request_from
        from ggufbench.pytest_plugin.report import check_option

        given = partial(option, self.config)
        check_option(given("report"))
        folder, text = given("scenarios"), given("text")
        request = request_from(
            given("models"),
            given("match"),
            quant=given("quant"),
            scenario=given("scenario"),
            scenarios=Path(folder) if folder else None,
            repetitions=1 if self._is_trial else _positive(given("repetitions"), "--repetitions"),
            results=self._results,
            time_budget=given("time-budget"),
        )
        return replace(
            request,
            launches=1 if self._is_trial else _positive(given("launches"), "--launches"),
            cold_launches=0 if self._is_trial else _not_negative(given("cold-launches"), "--cold-launches"),
            demo_folder=self._folder("demo-models"),
            text=Path(text) if text else None,
            deadline_scale=_more_than_zero(given("deadline-scale"), "--deadline-scale"),
        )

    def _run_bench(self) -> Bench:
        if self._bench is None:
            from ggufbench.machine.facts import source_state
            from ggufbench.measuring.case import Bench
            from ggufbench.records.store import new_run_id

            self._bench = Bench(
                run_id=new_run_id(),
                machine=self._plan().machine,
                source=source_state(self.config.rootpath),
                deadline_scale=self._request().deadline_scale,
                observer=SessionProgress(self.config, list(self._cases.values())),
            )
        return self._bench

    def _limits(self) -> MachineLimits | None:
        """The stored limits of this machine, or new measurements. Needs the lock of the machine."""
        from ggufbench.calibration.limits import load_limits, measure_limits
        from ggufbench.launching.launcher import Interpreter

        prepared = self._plan()
        needed = any(case.skip is None and case.setting.device == "cpu" for case in prepared.cases)
        if self._known_limits is None and needed and not self._is_trial:
            environment = prepared.environments[""]
            self._known_limits = load_limits(prepared.machine, environment)
            if self._known_limits is None:
                self._tell("measuring the limits of this machine once, about 20 s")
                self._known_limits = measure_limits(prepared.machine, environment, Interpreter())
        return self._known_limits

    def _measure(self, case: Case) -> Record:
        from ggufbench.measuring.case import Interrupted, measure_case, skipped_record
        from ggufbench.measuring.machine_lock import MachineBusyError, one_at_a_time

        reason = case.skip or self._over_budget(case)
        if reason:
            return self._store(skipped_record(case, self._run_bench(), reason))
        try:
            with ending_session(MachineBusyError), one_at_a_time(self._tell, self._time_left(case)):
                bench = replace(self._run_bench(), limits=self._limits())
                return self._store(measure_case(case, bench))
        except MachineBusyError as busy:
            return self._store(skipped_record(case, self._run_bench(), str(busy)))
        except Interrupted as interrupt:
            with contextlib.suppress(pytest.fail.Exception):  # the summary has the reason
                self._store(interrupt.record)
            raise
        finally:
            self._run_bench().observer(None)  # removes the line of progress

    def _time_left(self, case: Case) -> float | None:
        """Seconds until the case must start to end within the time budget; None without a budget."""
        budget = self._request().time_budget_seconds
        if budget is None:
            return None
        return budget - (time.monotonic() - self._started) - case.estimate.seconds

    def _over_budget(self, case: Case) -> str | None:
        left = self._time_left(case)
        if left is None or left >= 0:
            return None
        from ggufbench.text import duration

        seconds = case.estimate.seconds
        needed, remaining = duration(seconds), duration(max(0.0, left + seconds))
        return f"needs about {needed}, but only {remaining} of the time budget is left"

    def _store(self, record: Record) -> Record:
        from ggufbench.records.store import StoreError, write_record

        self._records[record.case_id] = record
        if not self._is_trial:
            try:
                write_record(self._results, record)
            except StoreError as error:
                self._unstored[record.case_id] = str(error)
                pytest.fail(f"measured, but not stored: {error}", pytrace=False)
        return record


def _positive(value: int | None, option: str) -> int | None:
    if value is not None and value < 1:
        raise GgufbenchError(f"{option} {value} is not possible; use 1 or more")
    return value


def _not_negative(value: int | None, option: str) -> int | None:
    if value is not None and value < 0:
        raise GgufbenchError(f"{option} {value} is negative; use 0 or more")
    return value


def _more_than_zero(value: float, option: str) -> float:
    if not value > 0:
        raise GgufbenchError(f"{option} {value:g} is not possible; use more than 0")
    return value
