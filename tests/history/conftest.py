"""Stored sessions to query: variants of a real record, written as by a run."""

import dataclasses
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ggufbench.cli.app import app
from ggufbench.records.comparison import Arm, Cell, Comparison, Verdict
from ggufbench.records.comparisons import write_comparison
from ggufbench.records.schema import Record
from ggufbench.records.store import read_record, write_record

FIRST = Path(__file__).parents[1] / "fixtures" / "results" / "first" / "llama-1.1b-Q4_K_M-cpu.json"
ANCHOR = "llama-cpp-python==0.3.36"


class Stored:
    """A results folder, and ways to add sessions to it; each day has one run."""

    def __init__(self, results: Path, record: Record) -> None:
        self.results, self.base = results, record

    @staticmethod
    def run(day: int) -> str:
        return f"{Stored.moment(day):%Y%m%dT%H%M%SZ}-{day:04x}"

    @staticmethod
    def moment(day: int) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)

    def record(self, day: int, case: str = "one", slower: float = 1.0, **changes) -> Path:
        """A record whose times are multiplied by `slower`, and rates divided."""
        summary = {
            name: figures
            if figures.unit in ("bytes", "ratio")
            else _scaled(figures, slower if figures.better == "lower" else 1 / slower)
            for name, figures in self.base.summary.items()
        }
        values = {**self._shared(day, case), "summary": summary, **changes}
        return write_record(self.results, self.base.model_copy(update=values))

    def comparison(
        self,
        day: int,
        case: str = "one",
        change: float = 0.0,
        *,
        anchor: str = ANCHOR,
        anchor_slower: float = 1.0,
        cell: dict | None = None,
        **changes,
    ) -> Path:
        """A comparison with an anchor, whose candidate is worse by `change` in two metrics."""
        how = {name: getattr(self.base, name) for name in ("scenario", "setting", "provider")}
        kinds = {
            "baseline": ("0123abc", "commit"),
            "candidate": (".", "current"),
            "anchor": (anchor, "requirement"),
        }
        values = {
            **self._shared(day, case),
            "wall_seconds": 100.0,
            "verdict": Verdict.NO_REGRESSION,
            "workload": self.base.workload,
            "tolerance": self.base.tolerance,
            "seed": 1,
            "arms": [Arm(role=role, name=name, kind=kind, **how) for role, (name, kind) in kinds.items()],
            "blocks": 10,
            "disturbed_blocks": 0,
            "launches": 33,
            "cells": [
                _cell(metric, change, reference, cell or {})
                for metric, reference in (
                    ("decode_tokens_per_second", 20.0 / anchor_slower),
                    ("prompt_tokens_per_second", 50.0 / anchor_slower),
                )
            ],
            "machine": self.base.machine,
            "source": self.base.source,
            **changes,
        }
        return write_comparison(self.results, Comparison(**values))

    def _shared(self, day: int, case: str) -> dict:
        model = self.base.model.model_copy(
            update={"name": case, "identity": hashlib.sha256(case.encode()).hexdigest()[:16]}
        )
        created = self.moment(day).isoformat()
        return {"run_id": self.run(day), "case_id": f"{case}-Q8_0-cpu", "created": created, "model": model}

    def machine(self, **facts):
        """Another machine."""
        return self.base.machine.model_copy(update={"fingerprint": "00112233445566aa", **facts})


def _scaled(figures, factor):
    return dataclasses.replace(figures, median=figures.median * factor)


def _cell(metric, change, reference, more) -> Cell:
    figures = {"pairs": 10, "change": change, "reference_median": reference, "tolerance": 0.05, **more}
    return Cell(
        metric=metric, against="anchor", verdict=figures.pop("verdict", Verdict.NO_REGRESSION), **figures
    )


@pytest.fixture(scope="session")
def real_record() -> Record:
    return read_record(FIRST).model_copy(update={"launches": []})


@pytest.fixture
def stored(tmp_path, real_record) -> Stored:
    folder = tmp_path / "results"
    folder.mkdir()
    return Stored(folder, real_record)


@pytest.fixture
def ask_program(stored, monkeypatch):
    """A function that runs the commands with arguments on the stored sessions."""
    monkeypatch.setenv("COLUMNS", "200")

    def ask(*arguments: str):
        return CliRunner().invoke(app, [*arguments, "--results", str(stored.results)], catch_exceptions=False)

    return ask
