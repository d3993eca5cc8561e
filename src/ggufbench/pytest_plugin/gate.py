"""The gate in a pytest session: all selected cases are compared when the first test needs a result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest

from ggufbench.exit_codes import ExitCode
from ggufbench.pytest_plugin.errors import ending_session
from ggufbench.pytest_plugin.options import option

if TYPE_CHECKING:
    from ggufbench.comparing.ab import AbRequest, AbResult, Planned
    from ggufbench.comparing.side_by_side import SessionStep
    from ggufbench.measuring.preparation import Request
    from ggufbench.records.comparison import Cell, Comparison


class Gate:
    """The comparison with the baseline arm. Tests only read its result, in any order."""

    def __init__(self, config: pytest.Config, request: Request) -> None:
        self._config = config
        self._request = request
        self._planned: Planned | None = None
        self._answer: AbResult | None = None
        self._wanted: set[str] = set()
        self.say: Callable[[str], None] = lambda _sentence: None
        """Show a sentence on the line of progress."""
        self.tell: Callable[[str], None] = lambda _sentence: None
        """Print a sentence on a line that stays."""

    def plan(self, tell: Callable[[str], None]) -> None:
        """Prepare the arms and plan. Raises GgufbenchError."""
        from ggufbench.comparing.ab import plan

        self._planned = plan(replace(self._question(), tell=tell))

    def select(self, items: Iterable[pytest.Item]) -> None:
        """Select the cases of these tests; only selected cases are measured."""
        for item in items:
            callspec = getattr(item, "callspec", None)
            if callspec is not None and "gguf_case" in callspec.params:
                self._wanted.add(callspec.params["gguf_case"])

    def cell(self, case_id: str, metric: str) -> tuple[Comparison, Cell]:
        """The verdict on a metric. Skips the test if the metric or the case was not compared."""
        comparison = next((one for one in self._ask().comparisons if one.case_id == case_id), None)
        if comparison is None:
            reason = dict(self._ask().skipped).get(case_id, "it was not compared")
            pytest.skip(f"{case_id}: {reason}")
        for cell in comparison.cells:
            if cell.against == "baseline" and cell.metric == metric:
                return comparison, cell
        if comparison.lacking is not None or not comparison.cells:
            pytest.fail(f"{case_id}: {comparison.verdict}: {comparison.reason}", pytrace=False)
        pytest.skip(f"{case_id}: {metric} is not a gated metric of its scenario")

    def check(self, comparison: Comparison, cell: Cell) -> None:
        """Fail the test if its verdict fails the gate."""
        from ggufbench.records.comparison import Verdict
        from ggufbench.report.text.comparison import sentence

        failing = {Verdict.REGRESSION, Verdict.BROKEN, Verdict.MISSING}
        if self._strict:
            failing.add(Verdict.INCONCLUSIVE)
        if cell.verdict in failing:
            pytest.fail(f"{comparison.case_id}: {sentence(comparison, cell)}", pytrace=False)

    @property
    def answer(self) -> AbResult | None:
        """The result; None before the comparison."""
        return self._answer

    def exit_code(self, status: int) -> int:
        """The exit code of the gate, or that of pytest if the session ended in another way."""
        if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            return status
        if self._answer is None:
            return ExitCode.NOTHING_MEASURED if status == pytest.ExitCode.OK else status
        return self._answer.exit_code(strict=self._strict) or status

    def summarize(self, reporter: pytest.TerminalReporter) -> None:
        """Print the comparison, and write the summary for GitHub if requested."""
        if self._answer is None:
            return
        from ggufbench.report.text.comparison import comparison_report
        from ggufbench.report.text.github_summary import write_summary
        from ggufbench.report.text.terminal import render

        width, color = reporter._tw.fullwidth, bool(reporter._tw.hasmarkup)
        report = comparison_report(self._answer.comparisons, self._answer.skipped, width)
        reporter.section("ggufbench gate")
        reporter.write(render(report, width, color))
        for problem in self._answer.problems:
            reporter.write(f"measured, but not stored: {problem}\n")
        unwritten = write_summary(self._answer.comparisons, self._answer.skipped)
        if unwritten is not None:
            reporter.write(f"{unwritten}\n")

    @property
    def _strict(self) -> bool:
        return bool(option(self._config, "gate-strict"))

    def _ask(self) -> AbResult:
        if self._answer is None:
            from ggufbench.comparing.ab import measure

            assert self._planned is not None  # noqa: S101 (planned while collecting)
            entries = [entry for entry in self._planned.entries if entry.id in self._wanted]
            with ending_session():
                self._answer = measure(self._question(), replace(self._planned, entries=entries))
            self.say("")
            if self._answer.interrupted:
                raise KeyboardInterrupt
        return self._answer

    def _question(self) -> AbRequest:
        from ggufbench.comparing.ab import AbRequest

        given = partial(option, self._config)
        return AbRequest(
            self._request,
            given("gate-baseline"),
            anchor=given("gate-anchor"),
            repository=self._config.rootpath,
            seed=given("gate-seed"),
            allow_other_answers=given("gate-allow-other-answers"),
            on_step=self._show,
            tell=self.say,
            on_wait=self.tell,
        )

    def _show(self, step: SessionStep) -> None:
        from ggufbench.report.text.comparison import step_sentence

        self.say(step_sentence(step))
