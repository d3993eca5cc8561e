"""One record: everything about one case of one run. Immutable, and the same in memory as on disk.

History of the format (`schema_version`):
1  first published.
2  cold and warm loads, each load a sample of its own; samples with interference marked, with the outcome
   `environment`; limits; conditions of the machine; null if the user's own provider does not report how it
   used a setting. Documents of 1 are read as they are.
3  the transformers baseline: `weights` and `dtype` in a setting, the original of a model. Documents of 2 are
   read as they are.
4  llama.cpp's own part of each token's time of a chat model; a mark after the exit; null for the memory of a
   device that was not queried. Documents of 3 are read as they are.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ggufbench.discovery.model import ModelKind
from ggufbench.machine.parts import BusyProcess, Conditions, Device, Machine, SourceState
from ggufbench.metrics import Summary
from ggufbench.outcomes import Outcome
from ggufbench.records.parts import CacheState, Disturbance, LimitResult, MetricName, TargetResult
from ggufbench.thresholds import Tolerance
from ggufbench.values import Amount, Bytes, Count, Created, FileBytes, Name, Part, Possible, Seconds, Sentence
from ggufbench.worker.job import RATES, TRANSFORMERS, Setting, Workload

SCHEMA_VERSION: Literal[4] = 4

_SHORTEST_SECONDS = 1e-12
"""Limit of a sample that took any time: clocks count nanoseconds, and rates divide by it."""

_MAY_BE_ZERO = (
    "token_slope_seconds",
    "token_overhead_seconds",
    "overhead_slope_seconds",
    "kl_divergence",
    "log_probability_change",
    "top_token_agreement",
)
"""Metrics that are differences or shares; all others are above zero, because ratios divide by them."""


def _divisible(seconds: float) -> float:
    if 0 < seconds < _SHORTEST_SECONDS:
        raise ValueError("a sample cannot be shorter than a picosecond")
    return seconds


def _measured(summary: dict[str, Summary]) -> dict[str, Summary]:
    for name, found in summary.items():
        if not found.per_launch or found.samples <= 0:
            raise ValueError(f"{name} needs at least one sample")
        if name not in _MAY_BE_ZERO and min(found.minimum, found.median, found.maximum) <= 0:
            raise ValueError(f"{name} is not above zero")
    return summary


Summaries = Annotated[dict[MetricName, Annotated[Summary, Possible]], AfterValidator(_measured)]
LogProbability = Annotated[float, Field(le=0, ge=-1e6)]
StoredSetting = Annotated[Setting, Possible]
StoredWorkload = Annotated[Workload, Possible]


class Original(Part):
    """The original checkpoint (safetensors) of a GGUF, if it is also on this machine."""

    repository: str | None
    """`owner/name` if the source knows it."""
    path: str
    """Its folder, which all quantizations of it share."""
    file_size_bytes: FileBytes
    """Total size of its safetensors files."""


class ModelIdentity(Part):
    """Identity of the measured file."""

    name: Name
    quantization: Name
    identity: Name
    """Hash of header, size and sampled blocks: equal for copies, different after any re-quantization."""
    path: str
    repository: str | None
    source: str
    architecture: str
    parameters: Count
    file_size_bytes: FileBytes
    tensor_bytes: Bytes
    decode_bytes_per_token: Bytes
    trained_context: Count
    layers: Count
    experts: Count
    experts_used: Count
    sliding_window: Count
    synthetic: bool
    original: Original | None = None
    kind: ModelKind = "generator"
    """`generator`, `embedding`, `reranker` or `encoder-decoder`."""
    pooling: str = "none"
    """How an embedding model makes one vector from those of all tokens."""


class ProviderFacts(Part):
    """The code that was measured."""

    name: str
    versions: dict[Name, Name] = {}
    system_info: str = ""
    """Instruction sets and build flags: one version number covers different machine code."""
    devices: list[Device] = []
    """Devices that the library saw before the setting's RPC servers were added."""
    environment: dict[str, str] = {}
    """Variables of the worker that change how the library computes."""


class Sample(Part):
    """One timed repetition."""

    phase: str
    warmup: bool = False
    seconds: Annotated[Seconds, AfterValidator(_divisible)]
    tokens: Count
    token_seconds: list[Seconds] = []
    """Time of each generated token, in order; empty for a prompt."""
    native_seconds: list[Seconds] = []
    """The part of each of `token_seconds` that llama.cpp's decoding took, if a chat model was measured."""
    evidence: dict[str, Amount] = {}
    """Kernel counters meanwhile: processor time, switches, faults, the machine's other work."""
    disturbed: list[Disturbance] = []
    """Interference with the sample; a sample with interference is kept, but is in no summary."""


class ChunkScores(Part):
    """One chunk of text: the model's distributions of the next token, against those of the reference."""

    domain: Name
    """`prose`, `code`, `numbers`, `german`, `dialogue`, `long`, or `text` for the user's own."""
    tokens: Annotated[Count, Field(gt=0)]
    """Scored tokens."""
    kl_divergence: Amount
    """Mean over the tokens, in nats."""
    log_probability: LogProbability
    """Mean log-probability of the token that follows in the text, in nats."""
    reference_log_probability: LogProbability
    other_likeliest_tokens: Count
    """Tokens after which the likeliest next token is another than the reference's."""
    widest_gap: Amount
    """Widest difference of log-probability between two such tokens by the reference, in nats."""


