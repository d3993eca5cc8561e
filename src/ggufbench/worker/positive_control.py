"""Entry file of the positive control: a worker whose engine does more work than it reports.

`ggufbench selftest` starts the candidate's worker with this file instead of `__main__.py`, and the gate must
find the slowdown. Everything else is the real worker.
"""

import importlib
import math
import runpy
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

HIDDEN_WORK = 0.10
"""Work that is done and timed but not reported, as a fraction of the reported work."""


def main(hidden_work: float = HIDDEN_WORK) -> int:
    """Run the job on stdin with a slowed engine. Returns the exit code."""
    runpy.run_path(str(Path(__file__).with_name("__main__.py")))["_load_package"]()
    session: Any = importlib.import_module("ggufbench_worker.session")
    provider_error = importlib.import_module("ggufbench_worker.channel").ProviderError
    import_provider = session._import_provider

    def import_slowed(job: Any, channel: Any) -> SlowedEngine:
        if job.provider != "engine":
            raise provider_error(
                f'the positive control cannot slow the provider {job.provider}; give a scenario with "engine"'
            )
        return SlowedEngine(import_provider(job, channel), hidden_work)

    session._import_provider = import_slowed
    exit_code: int = session.main([])
    return exit_code


class SlowedEngine:
    """An engine whose timed samples take more tokens than they report; the warm-up is unchanged."""

    def __init__(self, engine: Any, hidden_work: float) -> None:
        self._engine, self._hidden_work = engine, hidden_work

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def prompt(self, number: int) -> Any:
        """Evaluate a longer prompt than is reported."""
        return self._with_hidden_work(self._engine.prompt, number, "prompt_tokens")

    def decode(self, number: int) -> Any:
        """Generate more tokens than are reported; the reported times add up to the time of all of them."""
        timing = self._with_hidden_work(self._engine.decode, number, "generated_tokens")
        return replace(timing, seconds=spread(timing.seconds, timing.tokens))

    def _with_hidden_work(self, work: Callable[[int], Any], number: int, field: str) -> Any:
        if number < 0:  # the warm-up
            return work(number)
        job = self._engine._job
        reported = getattr(job.workload, field)
        hidden = math.ceil(reported * self._hidden_work - 1e-9)  # 0.1 is a little more than a tenth
        self._engine._job = replace(job, workload=replace(job.workload, **{field: reported + hidden}))
        timing = work(number)
        self._engine._job = job
        return replace(timing, tokens=reported)


def spread(seconds: Sequence[float], count: int) -> list[float]:
    """Distribute the time of some tokens over `count` tokens, at most as many; the total stays the same.

    Each result is the time of the same number of real tokens, fractions included.
    """
    if count == len(seconds):
        return list(seconds)
    passed = [0.0, *accumulate(seconds)]
    ends = [len(seconds) * index / count for index in range(count + 1)]
    marks = [passed[int(end)] + (end % 1) * (seconds[int(end)] if end % 1 else 0.0) for end in ends]
    return [stop - start for start, stop in pairwise(marks)]


if __name__ == "__main__":
    sys.exit(main())
