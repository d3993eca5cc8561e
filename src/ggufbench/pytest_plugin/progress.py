"""Progress of a pytest session: the current case, its phase, and the remaining time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from ggufbench.cli.progress import PLAIN_SECONDS, ProgressLine

if TYPE_CHECKING:
    import pytest

    from ggufbench.measuring.supervisor import LaunchSupervisor
    from ggufbench.planning.plan import Case


class SessionProgress:
    """Progress of a session: one line for all phases on a terminal, otherwise one line for each case."""

    def __init__(self, config: pytest.Config, cases: Sequence[Case]) -> None:
        self._config = config
        self._reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        self._line = ProgressLine(self._reporter._tw._file) if self._reporter is not None else None
        self._seconds = {case.id: case.estimate.seconds for case in cases if case.skip is None}
        self._order = list(self._seconds)
        self._case_id, self._case_started = "", time.monotonic()
        self._next_plain = time.monotonic() + PLAIN_SECONDS

    def __call__(self, launch: LaunchSupervisor | None) -> None:
        """Show the current launch; None removes the line."""
        if launch is None:
            self.say("")
            return
        begins = launch.case.id != self._case_id
        if begins:
            self._case_id, self._case_started = launch.case.id, time.monotonic()
        if self._is_terminal:
            self.say(self._sentence(launch))
        elif begins:
            self._write(self._sentence(launch))

    def say(self, sentence: str) -> None:
        """Show a sentence; an empty one removes the line. A log gets the current one every half minute."""
        if self._line is None:
            return
        if self._is_terminal:
            self._draw(self._line, sentence)
        elif sentence and time.monotonic() >= self._next_plain:
            self._next_plain = time.monotonic() + PLAIN_SECONDS
            self._write(sentence)

    def _draw(self, line: ProgressLine, sentence: str) -> None:
        with uncaptured(self._config):
            if not sentence:
                line.clear()
                return
            if not line.sentence:
                self._reporter.ensure_newline()
            line.show(sentence)

    def _write(self, sentence: str) -> None:
        if self._reporter is not None:
            with uncaptured(self._config):
                self._reporter.ensure_newline()
                self._reporter.write_line(sentence)

    @property
    def _is_terminal(self) -> bool:
        return self._reporter is not None and self._reporter.isatty and self._reporter._tw.hasmarkup

    def _sentence(self, launch: LaunchSupervisor) -> str:
        from ggufbench.text import duration

        workload = launch.case.scenario.workload
        number, launches = self._order.index(self._case_id) + 1, workload.launches + workload.cold_launches
        with_interference = f", {launch.disturbed} samples with interference" if launch.disturbed else ""
        return (
            f"[{number}/{len(self._order)}, about {duration(self._seconds_left(number))} left] "
            f"{self._case_id}: {launch.phase}, launch {launch.number} of {max(launches, launch.number)}"
            f"{with_interference}"
        )

    def _seconds_left(self, number: int) -> float:
        """The estimates of the later cases, and what remains of the current one's."""
        elapsed = time.monotonic() - self._case_started
        later = sum(self._seconds[id_] for id_ in self._order[number:])
        return later + max(0.0, self._seconds[self._case_id] - elapsed)


def uncaptured(config: pytest.Config) -> AbstractContextManager[None]:
    """Write to the terminal for a moment, although pytest captures a running test's output."""
    manager: Any = config.pluginmanager.get_plugin("capturemanager")
    return manager.global_and_fixture_disabled() if manager is not None else nullcontext()