class Reference(Part):
    """File and setting with whose distributions a scored case was compared."""

    name: Name
    quantization: Name
    identity: Name
    file_size_bytes: FileBytes
    setting: StoredSetting
    corpus: Name
    """`built-in`, or the name of the user's text."""
    corpus_digest: Name
    chunk_tokens: Annotated[Count, Field(gt=0)]


class MemoryMark(Part):
    """The kernel's accounting of the worker at the end of a phase."""

    after: str
    figures: dict[str, Count]
    device_free_bytes: dict[str, Count] = {}


class Effective(Part):
    """The setting as the library used it, read back after loading."""

    n_ctx: Count | None
    n_batch: Count | None
    n_ubatch: Count | None
    n_threads: Count | None
    n_threads_batch: Count | None
    """These five, and `description`, are None if the user's own provider does not make them readable."""
    description: str | None
    devices: list[str]
    """Devices that the model was given, or could choose itself."""
    layers: dict[str, Count]
    """Number of layers by device, from the log; the output layer counts as one."""
    buffers: dict[str, dict[str, Count]]
    load_mode: str | None
    flash_attn: str | None
    type_k: str | None
    type_v: str | None
    graph_splits: Count | None = None
    """Number of parts of the computation between which the device changes: 1 to 3 on one device."""
    fused_elsewhere: dict[str, str] = {}
    """Fused operations that run on another device than their layer, with that device."""


class PageCache(Part):
    """The part of the file that was in memory when loading began."""

    asked: CacheState
    """Requested state: `cold` (its pages were dropped) or `warm` (it was read before)."""
    resident_fraction: Annotated[float, Field(ge=0, le=1)] | None
    state: CacheState
    """Actual state: `cold` up to 2 % resident, `warm` from 99 %, else `partial`; `unknown` if unreported."""


class Launch(Part):
    """One fresh worker process."""

    load_only: bool = False
    """True if it ended after the first token, as intended."""
    outcome: Outcome
    phase: str | None = None
    """The phase in which it ended, if it was not measured."""
    reason: Sentence | None = None
    signal: str | None = None
    wall_seconds: Seconds
    import_seconds: Seconds | None = None
    model_seconds: Seconds | None = None
    context_seconds: Seconds | None = None
    page_cache: PageCache | None = None
    conditions: list[Conditions] = []
    """Power, heat and clock rate before and after the launch."""
    loop_overhead_seconds: Seconds | None = None
    """Time per token of the worker's own loop."""
    effective: Effective | None = None
    samples: list[Sample] = []
    marks: list[MemoryMark] = []
    device_bytes: Bytes = 0
    chunks: list[ChunkScores] = []
    """Scores of each chunk of text, if the answers were compared."""
    digest: str | None = None
    """Hash of 32 greedy tokens after a fixed prompt, or of the strongest components of an encoder's vectors:
    equal if the same work was done."""
    log: list[str] = []
    """The native log of loading, for the first launch and for those that were not measured."""
    stderr: str = ""


class Environment(Part):
    """Interference with a case's samples."""

    disturbed: Count
    judged: Count
    kinds: dict[str, Count]
    """Number of affected samples by kind of interference."""
    processes: list[BusyProcess]
    """The busiest other processes when it was first seen."""
    sentence: Sentence


class Record(Part):
    """The document of one case."""

    schema_version: Literal[1, 2, 3, 4] = SCHEMA_VERSION
    run_id: Name
    case_id: Name
    created: Created
    """When the case ended, UTC, ISO 8601."""
    wall_seconds: Seconds
    outcome: Outcome
    phase: str | None = None
    reason: Sentence | None = None
    model: ModelIdentity
    scenario: Name
    setting: StoredSetting
    workload: StoredWorkload
    seed: Count
    tolerance: Tolerance | None = None
    """Maximum interference of a sample that still counts."""
    provider: ProviderFacts
    machine: Machine
    source: SourceState
    launches: list[Launch]
    summary: Summaries
    targets: list[TargetResult]
    limits: list[LimitResult] = []
    """Each rate compared with the limits of this machine."""
    environment: Environment | None = None
    """None without interference."""
    reference: Reference | None = None
    """Reference of the answers; None for a case that compares none."""

    @property
    def is_baseline(self) -> bool:
        """True if it measures the baseline for llama.cpp."""
        return self.provider.name == TRANSFORMERS

    @property
    def rates(self) -> tuple[str, ...]:
        """Rates that its provider measures: `prompt` or `encode`, and `decode`."""
        return RATES.get(self.provider.name, ("prompt", "decode"))

    @property
    def loaded_bytes(self) -> int:
        """Size of the loaded files: the original checkpoint's for `weights = "safetensors"`."""
        original = self.model.original if self.setting.weights == "safetensors" else None
        return original.file_size_bytes if original else self.model.file_size_bytes


def json_schema() -> str:
    """The published JSON Schema of a record, as text."""
    schema: dict[str, Any] = Record.model_json_schema(mode="serialization")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "ggufbench record"
    return json.dumps(schema, indent=2) + "\n"
