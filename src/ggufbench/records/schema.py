"""One record: everything about one case of one run. Immutable, and the same in memory as on disk.

History of the format (`schema_version`):
1  first published.
2  cold and warm loads, each load a sample of its own; disturbed samples marked, with the outcome
   `environment`; limits; conditions of the machine; null where a provider of one's own does not tell what it
   made of a setting. Documents of 1 are read as they are.
3  the transformers baseline: `weights` and `dtype` in a setting, the original of a model. Documents of 2 are
   read as they are.
4  what llama.cpp itself took of each token of a chat model; a mark after the exit; null for the memory of a
   device that was not asked. Documents of 3 are read as they are.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from ggufbench.machine.parts import BusyProcess, Conditions, Device, Machine, SourceState
from ggufbench.metrics import Summary
from ggufbench.outcomes import Outcome
from ggufbench.records.parts import CacheState, Disturbance, LimitResult, TargetResult
from ggufbench.thresholds import Tolerance
from ggufbench.values import Bytes, Count, Part, Seconds
from ggufbench.worker.job import TRANSFORMERS, Setting, Workload

SCHEMA_VERSION: Literal[4] = 4


class Original(Part):
    """The safetensors checkpoint that a GGUF was made of, where it lies on this machine too."""

    repository: str | None
    """`owner/name` where the source knows it."""
    path: str
    """Its folder; the same for every quantization that was made of it."""
    file_size_bytes: Bytes
    """Over all its safetensors files."""


class ModelIdentity(Part):
    """Which file was measured."""

    name: str
    quantization: str
    identity: str
    """Hash of header, size and sampled blocks: equal for copies, different after any re-quantization."""
    path: str
    repository: str | None
    source: str
    architecture: str
    parameters: Count
    file_size_bytes: Bytes
    tensor_bytes: Bytes
    decode_bytes_per_token: Bytes
    trained_context: Count
    layers: Count
    experts: Count
    experts_used: Count
    sliding_window: Count
    synthetic: bool
    original: Original | None = None


class ProviderFacts(Part):
    """The code that was measured."""

    name: str
    versions: dict[str, str] = {}
    system_info: str = ""
    """Instruction sets and build flags: one version number covers different machine code."""
    devices: list[Device] = []
    """What the library saw before the setting's RPC servers were added."""
    environment: dict[str, str] = {}
    """Variables of the worker that change how the library computes."""


class Sample(Part):
    """One timed repetition."""

    phase: str
    warmup: bool = False
    seconds: Seconds
    tokens: Count
    token_seconds: list[Seconds] = []
    """Each generated token, in order; empty for a prompt."""
    native_seconds: list[Seconds] = []
    """Of each of `token_seconds`, what llama.cpp's decoding took, where a chat model was measured."""
    evidence: dict[str, float] = {}
    """What the kernel counted meanwhile: processor time, switches, faults, the machine's other work."""
    disturbed: list[Disturbance] = []
    """Why the sample does not count; it is kept, and in no summary."""


class MemoryMark(Part):
    """The kernel's account of the worker when a phase had ended."""

    after: str
    figures: dict[str, Count]
    device_free_bytes: dict[str, Count] = {}


class Effective(Part):
    """What the library did with the setting, read back after loading."""

    n_ctx: Count | None
    n_batch: Count | None
    n_ubatch: Count | None
    n_threads: Count | None
    n_threads_batch: Count | None
    """These five, and `description`, are None where a provider of the user's does not let them be read."""
    description: str | None
    devices: list[str]
    """Devices that the model was given, or could take for itself."""
    layers: dict[str, Count]
    """Device to number of layers, from the log; the output layer counts as one."""
    buffers: dict[str, dict[str, Count]]
    load_mode: str | None
    flash_attn: str | None
    type_k: str | None
    type_v: str | None


class PageCache(Part):
    """How much of the file lay in memory when loading began."""

    asked: CacheState
    """`cold` (its pages were dropped) or `warm` (it was read before)."""
    resident_fraction: Annotated[float, Field(ge=0, le=1)] | None
    state: CacheState
    """What it was: `cold` up to 2 % resident, `warm` from 99 %, else `partial`; `unknown` where not told."""


class Launch(Part):
    """One fresh worker process."""

    load_only: bool = False
    """True where it ended after the first token, by intention."""
    outcome: Outcome
    phase: str | None = None
    """The phase in which it ended, where it was not measured."""
    reason: str | None = None
    signal: str | None = None
    wall_seconds: Seconds
    import_seconds: Seconds | None = None
    model_seconds: Seconds | None = None
    context_seconds: Seconds | None = None
    page_cache: PageCache | None = None
    conditions: list[Conditions] = []
    """Power, heat and clock rate before and after the launch."""
    loop_overhead_seconds: Seconds | None = None
    """Of the worker's own loop, for each token."""
    effective: Effective | None = None
    samples: list[Sample] = []
    marks: list[MemoryMark] = []
    device_bytes: Bytes = 0
    digest: str | None = None
    """Hash of 32 greedy tokens after a fixed prompt: equal where the same work was done."""
    log: list[str] = []
    """The native log of loading; of the first launch, and of those that were not measured."""
    stderr: str = ""


class Environment(Part):
    """What disturbed a case's samples."""

    disturbed: Count
    judged: Count
    kinds: dict[str, Count]
    """Kind of disturbance to the number of samples it hit."""
    processes: list[BusyProcess]
    """The busiest other processes when it was first seen."""
    sentence: str


class Record(Part):
    """The document."""

    schema_version: Literal[1, 2, 3, 4] = SCHEMA_VERSION
    run_id: str
    case_id: str
    created: str
    """When the case ended, UTC, ISO 8601."""
    wall_seconds: Seconds
    outcome: Outcome
    phase: str | None = None
    reason: str | None = None
    model: ModelIdentity
    scenario: str
    setting: Setting
    workload: Workload
    seed: Count
    tolerance: Tolerance | None = None
    """How much disturbance a sample could bear and still count."""
    provider: ProviderFacts
    machine: Machine
    source: SourceState
    launches: list[Launch]
    summary: dict[str, Summary]
    targets: list[TargetResult]
    limits: list[LimitResult] = []
    """Each rate beside what this machine can deliver."""
    environment: Environment | None = None
    """None where no sample was disturbed."""

    @property
    def is_baseline(self) -> bool:
        """Whether it is of what llama.cpp is compared with."""
        return self.provider.name == TRANSFORMERS

    @property
    def loaded_bytes(self) -> int:
        """Size of the files that were loaded: the original's for `weights = "safetensors"`."""
        original = self.model.original if self.setting.weights == "safetensors" else None
        return original.file_size_bytes if original else self.model.file_size_bytes


def json_schema() -> str:
    """The published JSON Schema of a record, as text."""
    schema: dict[str, Any] = Record.model_json_schema(mode="serialization")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "ggufbench record"
    return json.dumps(schema, indent=2) + "\n"
