"""Records of every kind for the tests of the report: variants of measured records."""

import dataclasses
import hashlib
import tomllib
from pathlib import Path

import pytest

from ggufbench.checks.targets import evaluate_targets
from ggufbench.outcomes import Outcome
from ggufbench.records.parts import LimitResult
from ggufbench.records.runs import StoredRun, read_run
from ggufbench.records.samples import summaries
from ggufbench.records.schema import (
    SCHEMA_VERSION,
    Environment,
    Launch,
    MemoryMark,
    ModelIdentity,
    Original,
    ProviderFacts,
    Record,
    Sample,
)
from ggufbench.thresholds import Targets
from ggufbench.worker.job import ENGINE, TRANSFORMERS

CHECKOUT = Path(__file__).resolve().parents[2]
PHASES = ("start", "import", "load", "first_decode", "prompt", "decode", "digest")
"""Phases in the order of a launch."""
QUANT_BYTES = {"F16": 2.0, "Q8_0": 1.06, "Q4_K_M": 0.6, "IQ4_NL": 0.56, "Q4_0": 0.56, "MXFP4": 0.53}
"""Approximate bytes for each parameter."""


@pytest.fixture(scope="session")
def first_run() -> StoredRun:
    """A measured run, as stored in the repository."""
    return read_run(CHECKOUT / "tests" / "fixtures" / "results", "first")


@pytest.fixture(scope="session")
def make_record(first_run):
    """A function that makes a consistent variant of a real record (see `_make`)."""
    targets = Targets(**tomllib.loads((CHECKOUT / "scenarios" / "targets.toml").read_text()))
    plain = max(
        (record for record in first_run.records if record.provider.name == ENGINE),
        key=lambda r: (r.outcome == "measured", r.setting.device == "cpu", r.model.quantization == "Q8_0",
                       r.model.parameters),
    )  # fmt: skip

    def make(base: Record | None = None, **changes) -> Record:
        return _make(base or plain, targets, **changes)

    return make


@pytest.fixture(scope="session")
def baseline_records(make_record) -> list[Record]:
    """Two quantizations of one llama on cpu, and transformers with their files and with the original.

    A second model hung in transformers, and a third crashed there.
    """
    home = {"name": "llama-1.1b", "original": "models/llama-1.1b", "launches": 4}
    qwen, oss = {"name": "qwen3-0.6b", "launches": 4}, {"name": "gpt-oss-mini", "launches": 4}
    packed = {"provider": TRANSFORMERS, "scenario": "transformers-gguf", "dtype": "float32"}
    whole = {"provider": TRANSFORMERS, "scenario": "transformers-bf16", "dtype": "bfloat16"}
    slow = {"memory": 3.1, "generated": 16}
    hung = {"outcome": "hung", "phase": "load", "reason": "no answer in load for 60 s"}
    crashed = {
        "outcome": "crashed", "phase": "load", "reason": "crashed (SIGSEGV) in load", "signal": "SIGSEGV"
    }  # fmt: skip
    return [
        make_record(quantization="Q8_0", scenario="cpu", **home),
        make_record(quantization="Q4_K_M", scenario="cpu", speed=1.4, memory=0.7, **home),
        make_record(quantization="Q8_0", speed=0.1, **home, **packed, **slow),
        make_record(quantization="Q4_K_M", speed=0.08, **home, **packed, **slow),
        make_record(quantization="Q8_0", weights="safetensors", speed=0.3, memory=2.2, **home, **whole),
        make_record(quantization="Q8_0", scenario="cpu", **qwen),
        make_record(quantization="Q8_0", **qwen, **packed, **hung),
        make_record(quantization="MXFP4", scenario="cpu", **oss),
        make_record(quantization="MXFP4", **oss, **packed, **crashed),
    ]


