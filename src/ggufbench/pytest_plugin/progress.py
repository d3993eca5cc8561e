"""Progress of a pytest session: which case runs, in which phase, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from ggufbench.cli.progress import ProgressLine

if TYPE_CHECKING:
    import pytest

    from ggufbench.measuring.supervisor import LaunchSupervisor
    from ggufbench.planning.plan import Case


class SessionProgress:
    """The progress of a session: on a terminal one line for all phases, elsewhere a line for each case."""

    def __init__(self, config: pytest.Config, cases: Sequence[Case]) -> None:
        self._config = config
        self._reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        self._line = ProgressLine(self._reporter._tw._file) if self._reporter is not None else None
        self._order = [case.id for case in cases if case.skip is None]
        self._total = sum(case.estimate.seconds for case in cases if case.skip is None)
        self._started = time.monotonic()
        self._printed = ""

    def __call__(self, launch: LaunchSupervisor | None) -> None:
        """Show where the run is; None removes the line."""
        if launch is None:
            self.say("")
        elif self._is_terminal:
            self.say(self._sentence(launch))
        elif self._reporter is not None and self._printed != launch.case.id:
            self._printed = launch.case.id
            with uncaptured(self._config):
                self._reporter.ensure_newline()
                self._reporter.write_line(self._sentence(launch))

    def say(self, sentence: str) -> None:
        """Show a sentence on a terminal; an empty one removes the line."""
        if self._line is None or not self._is_terminal:
            return
        with uncaptured(self._config):
            if not sentence:
                self._line.clear()
                return
            if not self._line.sentence:
                self._reporter.ensure_newline()
            self._line.show(sentence)

    @property
    def _is_terminal(self) -> bool:
        return self._reporter is not None and self._reporter.isatty and self._reporter._tw.hasmarkup

    def _sentence(self, launch: LaunchSupervisor) -> str:
        from ggufbench.text import duration

        case, workload = launch.case, launch.case.scenario.workload
        number, launches = self._order.index(case.id) + 1, workload.launches + workload.cold_launches
        elapsed = duration(time.monotonic() - self._started)
        disturbed = f", {launch.disturbed} samples disturbed" if launch.disturbed else ""
        return (
            f"[{number}/{len(self._order)}, {elapsed} of about {duration(self._total)}] "
            f"{case.id}: {launch.phase}, launch {launch.number} of {max(launches, launch.number)}{disturbed}"
        )


def uncaptured(config: pytest.Config) -> AbstractContextManager[None]:
    """Write to the terminal for a moment, although pytest captures a running test's output."""
    manager: Any = config.pluginmanager.get_plugin("capturemanager")
    return manager.global_and_fixture_disabled() if manager is not None else nullcontext()
