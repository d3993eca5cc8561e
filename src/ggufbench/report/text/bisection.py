"""The search for the first bad release or commit, as text and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from ggufbench.comparing.bisect import Bisection, BisectStep
from ggufbench.comparing.versions import commit_subject
from ggufbench.records.comparison import Cell, Comparison
from ggufbench.report.text.comparison import sentence
from ggufbench.report.text.names import Name
from ggufbench.report.text.terminal import stack, table, text

_STYLE = {"good": "green", "bad": "red", "skipped": "yellow"}


def bisection_report(found: Bisection, repository: Path) -> RenderableType:
    """The steps of the search, then the first bad candidate and the change it made."""
    shown = table("Candidate", "Result", ">Change", ">Interval", ">Pairs", ">Launches", "Reason")
    for step in found.steps:
        cell = _cell(step.comparison, found.metric)
        shown.add_row(
            Name(_short(step.candidate)),
            Text(step.side, style=_STYLE[step.side]),
            Text(_percent(cell.change) if cell else "-"),
            Text(f"{_percent(cell.low)} to {_percent(cell.high)}" if cell else "-"),
            Text(str(cell.pairs) if cell else "0"),
            Text(f"{step.launches}{' (stored)' if step.resumed else ''}"),
            text(step.reason or ""),
        )
    return stack(
        shown if found.steps else None,
        *(text(line) for line in _ending(found, repository)),
        Text(
            f"{len(found.steps)} comparisons, {found.launches} launches, {len(found.candidates)} candidates."
        ),
    )


def document(found: Bisection) -> dict[str, Any]:
    """The search for JSON."""
    cell = _cell(found.confirmation, found.metric)
    return {
        "case_id": found.case_id,
        "exit_code": found.exit_code,
        "candidates": found.candidates,
        "metric": found.metric,
        "first_bad": found.first_bad,
        "change": cell.change if cell else None,
        "low": cell.low if cell else None,
        "high": cell.high if cell else None,
        "suspects": found.suspects,
        "sentence": found.sentence,
        "launches": found.launches,
        "steps": [_step(step) for step in found.steps],
    }


def _step(step: BisectStep) -> dict[str, Any]:
    return {
        "baseline": step.baseline,
        "candidate": step.candidate,
        "side": step.side,
        "reason": step.reason,
        "resumed": step.resumed,
        "launches": step.launches,
        "run_id": step.comparison.run_id if step.comparison else None,
        "cells": step.comparison.cells if step.comparison else [],
    }


def _ending(found: Bisection, repository: Path) -> list[str]:
    lines = []
    cell = _cell(found.confirmation, found.metric)
    if found.first_bad is not None and found.confirmation is not None and cell is not None:
        lines.append(f"First bad: {_named(found.first_bad, repository)}")
        lines.append(f"{sentence(found.confirmation, cell)} (compared with the candidate before it).")
    lines += [f"Suspect: {_named(name, repository)}" for name in found.suspects]
    return [*lines, f"{found.sentence[:1].upper()}{found.sentence[1:]}."] if found.sentence else lines


def _named(candidate: str, repository: Path) -> str:
    if "==" in candidate:
        return candidate
    return f"{candidate} {commit_subject(repository, candidate)}"


def _cell(comparison: Comparison | None, metric: str | None) -> Cell | None:
    if comparison is None:
        return None
    return next(
        (cell for cell in comparison.cells if cell.against == "baseline" and cell.metric == metric), None
    )


def _short(candidate: str) -> str:
    return candidate if "==" in candidate else candidate[:12]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.1f} %"
