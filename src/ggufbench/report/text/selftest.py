"""The result of a selftest, and the error rates over all stored selftests."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType
from rich.text import Text

from ggufbench.comparing.selftest import NULL, Selftest, SessionTally
from ggufbench.report.text.terminal import stack, table, text

_NAMES = {"a/a selftest": "equal arms", "positive control": "10 % slower worker"}


def selftest_report(found: Selftest) -> RenderableType:
    """The sessions of this run, then the error rates over all of them."""
    if found.case_id is None:
        return Text(
            "No model can run; name a file or folder with --models, or make a model with `ggufbench synth`."
        )
    shown = table("Session", "Verdict", ">Pairs", ">Launches", ">Change", "Reason")
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
    """The error rate over the sessions of one kind."""
    if not tally.sessions:
        return f"{_NAMES[tally.kind]}: no session of this case on this machine has a verdict yet."
    cost = f"{tally.mean_launches:.1f} launches per session"
    if tally.kind == NULL:
        return (
            f"{_NAMES[tally.kind]}: {tally.regressions} false alarms in {tally.sessions} sessions, {cost}: "
            f"the type I error rate is below {100 * tally.bound:.1f} % (95 % confidence)."
        )
    return (
        f"{_NAMES[tally.kind]}: detected in {tally.regressions} of {tally.sessions} sessions, {cost}: "
        f"the detection rate is above {100 * tally.bound:.1f} % (95 % confidence)."
    )


def document(found: Selftest) -> dict[str, Any]:
    """The selftest for JSON."""
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
