"""Time `ggufbench gate` and `ggufbench history` on a hundred thousand stored documents.

python tools/history_speed.py [--runs 2000] [--cases 50] [--full]

Makes runs from a real record of results/first, with other names, times and figures, in a temporary folder. In
each run one case in five is a comparison with an anchor. The records do not contain their launches, which
history does not read; --full keeps the launches, which makes files of 0.2 MB. Prints the wall time of whole
processes: without an index, with an index that is up to date, and after one more run.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ggufbench.records.comparison import Comparison
from ggufbench.records.schema import Record

CHECKOUT = Path(__file__).resolve().parent.parent
SOURCE = CHECKOUT / "results" / "first" / "llama-1.1b-Q4_K_M-cpu.json"
METRICS = ("decode_tokens_per_second", "prompt_tokens_per_second", "ready_seconds", "peak_rss_bytes")


def main() -> None:
    """Make the documents, time the commands, remove the documents."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--cases", type=int, default=50)
    parser.add_argument("--full", action="store_true")
    asked = parser.parse_args()
    results = Path(tempfile.mkdtemp(prefix="ggufbench-history-"))
    try:
        maker = Maker(results, asked.cases, full=asked.full)
        for number in range(asked.runs):
            maker.add_run(number)
        print(f"{asked.runs} runs, {asked.runs * asked.cases} documents, {size_of(results) / 1e6:.0f} MB")
        timed("history, first building of the index", results, "history")
        # The index trusts a folder only if its last change is a few seconds old.
        time.sleep(4)
        timed("gate, after that", results, "gate")
        for command in ("gate", "history"):
            for _ in range(3):
                timed(f"{command}, index up to date", results, command)
        timed("history, one series drawn", results, "history", "--match", "case-007-", "--metric", METRICS[0])
        maker.add_run(asked.runs)
        timed("gate, one new run", results, "gate")
    finally:
        shutil.rmtree(results)


class Maker:
    """Writer of runs of one machine, one night apart."""

    def __init__(self, results: Path, cases: int, *, full: bool) -> None:
        self.results, self.cases = results, cases
        self.random = random.Random(1)  # noqa: S311 (reproducible, no secret)
        self.record: dict[str, Any] = json.loads(SOURCE.read_bytes())
        if not full:
            self.record["launches"] = []
        Record.model_validate(self.record)

    def add_run(self, number: int) -> None:
        """Write one run of records, with a comparison instead of every fifth."""
        moment = datetime(2021, 1, 1, tzinfo=UTC) + timedelta(days=number)
        run = f"{moment:%Y%m%dT%H%M%SZ}-{number % 65536:04x}"
        comparisons = self.results / run / "comparisons"
        comparisons.mkdir(parents=True)
        for case in range(self.cases):
            self._name(case, run, moment)
            if case % 5:
                document, path = self._record(), self.results / run / f"{self.record['case_id']}.json"
            else:
                document, path = self._comparison(), comparisons / f"{self.record['case_id']}.json"
            path.write_text(json.dumps(document))

    def _name(self, case: int, run: str, moment: datetime) -> None:
        name = f"case-{case:03d}"
        self.record |= {"run_id": run, "case_id": f"{name}-cpu", "created": moment.isoformat()}
        self.record["model"] |= {"name": name, "identity": f"{case:016x}"}

    def _record(self) -> dict[str, Any]:
        summary = {
            name: {**figures, "median": figures["median"] * self.random.gauss(1, 0.02)}
            for name, figures in self.record["summary"].items()
        }
        return {**self.record, "summary": summary}

    def _comparison(self) -> dict[str, Any]:
        record = self.record
        shared = (
            "run_id",
            "case_id",
            "created",
            "wall_seconds",
            "model",
            "workload",
            "machine",
            "source",
            "seed",
        )
        document = {
            **{name: record[name] for name in shared},
            "verdict": "no regression",
            "tolerance": record["tolerance"],
            "arms": [self._arm(role) for role in ("baseline", "candidate", "anchor")],
            "blocks": 10,
            "disturbed_blocks": 0,
            "launches": 33,
            "cells": [self._cell(metric) for metric in METRICS],
        }
        Comparison.model_validate(document)
        return document

    def _arm(self, role: str) -> dict[str, Any]:
        how = {name: self.record[name] for name in ("scenario", "setting", "provider")}
        return {"role": role, "name": "llama-cpp-python==0.3.36", "kind": "requirement", **how}

    def _cell(self, metric: str) -> dict[str, Any]:
        reference = self.record["summary"][metric]["median"] * self.random.gauss(1, 0.01)
        change = self.random.gauss(0, 0.01)
        return {
            "metric": metric, "against": "anchor", "verdict": "no regression", "pairs": 10,
            "reference_median": reference, "change": change, "tolerance": 0.05,
        }  # fmt: skip


def timed(what: str, results: Path, *arguments: str) -> None:
    """Run the program, and print the wall time of the whole process."""
    command = [sys.executable, "-m", "ggufbench.cli", *arguments, "--results", str(results)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    last = (done.stdout or done.stderr).strip().splitlines()[-1:]
    print(f"{what:40} {seconds:7.2f} s   exit {done.returncode}   {''.join(last)[:80]}", flush=True)


def size_of(folder: Path) -> int:
    """Total size of all files in a folder, in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*.json"))


if __name__ == "__main__":
    main()
