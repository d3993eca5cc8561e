"""The result of `ggufbench verify`: the rates of both programs, their ratio, and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ggufbench.comparing.verify import Verification, VerifiedCase, VerifiedTest
from ggufbench.exit_codes import ExitCode
from ggufbench.report.text.terminal import stack, table, text
from ggufbench.stats.equivalence import LEAST_PAIRS

_STYLE = {"agrees": "green", "differs": "red", "inconclusive": "yellow"}


def verification_report(found: Verification) -> RenderableType:
    """Each case with its notes, the skipped cases, how to read the figures, and the result."""
    parts: list[RenderableType] = [_case(case) for case in found.cases]
    parts += [text(f"{case_id} was skipped: {reason}") for case_id, reason in found.skipped]
    if found.tests:
        parts += [Text(_legend(found), style="dim"), Text(result_sentence(found), style="bold")]
    elif not parts:
        parts.append(Text("No model was found; name a file or a folder with --models."))
    return stack(*parts)


def document(found: Verification, exit_code: ExitCode) -> dict[str, Any]:
    """Everything, including the raw samples of each launch, for JSON."""
    return {
        "llama_bench": found.llama_bench,
        "seed": found.seed,
        "pairs": found.pairs,
        "tolerance": found.tolerance,
        "exit_code": exit_code,
        "interrupted": found.interrupted,
        "comparisons": [_described(case) for case in found.cases],
        "skipped": [{"case_id": case_id, "reason": reason} for case_id, reason in found.skipped],
    }


def result_sentence(found: Verification) -> str:
    """The number of tests that agree, differ or are inconclusive."""
    tests = found.tests
    counts = {verdict: sum(test.equivalence.verdict == verdict for test in tests) for verdict in _STYLE}
    listed = ", ".join(f"{verdict} in {count}" for verdict, count in counts.items() if count)
    sentence = f"{listed} of {len(tests)} tests at a tolerance of {100 * found.tolerance:g} %"
    if counts["inconclusive"] and not counts["differs"]:
        sentence += "; inconclusive is not agreement (exit code 13 with --strict)"
    return f"{sentence[0].upper()}{sentence[1:]}."


def _described(found: VerifiedCase) -> dict[str, Any]:
    case = found.case
    return {
        "case_id": case.id,
        "model": case.model,
        "scenario": case.scenario.name,
        "setting": case.setting,
        "workload": case.workload,
        **{field.name: getattr(found, field.name) for field in fields(found) if field.name != "case"},
    }


def _case(found: VerifiedCase) -> RenderableType:
    parts: list[RenderableType] = [text(found.case.id, style="bold")]
    if found.tests:
        parts.append(_table(found.tests))
    return Group(*parts, *map(text, _notes(found)))


def _table(tests: Sequence[VerifiedTest]) -> Table:
    shown = table("Test", ">ggufbench", ">llama-bench", ">Ratio", ">Interval", ">Pairs", "Verdict")
    for test in tests:
        result = test.equivalence
        enough = len(test.ours) >= LEAST_PAIRS
        shown.add_row(
            Text(test.test),
            Text(_rate(test.ours_median)),
            Text(_rate(test.theirs_median)),
            Text(f"{result.ratio:.4f}"),
            Text(f"{result.low:.3f}-{result.high:.3f}" if enough else "-"),
            Text(str(len(test.ours))),
            Text(result.verdict, style=_STYLE[result.verdict]),
        )
    return shown


def _notes(found: VerifiedCase) -> list[str]:
    inconclusive = [test for test in found.tests if test.equivalence.verdict == "inconclusive"]
    notes = [] if found.mostly_disturbed else [_needed(test) for test in inconclusive]
    seconds, share = found.loop_overhead_seconds, found.loop_overhead_share
    if seconds is not None and share is not None:
        notes.append(
            f"The loop of the worker takes {1e6 * seconds:.2f} µs of each token, {100 * share:.2g} %."
        )
    if len(found.providers) == 2:
        ours, theirs = found.providers["candidate"].versions, found.providers["baseline"].versions
        notes.append(
            f"llama-bench {theirs.get('llama.cpp', 'unknown')} (build {theirs.get('build', 'unknown')}), "
            f"library {ours.get('llama.cpp', 'unknown')}."
        )
    notes += [f"Warning: {warning}." for warning in found.warnings]
    if found.reason is not None:
        notes.append(f"Ended early: {found.reason}.")
    return notes


def _needed(test: VerifiedTest) -> str:
    pairs = test.equivalence.pairs_needed
    if pairs is None:
        return f"{test.test}: even 1000 pairs would not decide at this spread."
    if len(test.ours) < LEAST_PAIRS:
        return f"{test.test}: a 90 % confidence interval needs at least {pairs} pairs."
    return f"{test.test}: about {pairs} pairs would decide at this spread."


def _legend(found: Verification) -> str:
    low, high = 1 - found.tolerance, 1 + found.tolerance
    return (
        "Tokens per second, medians of the best sample of each launch. The ratio is the Hodges-Lehmann "
        "estimate over the pairs, with its exact confidence interval of at least 90 % (signed-rank). A test "
        f"agrees if the interval is within {low:g} to {high:g}, and differs if it is outside. Random order, "
        f"seed {found.seed}."
    )


def _rate(value: float) -> str:
    return f"{value:.0f} t/s" if value >= 100 else f"{value:.2f} t/s"