def _make(
    base: Record,
    targets: Targets,
    *,
    name: str | None = None,
    quantization: str | None = None,
    scenario: str | None = None,
    provider: str | None = None,
    outcome: str = "measured",
    phase: str | None = None,
    reason: str | None = None,
    signal: str | None = None,
    speed: float = 1.0,
    memory: float = 1.0,
    launches: int | None = None,
    generated: int | None = None,
    device: str | None = None,
    weights: str | None = None,
    dtype: str | None = None,
    original: str | None = None,
    digest: str | None = None,
    versions: dict[str, str] | None = None,
    run_id: str | None = None,
    created: str | None = None,
    case_id: str | None = None,
    fingerprint: str | None = None,
    file_size: int | None = None,
) -> Record:
    """A record that differs from `base` in the given values, with consistent launches and summary.

    `speed` divides every time and `memory` multiplies every figure of memory; `launches` is the number of
    full launches, each some percent slower than the one before; `generated` cuts or repeats the generated
    tokens. A case that was not measured keeps the samples before `phase` of its first launch only.
    """
    model = _model(base.model, name, quantization, original, file_size)
    how = Outcome(outcome)
    kind = provider or base.provider.name
    scenario = scenario or base.scenario
    made = _launches(base, launches)
    made = [_scaled(launch, speed / (1 + 0.01 * n), memory, generated) for n, launch in enumerate(made)]
    if digest is not None:
        made = [launch.model_copy(update={"digest": launch.digest and digest}) for launch in made]
    if kind == TRANSFORMERS:
        made = [_without_llama(launch) for launch in made]
    if how is Outcome.SKIPPED:
        made = []
    elif how not in (Outcome.MEASURED, Outcome.ENVIRONMENT):
        end = {"outcome": how, "phase": phase or "load", "reason": reason, "signal": signal}
        made = [_cut(made[0], phase or "load").model_copy(update=end)]
    setting = dataclasses.replace(
        base.setting,
        device=device or base.setting.device,
        weights=weights or base.setting.weights,
        dtype=dtype or base.setting.dtype,
    )
    original_bytes = model.original.file_size_bytes if model.original else model.file_size_bytes
    loaded = original_bytes if setting.weights == "safetensors" else model.file_size_bytes
    summary = summaries(made, loaded)
    workload = base.workload
    if generated is not None:
        workload = dataclasses.replace(workload, generated_tokens=generated)
    return base.model_copy(
        update={
            "schema_version": SCHEMA_VERSION,
            "run_id": run_id or base.run_id,
            "created": created or base.created,
            "case_id": case_id or f"{model.name}-{model.quantization}-{scenario}",
            "outcome": how,
            "phase": None if how in (Outcome.MEASURED, Outcome.ENVIRONMENT) else phase,
            "reason": reason,
            "model": model,
            "scenario": scenario,
            "setting": setting,
            "workload": workload,
            "provider": _provider(base.provider, kind, versions),
            "machine": base.machine.model_copy(
                update={"fingerprint": fingerprint or base.machine.fingerprint}
            ),
            "launches": made,
            "summary": summary,
            "targets": [] if kind == TRANSFORMERS else evaluate_targets(targets, loaded, summary),
            "limits": [] if kind == TRANSFORMERS else _limits(base.limits, summary),
            "environment": _environment(reason) if how is Outcome.ENVIRONMENT else None,
        }
    )


def _model(
    base: ModelIdentity, name: str | None, quantization: str | None, original: str | None, size: int | None
) -> ModelIdentity:
    label, quant = name or base.name, quantization or base.quantization
    if size is None:
        known = QUANT_BYTES.get(quant)
        changed = known is not None and quant != base.quantization
        size = int(base.parameters * known) if changed else base.file_size_bytes
    same = (label, quant, size) == (base.name, base.quantization, base.file_size_bytes)
    return base.model_copy(
        update={
            "name": label,
            "quantization": quant,
            "file_size_bytes": size,
            "tensor_bytes": int(0.98 * size),
            "path": base.path if same else f"models/{label}-{quant}.gguf",
            "identity": base.identity
            if same
            else hashlib.sha256(f"{label} {quant} {size}".encode()).hexdigest()[:16],
            "original": Original(repository=None, path=original, file_size_bytes=2 * base.parameters)
            if original
            else base.original,
        }
    )


