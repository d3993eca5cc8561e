"""Measure the harness's overhead in addition to the model's own work.

python tools/harness_cost.py MODEL.gguf [SCENARIO]

Prints the harness's CPU time while the worker's clocks run, as a share of one core, and the ratio of the
case's wall time to the time inside its samples: the rest is process starts, imports, pipes, memory marks and
the preparation of the page cache.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ggufbench.launching.launcher import Interpreter, launch
from ggufbench.machine.facts import source_state
from ggufbench.measuring import supervisor
from ggufbench.measuring.case import Bench, measure_case
from ggufbench.measuring.preparation import Request, prepare_run
from ggufbench.records.schema import Record


class Watch:
    """Sums of the harness's CPU time and of the wall time between its answers and the next events."""

    def __init__(self) -> None:
        self.cpu_seconds = self.wall_seconds = 0.0

    def launch(self, job, deadlines, *, answer, **options):
        """`launcher.launch` with both times measured."""
        left = [time.process_time(), time.monotonic()]

        def watched(event, pid):
            self.cpu_seconds += time.process_time() - left[0]
            self.wall_seconds += time.monotonic() - left[1]
            reply = answer(event, pid)
            left[:] = time.process_time(), time.monotonic()
            return reply

        return launch(job, deadlines, answer=watched, **options)


def main() -> None:
    """Measure one case and print its overhead."""
    model, scenario = Path(sys.argv[1]), (sys.argv[2:] or ["cpu"])[0]
    prepared = prepare_run(Request(places=[model], scenarios=[scenario]), Interpreter())
    watch = Watch()
    supervisor.launch = watch.launch
    bench = Bench("cost", prepared.machine, source_state(Path.cwd()))
    for case in prepared.cases:
        report(measure_case(case, bench), watch)


def report(record: Record, watch: Watch) -> None:
    """Print both overheads of a case."""
    inside = sum(sample.seconds for launch in record.launches for sample in launch.samples)
    print(
        f"{record.case_id}: {record.outcome}, {record.wall_seconds:.1f} s in total, {inside:.1f} s in samples"
    )
    print(f"while clocks run the harness uses {100 * watch.cpu_seconds / watch.wall_seconds:.3f} % of a core")
    print(f"everything else adds {100 * (record.wall_seconds / inside - 1):.1f} % to the time in samples")


if __name__ == "__main__":
    main()
