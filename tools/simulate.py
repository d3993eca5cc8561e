"""Simulated error rates of the gate and of common methods.

python tools/simulate.py [--runs N] [--models N1 N2 ...] [--workers N] [--json] [--write FILE]

Prints tables in Markdown, or everything as JSON; `--write` also puts the tables between the two marks of a
file. The numbers do not depend on the number of workers. Exits with 1 if the gate misses a required rate.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from simulation import tables
from simulation.methods import SEED, Tallies, Tally, simulate
from simulation.noise import MODELS

RUNS = 10_000
CHUNK = 250
"""Sessions in one task of a worker."""
BEGIN, END = "<!-- simulation: begin -->", "<!-- simulation: end -->"


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate, then print and write."""
    asked = options(arguments)
    page = parts_around(asked.write) if asked.write else None
    models = [place for place, noise in enumerate(MODELS) if noise.name in asked.models]
    results = run(models, asked.runs, asked.workers)
    text = tables.markdown(results)
    if page:
        asked.write.write_text(f"{page[0]}{BEGIN}\n\n{text}\n\n{END}{page[1]}", "utf-8")
    if asked.json:
        print(json.dumps(document(results), indent=1))
    elif not page:
        print(text)
    broken = [promise for promise in tables.promises(results) if promise.broken]
    for promise in broken:
        words, required, seen, *_ = promise.row
        print(f"{words}: {required} % required, {seen} % seen", file=sys.stderr)
    return 1 if broken else 0


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parsed command-line options."""
    names = [noise.name for noise in MODELS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=at_least_one, default=RUNS, help="sessions for each noise model")
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--workers", type=at_least_one, default=os.cpu_count() or 1)
    parser.add_argument("--json", action="store_true", help="print all counts as JSON instead of tables")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help=f"write the tables between {BEGIN} and {END}"
    )
    return parser.parse_args(arguments)


def at_least_one(text: str) -> int:
    """A count, for argparse."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} is less than 1; give 1 or more")
    return count


def parts_around(path: Path) -> tuple[str, str]:
    """The text of a page before and after the tables; exits if the page does not have the two marks."""
    try:
        before, _, rest = path.read_text("utf-8").partition(BEGIN)
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"{path} cannot be read: {error}; name a text file with the lines {BEGIN} and {END}")
    _, mark, after = rest.partition(END)
    if not mark:
        sys.exit(f"{path} has no marks for the tables; write the lines {BEGIN} and {END} into it")
    return before, after


def run(models: Sequence[int], runs: int, workers: int) -> tables.Results:
    """Tallies of each model, summed over all workers in the order of the sessions."""
    tasks = [
        (model, range(start, min(start + CHUNK, runs))) for model in models for start in range(0, runs, CHUNK)
    ]
    results: dict[int, Tallies] = {model: {} for model in models}
    # Workers are spawned, because numpy's threads do not survive a fork.
    with get_context("spawn").Pool(workers) as pool:
        for (model, sessions), part in zip(tasks, pool.imap(task, tasks), strict=True):
            for key, tally in part.items():
                results[model].setdefault(key, Tally()).merge(tally)
            print(f"\r{MODELS[model].name}: {sessions.stop} of {runs}", end=" ", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return [(MODELS[model], tallies) for model, tallies in results.items()]


def task(arguments: tuple[int, range]) -> Tallies:
    """`simulate` with one argument, for `imap`."""
    return simulate(*arguments)


def document(results: tables.Results) -> dict[str, object]:
    """All results as a JSON document."""
    rows = []
    for noise, tallies in results:
        for (method, change), tally in tallies.items():
            rows.append({"model": noise.name, "method": method, "change": change, **asdict(tally)})
    return {"seed": SEED, "models": [asdict(noise) for noise, _ in results], "rows": rows}


if __name__ == "__main__":
    sys.exit(main())
