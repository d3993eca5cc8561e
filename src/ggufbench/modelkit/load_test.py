"""Test that a new GGUF loads: one worker loads it on the CPU and decodes or encodes one token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ggufbench.discovery import Model, discover
from ggufbench.launching.launcher import launch
from ggufbench.machine.facts import resolve_threads
from ggufbench.outcomes import Outcome
from ggufbench.planning.plan import PROVIDERS
from ggufbench.worker.job import Job, Setting, Workload
from ggufbench.worker.protocol import Loaded, TimedSample

_CONTEXT = 64
_SLOWEST_LOAD_BYTES_PER_SECOND = 20e6


@dataclass(frozen=True, slots=True)
class LoadTest:
    """Result of the test. The numbers are 0 if the file is not a loadable model."""

    path: Path
    problem: str | None
    """Reason why it cannot be used, in one sentence; None if it loaded and decoded."""
    seconds: float = 0.0
    """From the call that loads the file to the first token."""
    layers: int = 0
    file_size_bytes: int = 0
    label: str = ""
    """Name and quantization, as matched by `--match`."""


def load_test(path: Path) -> LoadTest:
    """Load the model of a file (the first shard of several). Never raises, except for Ctrl-C."""
    found = discover([path])
    if not found.models:
        reason = found.rejected[0].reason if found.rejected else "it contains no model"
        return LoadTest(path, f"it is not a model that can run: {reason}")
    model = found.models[0]
    result = LoadTest(path, None, 0.0, model.layers, model.file_size_bytes, model.label)
    seconds = 60 + model.file_size_bytes / _SLOWEST_LOAD_BYTES_PER_SECOND
    ended = launch(_job(model), lambda _phase: seconds)
    loaded, sample = ended.find(Loaded), ended.find(TimedSample)
    if ended.outcome is not Outcome.MEASURED or loaded is None or sample is None:
        return replace(result, problem=ended.reason or "the worker reported nothing")
    return replace(result, seconds=loaded.seconds + sample.seconds)


def _job(model: Model) -> Job:
    threads = resolve_threads("auto")
    setting = Setting(
        "cpu", n_ctx=_CONTEXT, n_batch=_CONTEXT, n_ubatch=_CONTEXT, n_threads=threads, n_threads_batch=threads
    )
    workload = Workload(prompt_tokens=1, generated_tokens=1, repetitions=1)
    return Job(PROVIDERS[model.kind], str(model.path), setting, workload, load_only=True)
