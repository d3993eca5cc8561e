"""Time `ggufbench report` on ten thousand records, and measure the size of its page.

python tools/report_speed.py [--cases 10000] [--full]

Makes one run from the real records of results/first, a file for each case, with other names and figures, in a
temporary folder. The records contain the samples of their launches but not the native logs, about 30 KB each;
--full keeps the logs too. Prints the wall time of whole processes and the size of the written files.
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
from pathlib import Path
from typing import Any

from ggufbench.records.schema import Record

CHECKOUT = Path(__file__).resolve().parent.parent
RUN = "20260101T000000Z-0000"
TIMES = 3


def main() -> None:
    """Make the records, time the command, remove the records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--full", action="store_true")
    asked = parser.parse_args()
    results = Path(tempfile.mkdtemp(prefix="ggufbench-report-"))
    try:
        written = make_run(results / RUN, asked.cases, full=asked.full)
        print(f"{asked.cases} records, {written / 1e6:.0f} MB")
        for _ in range(TIMES):
            report(results)
    finally:
        shutil.rmtree(results)


def make_run(folder: Path, cases: int, *, full: bool) -> int:
    """Write the records: each model of the source repeatedly, with different names and speeds."""
    folder.mkdir(parents=True)
    sources = [json.loads(path.read_bytes()) for path in sorted((CHECKOUT / "results/first").glob("*.json"))]
    source = random.Random(1)  # noqa: S311 (reproducible, no secret)
    written = 0
    for number in range(cases):
        record = variant(sources[number % len(sources)], number // len(sources), source, full=full)
        if number < len(sources):
            Record.model_validate(record)
        text = json.dumps(record)
        (folder / f"{record['case_id']}.json").write_text(text, encoding="utf-8")
        written += len(text)
    return written


def variant(record: dict[str, Any], number: int, source: random.Random, *, full: bool) -> dict[str, Any]:
    """The same record for another model; cases of one model keep the same name."""
    factor = source.uniform(0.8, 1.25)
    model = {**record["model"], "name": f"{record['model']['name']}-{number:04d}"}
    model["identity"] = f"{number:04x}{model['identity'][4:]}"
    if model.get("original"):
        model["original"] = {**model["original"], "path": f"{model['original']['path']}-{number:04d}"}
    summary = {
        name: {key: value * factor if isinstance(value, float) else value for key, value in found.items()}
        for name, found in record["summary"].items()
    }
    launches = record["launches"]
    if not full:
        launches = [{**launch, "log": [], "stderr": ""} for launch in launches]
    case_id = f"{model['name']}-{model['quantization']}-{record['scenario']}"
    changed = {"run_id": RUN, "case_id": case_id, "model": model, "summary": summary, "launches": launches}
    return {**record, **changed}


def report(results: Path) -> None:
    """Time one whole process."""
    page = results / "report.html"
    page.unlink(missing_ok=True)
    page.with_suffix(".png").unlink(missing_ok=True)
    command = [sys.executable, "-m", "ggufbench.cli", "report", RUN, "--results", str(results)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    print(f"report: {time.perf_counter() - started:.2f} s, page {page.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
