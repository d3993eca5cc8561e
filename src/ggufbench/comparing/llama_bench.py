"""llama-bench as an arm of a comparison: run it with the settings of a case and read its results.

Its defaults differ from those of a scenario, so every setting is passed. A setting that it does not support
is an error.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ggufbench.errors import GgufbenchError
from ggufbench.launching.launcher import compute_variables, worker_environment
from ggufbench.machine.devices import AvailableDevices
from ggufbench.measuring.case import Bench, CaseTimeouts, MeasuredLaunch
from ggufbench.outcomes import Outcome
from ggufbench.planning.plan import Case
from ggufbench.processes import Finished, OutputTooLongError, run_program
from ggufbench.records.schema import Launch, ProviderFacts, Sample
from ggufbench.worker.job import DEVICE_PREFIXES, ENGINE, Setting, Workload

_KV_TYPES = ("f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl")
_MOST_OUTPUT_BYTES = 2**24
"""A sample has at most 20 digits and a separator, and a test at most 1000 samples; the rest is a few KB."""


class LlamaBenchError(GgufbenchError):
    """llama-bench cannot be used, or failed; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class LlamaBenchRun:
    """Results of one process of llama-bench."""

    build_commit: str
    build_number: int
    samples: list[Sample]
    """Samples: each repetition of the whole prompt, then of all generated tokens."""


@dataclass(slots=True)
class LlamaBenchArm:
    """Arm of a comparison; each launch is one process of llama-bench."""

    program: Path
    arguments: Mapping[str, Sequence[str]]
    """Command line of each case, by the case's id."""
    _has_result: bool = field(default=False, init=False)

    def measure(self, case: Case, bench: Bench, variables: Mapping[str, str]) -> MeasuredLaunch:
        """Measure one launch. Raises LlamaBenchError if the program fails before its first result."""
        timeouts, started = CaseTimeouts(case, bench.deadline_scale), time.monotonic()
        facts = ProviderFacts(name="llama-bench", environment=compute_variables(os.environ))
        try:
            _refuse_changed_file(case)
            run = run_llama_bench(
                self.program,
                self.arguments[case.id],
                case.workload,
                worker_environment(variables),
                sum(timeouts(phase) for phase in ("load", "prompt", "decode")),
            )
            _refuse_changed_file(case)
        except LlamaBenchError as error:
            if not self._has_result:
                raise
            failed = Launch(
                outcome=Outcome.FAILED, reason=str(error), wall_seconds=time.monotonic() - started
            )
            return MeasuredLaunch(failed, facts, [])
        self._has_result = True
        launch = Launch(
            outcome=Outcome.MEASURED, wall_seconds=time.monotonic() - started, samples=run.samples
        )
        versions = {"llama.cpp": run.build_commit, "build": str(run.build_number)}
        return MeasuredLaunch(launch, facts.model_copy(update={"versions": versions}), [])


def _refuse_changed_file(case: Case) -> None:
    if (changed := case.changed_file()) is not None:
        raise LlamaBenchError(changed)


def check_executable(path: Path, name: str) -> Path:
    """Check that this program is executable; return its absolute path. Raises LlamaBenchError."""
    if not path.is_file():
        raise LlamaBenchError(f"there is no {name} at {path}; build one with tools/build_llama_bench.sh")
    if not os.access(path, os.X_OK):
        raise LlamaBenchError(f"{path} is not executable; give the program {name} itself")
    return path.resolve()


def bench_arguments(case: Case, environment: AvailableDevices) -> list[str]:
    """Arguments with which llama-bench measures this case.

    `environment` has the names of the devices, from the probed library. Raises LlamaBenchError for a setting
    that llama-bench does not support.
    """
    _refuse_what_it_lacks(case)
    setting, workload = case.setting, case.workload
    return [
        *(["-rpc", setting.rpc_servers] if setting.rpc_servers else []),  # must precede the devices
        *("-m", str(case.model.path)),
        *("-p", str(workload.prompt_tokens)),
        *("-n", str(workload.generated_tokens)),
        *("-d", str(workload.depth)),
        *("-r", str(workload.repetitions)),
        *("-b", str(setting.n_batch)),
        *("-ub", str(setting.n_ubatch)),
        *("-t", str(setting.n_threads)),
        *("-ctk", setting.type_k),
        *("-ctv", setting.type_v),
        *("-fa", setting.flash_attn),
        *("-lm", setting.load_mode),
        *("--repack", str(int(setting.repack))),
        *("-nkvo", str(int(not setting.offload_kqv))),
        *_placement(setting, environment),
        *("-o", "json"),
    ]


def _placement(setting: Setting, environment: AvailableDevices) -> list[str]:
    """Arguments for the devices. On the CPU, the split over devices has no effect, and 0 is always valid."""
    if setting.device == "cpu":
        return ["-dev", "none", "-ngl", "0", "-sm", "layer", "-mg", "0"]
    prefixes = DEVICE_PREFIXES[setting.device]
    names = [device.name for device in environment.devices if device.name.startswith(prefixes)]
    return [
        *("-dev", "/".join(names)),
        *("-ngl", str(setting.n_gpu_layers)),
        *("-sm", setting.split_mode),
        *("-mg", str(setting.main_gpu)),
    ]


