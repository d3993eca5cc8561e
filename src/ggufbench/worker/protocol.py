"""The messages between the worker and the harness: their types, and their encoding as one line of JSON.

The harness sends a job and answers each event of the worker. The name of a message is the name of its class,
and each line contains the protocol's version, so that a worker file of another version is refused.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Collection, Iterable
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, cast, get_args, get_origin, get_type_hints

from .job import ENGINE, Job

VERSION = 1
"""Increased by each change of a message."""

GO, AGAIN = "go", "again"
"""Answers to an event: continue; or repeat this sample, because of interference."""


@dataclass(frozen=True, slots=True)
class ProbeJob:
    """Describe the library and its devices; load nothing."""

    provider: str = ENGINE
    """`engine` for llama.cpp, or `transformers`."""
    rpc_servers: str = ""
    """As in a setting; the devices of these servers are described too."""


@dataclass(frozen=True, slots=True)
class BandwidthJob:
    """Measure how fast memory is read, with each number of threads."""

    threads: list[int]
    total_bytes: int
    """Size of the memory that the threads read together."""
    rounds: int
    """Maximum number of times that each function reads it; fewer on a quiet machine."""


@dataclass(frozen=True, slots=True)
class TokenizeJob:
    """Load a vocabulary, then answer each `Text` with `Tokens`."""

    model_path: str


@dataclass(frozen=True, slots=True)
class Text:
    """A text to tokenize; answered by `Tokens`."""

    text: str


@dataclass(frozen=True, slots=True)
class Continue:
    """Tokens to continue with the likeliest ones; answered by `Tokens`."""

    ids: list[int]
    count: int


@dataclass(frozen=True, slots=True)
class Score:
    """Tokens to evaluate; answered by `Scored`."""

    ids: list[int]
    first: int
    """First position whose distribution of the next token is scored, up to the last but one."""
    rows: str
    """File of the logits: float32, (positions, vocabulary)."""
    compare: bool = False
    """Compare with the file's logits instead of writing it."""
    one_by_one: bool = False
    """Decode the scored tokens one by one, as an answer is generated, instead of in batches."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """A device as described by the library."""

    name: str
    description: str
    type: str
    memory_free_bytes: int | None
    memory_total_bytes: int | None
    """None if the device was not queried."""


@dataclass(frozen=True, slots=True)
class LibraryFacts:
    """The library under test, as a record keeps it."""

    versions: dict[str, str]
    system_info: str
    supports_rpc: bool
    supports_gpu_offload: bool
    devices: list[DeviceFacts]


@dataclass(frozen=True, slots=True)
class Placement:
    """Placement of the weights, from a library whose log does not contain it."""

    layers: dict[str, int]
    """Number of layers by device."""
    buffers: dict[str, dict[str, int]]
    """Bytes by kind of buffer and its name, as in llama.cpp's log."""


@dataclass(frozen=True, slots=True)
class EffectiveSetting:
    """The setting as the library uses it; None for values that cannot be read back."""

    n_ctx: int | None = None
    n_batch: int | None = None
    n_ubatch: int | None = None
    n_threads: int | None = None
    n_threads_batch: int | None = None
    description: str | None = None
    """The model, in the library's words."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase begins; the harness measures its timeout for that phase from here."""

    phase: str


@dataclass(frozen=True, slots=True)
class Imported:
    """The library was imported."""

    seconds: float
    log: list[str]
    """Lines of the native log since the last event with lines, here and below."""
    library: LibraryFacts


@dataclass(frozen=True, slots=True)
class Probed:
    """The result of a `ProbeJob`, sent as its last event."""

    library: LibraryFacts
    errors: str
    """Errors that the library reported while it looked for devices."""
    missing_packages: dict[str, str]
    """Packages that a layer over llama.cpp lacks here, by provider name."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The model was loaded."""

    model_seconds: float
    context_seconds: float | None
    """None if model and context are made in one call."""
    evidence: dict[str, float]
    placement: Placement | None
    effective: EffectiveSetting
    devices: list[str]
    log: list[str]

    @property
    def seconds(self) -> float:
        """Model and context together."""
        return self.model_seconds + (self.context_seconds or 0.0)


@dataclass(frozen=True, slots=True)
class TimedSample:
    """One timed repetition."""

    phase: str
    warmup: bool
    tokens: int
    seconds: float
    token_seconds: list[float]
    native_seconds: list[float]
    evidence: dict[str, float]


@dataclass(frozen=True, slots=True)
class Mark:
    """Memory at the end of a phase."""

    after: str
    memory: dict[str, int]
    device_free_bytes: dict[str, int]
    log: list[str]


@dataclass(frozen=True, slots=True)
class Overhead:
    """Time of the timed loop itself."""

    seconds_per_token: float


@dataclass(frozen=True, slots=True)
class Digest:
    """Hash of the greedy tokens after a fixed prompt."""

    digest: str


@dataclass(frozen=True, slots=True)
class Done:
    """The job is complete."""


