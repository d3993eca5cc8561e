"""What a selftest found, and what all of them together prove."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.text import Text

from ggufbench.comparing.selftest import NULL, Selftest, SessionTally
from ggufbench.report.text.terminal import stack, table, text

_NAMES = {"a/a selftest": "A against A", "positive control": "10 % more work"}


def selftest_report(found: Selftest) -> RenderableType:
    """This run's sessions, the tally, and its meaning in a sentence."""
    if found.case_id is None:
        return Text("No model can run; give a file or a folder with --models, or make one: ggufbench synth.")
    shown = table("Session", "Verdict", ">Pairs", ">Launches", ">Change", "Why")
    for answer in found.answers:
        for comparison in answer.comparisons:
            pairs = max((cell.pairs for cell in comparison.cells), default=0)
            changes = [cell.change for cell in comparison.cells if cell.change is not None]
            shown.add_row(
                Text(_NAMES[comparison.purpose]),
                Text(str(comparison.verdict)),
                Text(str(pairs)),
                Text(str(comparison.launches)),
                Text(f"{100 * max(changes):+.1f} %" if changes else "-"),
                text(comparison.reason or ""),
            )
    lines = [text(sentence(tally)) for tally in found.tallies]
    problems = [text(problem) for answer in found.answers for problem in answer.problems]
    return stack(text(found.case_id, style="bold"), shown, *lines, *problems)


def sentence(tally: SessionTally) -> str:
    """What the sessions of one kind prove."""
    if not tally.sessions:
        return f"{_NAMES[tally.kind]}: no session was decided yet on this machine with this case."
    cost = f"{tally.mean_launches:.1f} launches a session"
    if tally.kind == NULL:
        return (
            f"{_NAMES[tally.kind]}: {tally.regressions} alarms in {tally.sessions} sessions, {cost}: "
            f"the true rate of false alarms is below {100 * tally.bound:.1f} % (95 %)."
        )
    return (
        f"{_NAMES[tally.kind]}: found in {tally.regressions} of {tally.sessions} sessions, {cost}: "
        f"the true rate of finding it is above {100 * tally.bound:.1f} % (95 %)."
    )


def document(found: Selftest) -> dict[str, Any]:
    """The same for programs."""
    return {
        "case_id": found.case_id,
        "exit_code": found.exit_code,
        "comparisons": [comparison for answer in found.answers for comparison in answer.comparisons],
        "tally": [
            {
                "kind": tally.kind,
                "sessions": tally.sessions,
                "regressions": tally.regressions,
                "bound": tally.bound,
                "mean_launches": tally.mean_launches,
                "sentence": sentence(tally),
            }
            for tally in found.tallies
        ],
    }