def _provider(base: ProviderFacts, name: str, versions: dict[str, str] | None) -> ProviderFacts:
    if name != TRANSFORMERS or base.name == TRANSFORMERS:
        return base.model_copy(update={"name": name, "versions": versions or base.versions})
    found = {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.24.0"}
    return ProviderFacts(name=name, versions=versions or found)


def _launches(base: Record, count: int | None) -> list[Launch]:
    """Launches of the base, with `count` full ones."""
    full = [launch for launch in base.launches if not launch.load_only]
    if count is None or not full:
        return list(base.launches)
    loading = [launch for launch in base.launches if launch.load_only]
    return loading + [full[n % len(full)] for n in range(count)]


def _scaled(launch: Launch, speed: float, memory: float, generated: int | None) -> Launch:
    return launch.model_copy(
        update={
            "wall_seconds": launch.wall_seconds / speed,
            "model_seconds": launch.model_seconds and launch.model_seconds / speed,
            "context_seconds": launch.context_seconds and launch.context_seconds / speed,
            "samples": [_scaled_sample(sample, speed, generated) for sample in launch.samples],
            "marks": [_scaled_mark(mark, memory) for mark in launch.marks],
            "device_bytes": int(launch.device_bytes * memory),
        }
    )


def _scaled_sample(sample: Sample, speed: float, generated: int | None) -> Sample:
    tokens = [seconds / speed for seconds in sample.token_seconds]
    changes = {"seconds": sample.seconds / speed, "token_seconds": tokens}
    if sample.phase == "decode" and generated is not None and tokens:
        tokens = [tokens[n % len(tokens)] for n in range(generated)]
        changes = {"seconds": sum(tokens), "token_seconds": tokens, "tokens": generated}
    return sample.model_copy(update=changes)


def _scaled_mark(mark: MemoryMark, memory: float) -> MemoryMark:
    bytes_of = {key: int(value * memory) for key, value in mark.figures.items() if key.endswith("_bytes")}
    return mark.model_copy(update={"figures": {**mark.figures, **bytes_of}})


def _without_llama(launch: Launch) -> Launch:
    """The launch without the fields that only llama.cpp sets."""
    nothing = {"effective": None, "log": [], "digest": None, "context_seconds": None, "device_bytes": 0}
    return launch.model_copy(update=nothing)


def _cut(launch: Launch, phase: str) -> Launch:
    """The launch with the results before `phase`, in which it ended."""
    before = PHASES[: PHASES.index(phase)]
    return launch.model_copy(
        update={
            "load_only": False,
            "samples": [sample for sample in launch.samples if sample.phase in before],
            "marks": [mark for mark in launch.marks if mark.after in before],
            "effective": launch.effective if "load" in before else None,
            "digest": None,
        }
    )


def _limits(limits: list[LimitResult], summary: dict) -> list[LimitResult]:
    """Bounds of the base with the new measured values, none of which violates its bound."""
    found = []
    for limit in limits:
        if limit.metric in summary:
            measured = summary[limit.metric].median
            is_rate = limit.name != "load"
            bound = max(limit.bound, 1.25 * measured) if is_rate else min(limit.bound, 0.8 * measured)
            part = measured / bound if is_rate else bound / measured
            words = f"{limit.name}: {100 * part:.0f} % of what this machine can do at most"
            found.append(
                dataclasses.replace(
                    limit,
                    measured=measured,
                    bound=bound,
                    fraction=part,
                    highest_fraction=part,
                    sentence=words,
                )
            )
    return found


def _environment(reason: str | None) -> Environment:
    return Environment(
        disturbed=8,
        judged=12,
        kinds={"waiting": 8},
        processes=[],
        sentence=reason or "8 of 12 samples had interference; end other work",
    )