@dataclass(frozen=True, slots=True)
class Error:
    """The job failed, and the worker ends."""

    phase: str
    message: str
    no_answer: bool = False
    """True if the chat model ended its answer before there was anything to time."""


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Memory read speed with one number of threads."""

    threads: int
    bytes_per_second: float
    calm: bool
    """True if the threads had their cores to themselves in at least one round."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of the last `Text`; empty before the first one."""

    ids: list[int]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens that a model knows."""

    size: int
    first_token: int | None
    """Id of the token that begins each text; None if the tokenizer adds no such token."""
    tokenizes: bool = True
    """False for a file without a tokenizer."""
    chat_template: str | None = None
    """Template of the file; None without one."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The distributions at the scored positions, one number for each, in nats."""

    log_probabilities: list[float]
    """Log-probability of the token that follows in the text."""
    reference_log_probabilities: list[float]
    """The same, by the logits of the file; empty if the file was written, like the following ones."""
    divergences: list[float]
    """Kullback-Leibler divergence of this distribution from that of the file."""
    gaps: list[float]
    """Log-probability of the file's likeliest token less that of the token that is now likeliest, both by the
    file; 0 if they are the same token.
    """


AnyJob = Job | ProbeJob | BandwidthJob | TokenizeJob
Request = Text | Continue | Score
"""Requests to a worker with the provider `scorer`."""
Reply = Vocabulary | Tokens | Scored
"""Its replies; the vocabulary comes first, without a request."""
Event = (
    Phase
    | Imported
    | Probed
    | Loaded
    | TimedSample
    | Mark
    | Overhead
    | Digest
    | Done
    | Error
    | Bandwidth
    | Tokens
    | Vocabulary
    | Scored
)


class ProtocolError(ValueError):
    """A line that is not a message of this protocol; the text names what was received and the fix."""

    def __init__(self, received: str) -> None:
        super().__init__(f"{received}; run the worker and the harness of the same ggufbench version")


def encode(message: AnyJob | Request | Event) -> str:
    """One line of JSON, without its end. Raises ValueError for a number that is not finite."""
    header = {"protocol": VERSION, "type": type(message).__name__}
    return json.dumps({**header, **asdict(message)}, allow_nan=False)


def decode_job(line: str) -> AnyJob:
    """Parse a job. Raises ProtocolError."""
    return cast("AnyJob", _decode(line, get_args(AnyJob)))


def decode_text(line: str) -> Text:
    """Parse a text. Raises ProtocolError."""
    return cast("Text", _decode(line, [Text]))


def decode_request(line: str) -> Request:
    """Parse a request to a scorer. Raises ProtocolError."""
    return cast("Request", _decode(line, get_args(Request)))


def decode_event(line: str | bytes) -> Event:
    """Parse an event. Raises ProtocolError."""
    return cast("Event", _decode(line, get_args(Event)))


def _decode(line: str | bytes, expected: Iterable[type]) -> Any:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ProtocolError("this is not a JSON object")
    version, name = values.pop("protocol", None), values.pop("type", None)
    if version != VERSION:
        shown = "missing" if version is None else _shown(version)
        raise ProtocolError(f"its protocol version is {shown}, and {VERSION} is needed")
    kind = next((kind for kind in expected if kind.__name__ == name), None)
    if kind is None:
        raise ProtocolError(f"its type {_shown(name)} is unknown")
    return _build(kind, values, kind.__name__)


def _build(kind: type, values: dict[str, Any], where: str) -> Any:
    hints, needed = _shape(kind)
    unknown = next((name for name in values if name not in hints), None)
    if unknown is not None:
        raise ProtocolError(f"{where} has an unknown field {_shown(unknown)}")
    missing = next((name for name in needed if name not in values), None)
    if missing is not None:
        raise ProtocolError(f"{where} has no field {missing}")
    return kind(**{name: _convert(hints[name], value, f"{where}.{name}") for name, value in values.items()})


@cache
def _shape(kind: type) -> tuple[dict[str, Any], list[str]]:
    """Field types and required fields of a class, cached: finding them takes longer than reading a line."""
    needed = [field.name for field in fields(kind) if field.default is MISSING]
    return get_type_hints(kind), needed


@cache
def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Origin and arguments of a generic type, cached for the same reason."""
    return get_origin(hint), get_args(hint)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Convert the value to the field's type. Raises ProtocolError for a value of another type."""
    if hint in _EXACT and type(value) is hint:
        return value
    origin, arguments = _parts(hint)
    if origin is UnionType:  # a type or None
        return None if value is None else _convert(arguments[0], value, where)
    if origin is list and isinstance(value, list):
        item = arguments[0]
        return value if _are(item, value) else [_convert(item, entry, where) for entry in value]
    if origin is dict and isinstance(value, dict):
        item = arguments[1]
        ready = _are(item, value.values())
        return value if ready else {k: _convert(item, v, f"{where}.{k}") for k, v in value.items()}
    if is_dataclass(hint) and isinstance(value, dict):
        return _build(cast("type", hint), value, where)
    if hint is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    raise ProtocolError(f"{where} = {_shown(value)} is not {_WORDS.get(origin or hint, 'an object')}")


def _are(hint: Any, values: Collection[Any]) -> bool:
    """True if all values have the field's type; few calls, because a log has thousands of lines."""
    if hint not in (float, str) or not set(map(type, values)) <= {hint}:
        return False
    return hint is str or math.isfinite(sum(values))


_EXACT = {bool, int, str}
"""Types whose values JSON represents without loss."""

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    list: "a list",
}


def _shown(value: Any) -> str:
    return f"{json.dumps(value):.60}"
