"""Options of a run of the benchmarks, declared once for pytest and for `ggufbench run`.

pytest has them as `--gguf-NAME`, so that they never collide with options of other plugins; the command, and
pytest in a folder of benchmarks, as `--NAME`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RunOption:
    """One option."""

    name: str
    """Without a prefix, for example `cold-launches`."""
    help: str
    metavar: str | None = None
    """Placeholder of the value; None for a flag."""
    value_type: type[str] | type[int] | type[float] = str
    default: Any = None
    repeatable: bool = False
    without_value: str | None = None
    """Value of the option where it is given without one; None if it needs a value."""

    @property
    def key(self) -> str:
        """Name under which pytest keeps the value."""
        return self.key_of(self.name)

    @staticmethod
    def key_of(name: str) -> str:
        """The key of the option with this name."""
        return "gguf_" + name.replace("-", "_")


RUN_OPTIONS = (
    RunOption(
        "models",
        "look for models in this file or folder instead of the known caches (repeatable; also "
        "GGUFBENCH_MODELS)",
        "PATH",
        repeatable=True,
    ),
    RunOption(
        "match", "only models whose name or repository matches (repeatable)", "PATTERN", repeatable=True
    ),
    RunOption(
        "quant", "only models of this quantization, for example Q4_K_M (repeatable)", "NAME", repeatable=True
    ),
    RunOption(
        "scenario",
        "only this scenario, the name of a file in the scenarios folder (repeatable)",
        "NAME",
        repeatable=True,
    ),
    RunOption("scenarios", "read scenarios from this folder", "FOLDER"),
    RunOption("launches", "fresh processes for each case", "N", int),
    RunOption(
        "cold-launches", "fresh processes that only load, after the file left the page cache", "N", int
    ),
    RunOption("repetitions", "timed samples in each launch", "N", int),
    RunOption("text", "compare answers over this text instead of the shipped ones", "FILE"),
    RunOption("time-budget", "start no case that would end after this time, for example 10m", "TIME"),
    RunOption(
        "demo-models",
        "if no model is found, put a small real model (downloaded with pip) and synthetic ones here",
        "FOLDER",
    ),
    RunOption("results", "write records to this folder (default: GGUFBENCH_RESULTS, or results)", "FOLDER"),
    RunOption(
        "report",
        "write the report of this run at its end: RESULTS/RUN/report.html, or another PATH",
        "PATH",
        without_value="",
    ),
    RunOption(
        "enforce-targets", "fail a benchmark whose measured value misses the documented target", default=False
    ),
    RunOption(
        "deadline-scale",
        "multiply the timeouts after which a silent worker counts as hung",
        "X",
        float,
        default=1.0,
    ),
    RunOption(
        "gate-baseline",
        "compare with this Python, requirement or commit in pairs of launches, and fail on a regression",
        "ARM",
    ),
    RunOption(
        "gate-anchor", "also measure this pinned release, to which the history is a ratio", "REQUIREMENT"
    ),
    RunOption("gate-strict", "also fail if a verdict is inconclusive (exit code 13)", default=False),
    RunOption("gate-seed", "random seed of the order in each pair (default: random)", "N", int),
    RunOption(
        "gate-allow-other-answers",
        "judge the speed of a candidate even if its greedy tokens differ",
        default=False,
    ),
)