def _refuse_what_it_lacks(case: Case) -> None:
    setting, name = case.setting, case.scenario.name
    if case.scenario.provider != ENGINE:
        raise LlamaBenchError(
            f'{name}: llama-bench does the work of provider = "{ENGINE}", and this scenario has '
            f'"{case.scenario.provider}"; choose another scenario, such as cpu'
        )
    if setting.n_threads != setting.n_threads_batch:
        raise LlamaBenchError(
            f"{name}: llama-bench has one number of threads, but n_threads = {setting.n_threads} "
            f"and n_threads_batch = {setting.n_threads_batch}; make them equal"
        )
    for key, value in (("type_k", setting.type_k), ("type_v", setting.type_v)):
        if value not in _KV_TYPES:
            known = ", ".join(_KV_TYPES[:-1]) + f" or {_KV_TYPES[-1]}"
            raise LlamaBenchError(f'{name}: llama-bench does not support {key} = "{value}"; use {known}')
    if "," in str(case.model.path):
        raise LlamaBenchError(f"llama-bench splits a path at its commas; rename {case.model.path}")


def build_problem(library: str, llama_bench: str) -> str | None:
    """Reason why the commits of the two builds may differ; None if they are the same.

    If llama.cpp is built from a source distribution, only one of the two commits ends in `-dirty`.
    """
    ours, theirs = library.removesuffix("-dirty"), llama_bench.removesuffix("-dirty")
    if "" in (ours, theirs) or "unknown" in (ours, theirs):
        return (
            "it is unknown whether both use the same build of llama.cpp: "
            f"the library reports {library or 'nothing'!r}, llama-bench reports {llama_bench or 'nothing'!r}"
        )
    if ours.startswith(theirs) or theirs.startswith(ours):
        return None
    return (
        f"llama-bench uses another llama.cpp ({llama_bench}) than the library ({library}), so the builds may "
        "cause a difference; build llama-bench with tools/build_llama_bench.sh"
    )


def run_llama_bench(
    program: Path,
    arguments: Sequence[str],
    workload: Workload,
    env: Mapping[str, str],
    deadline_seconds: float,
) -> LlamaBenchRun:
    """Run llama-bench once, in its own process group, and return its samples.

    Raises LlamaBenchError if it cannot be started, fails, does not end within `deadline_seconds`, or does
    not print the requested results. The process group is always terminated, also after Ctrl-C.
    """
    try:
        done = run_program([program, *arguments], deadline_seconds, env=env, most_bytes=_MOST_OUTPUT_BYTES)
    except OSError as error:
        raise LlamaBenchError(f"{program} cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise LlamaBenchError(f"llama-bench did not end within {deadline_seconds:.0f} s") from None
    except OutputTooLongError as error:
        raise LlamaBenchError(f"llama-bench was terminated, because {error}; give another program") from None
    if done.code != 0:
        raise LlamaBenchError(_how_it_ended(done))
    return parse_output(done.output.encode(), workload)


def parse_output(output: bytes, workload: Workload) -> LlamaBenchRun:
    """Parse the JSON of llama-bench: one test of the prompt and one of the generated tokens.

    Raises LlamaBenchError for other output, and for results of other work than requested.
    """
    prompt_tokens, generated_tokens = workload.prompt_tokens, workload.generated_tokens
    prompt = _test(rows := _rows(output), workload, prompt_tokens, 0)
    decode = _test(rows, workload, 0, generated_tokens)
    return LlamaBenchRun(
        build_commit=str(prompt.get("build_commit", "unknown")),
        build_number=_whole(prompt.get("build_number", 0)),
        samples=[
            *(Sample(phase="prompt", seconds=s, tokens=prompt_tokens) for s in _seconds(prompt, workload)),
            *(Sample(phase="decode", seconds=s, tokens=generated_tokens) for s in _seconds(decode, workload)),
        ],
    )


def _rows(output: bytes) -> list[dict[str, Any]]:
    try:
        rows = json.loads(output)
    except (ValueError, RecursionError):
        shown = output[:60].decode("utf-8", errors="replace")
        said = f"{shown!r}" if output.strip() else "nothing"
        raise LlamaBenchError(f"llama-bench printed {said} instead of JSON") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise LlamaBenchError("llama-bench printed JSON that is not a list of tests")
    return rows


def _test(rows: list[dict[str, Any]], workload: Workload, prompt: int, generated: int) -> dict[str, Any]:
    wanted = {"n_prompt": prompt, "n_gen": generated, "n_depth": workload.depth}
    found = [row for row in rows if all(row.get(key, 0) == value for key, value in wanted.items())]
    if len(found) != 1:
        asked = ", ".join(f"{key} = {value}" for key, value in wanted.items())
        raise LlamaBenchError(f"llama-bench reported {len(found)} tests with {asked} instead of one")
    return found[0]


def _seconds(row: dict[str, Any], workload: Workload) -> list[float]:
    samples = row.get("samples_ns")
    usable = isinstance(samples, list) and len(samples) == workload.repetitions
    if not usable or not all(_whole(sample) > 0 for sample in samples or []):
        raise LlamaBenchError(f"llama-bench reported no valid samples_ns for {workload.repetitions} samples")
    return [_whole(sample) / 1e9 for sample in samples or []]


def _whole(value: Any) -> int:
    """The value if it is an integer of at most 63 bits, else 0."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else 0


def _how_it_ended(done: Finished) -> str:
    lines = [line.strip() for line in done.errors.splitlines()]
    words = next((f": {line}" for line in reversed(lines) if line), "")
    if done.code < 0:
        known = {number.value: number.name for number in signal.Signals}
        return f"llama-bench crashed ({known.get(-done.code, f'signal {-done.code}')}){words}"
    return f"llama-bench ended with exit code {done.code}{words}"
