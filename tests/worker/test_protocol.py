"""The messages between worker and harness: each can be encoded and decoded, and any other line is refused."""

import json
from dataclasses import asdict, fields
from typing import get_args

import pytest

from ggufbench.launching.launcher import Interpreter, launch
from ggufbench.outcomes import Outcome
from ggufbench.worker import protocol
from ggufbench.worker.job import Job, Setting, Workload
from ggufbench.worker.protocol import (
    VERSION,
    ProbeJob,
    ProtocolError,
    decode_event,
    decode_job,
    decode_text,
    encode,
)

LIBRARY = protocol.LibraryFacts(
    versions={"python": "3.13"},
    system_info="AVX2 = 1",
    supports_rpc=True,
    supports_gpu_offload=False,
    devices=[protocol.DeviceFacts("CPU", "a processor", "cpu", None, 2**40)],
)
EVENTS = [
    protocol.Phase("import"),
    protocol.Imported(0.25, ["one line", "\udcff, which is not text"], LIBRARY),
    protocol.Probed(LIBRARY, "no CUDA-capable device", {"langchain": "langchain-core"}),
    protocol.Loaded(
        model_seconds=1.5,
        context_seconds=None,
        evidence={"wall_seconds": 1.5, "major_faults": 3.0},
        placement=protocol.Placement({"CPU": 3}, {"model": {"CPU": 100}}),
        effective=protocol.EffectiveSetting(n_ctx=256, description="llama 4M Q8_0"),
        devices=["CUDA0"],
        log=[],
    ),
    protocol.Loaded(1.0, 0.5, {}, None, protocol.EffectiveSetting(), [], []),
    protocol.TimedSample("decode", False, 2, 0.5, [0.25, 0.25], [], {"cpu_seconds": 0.5}),
    protocol.Mark("load", {"rss_bytes": 10**9}, {"CUDA0": 2**36}, ["a line"]),
    protocol.Overhead(2e-7),
    protocol.Digest("0123456789abcdef"),
    protocol.Done(),
    protocol.Error("load", "it does not fit"),
    protocol.Bandwidth(2, 1e10, True),
    protocol.Tokens([1, 2, 3]),
    protocol.Vocabulary(2048, 1, chat_template="{{ messages }}"),
    protocol.Scored([-1.5], [-1.25], [0.01], [0.0]),
]
JOBS = [
    Job("engine", "a.gguf", Setting("cpu", n_threads=2, repack=False), Workload(depth=100), 7, True),
    ProbeJob(rpc_servers="127.0.0.1:50052"),
    protocol.BandwidthJob([1, 2], 2**30, 15),
    protocol.TokenizeJob("a.gguf"),
]
REMEDY = "; run the worker and the harness of the same ggufbench version"


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_round_trip(event):
    line = encode(event)
    assert "\n" not in line
    assert decode_event(line.encode() + b"\n") == event
    assert hash(type(event)) and not hasattr(event, "__dict__")


@pytest.mark.parametrize("job", JOBS, ids=lambda job: type(job).__name__)
def test_jobs_round_trip(job):
    assert decode_job(encode(job)) == job


def test_texts_round_trip():
    text = protocol.Text('two\nlines, "quotes" and \udcff')
    assert decode_text(encode(text)) == text


def test_every_message_is_tested_here():
    assert {type(event) for event in EVENTS} == set(get_args(protocol.Event))
    assert {type(job) for job in JOBS} == set(get_args(protocol.AnyJob))


def line(changes=(), without=(), event=EVENTS[5]):
    """The line of a sample, with changed values."""
    values = {**json.loads(encode(event)), **dict(changes)}
    return json.dumps({name: value for name, value in values.items() if name not in without})


@pytest.mark.parametrize(
    ("received", "sentence"),
    [
        ("Welcome!", "this is not a JSON object"),
        ("[]", "this is not a JSON object"),
        ("[" * 100_000, "this is not a JSON object"),
        (line(without=["protocol"]), f"its protocol version is missing, and {VERSION} is needed"),
        (line({"protocol": VERSION + 1}), f"its protocol version is {VERSION + 1}, and {VERSION} is needed"),
        (line({"protocol": "1"}), f'its protocol version is "1", and {VERSION} is needed'),
        (line({"type": "Progress"}), 'its type "Progress" is unknown'),
        (line({"type": "Job"}), 'its type "Job" is unknown'),
        (line({"type": ["TimedSample"]}), 'its type ["TimedSample"] is unknown'),
        (line(without=["type"]), "its type null is unknown"),
        (line(without=["seconds"]), "TimedSample has no field seconds"),
        (line({"colour": "blue"}), 'TimedSample has an unknown field "colour"'),
        (line({"seconds": float("nan")}), "TimedSample.seconds = NaN is not a finite number"),
        (line({"seconds": float("-inf")}), "TimedSample.seconds = -Infinity is not a finite number"),
        (line().replace("0.5, ", "1e999, ", 1), "TimedSample.seconds = Infinity is not a finite number"),
        (line({"seconds": True}), "TimedSample.seconds = true is not a finite number"),
        (line({"seconds": "fast"}), 'TimedSample.seconds = "fast" is not a finite number'),
        (line({"tokens": 2.5}), "TimedSample.tokens = 2.5 is not a whole number"),
        (line({"warmup": 0}), "TimedSample.warmup = 0 is not true or false"),
        (line({"phase": None}), "TimedSample.phase = null is not a text"),
        (line({"token_seconds": 0.5}), "TimedSample.token_seconds = 0.5 is not a list"),
        (
            line({"token_seconds": [0.5, float("nan")]}),
            "TimedSample.token_seconds = NaN is not a finite number",
        ),
        (line({"token_seconds": [0.5, "1"]}), 'TimedSample.token_seconds = "1" is not a finite number'),
        (line({"token_seconds": [0.5, "x"]}), 'TimedSample.token_seconds = "x" is not a finite number'),
        (line({"evidence": [1]}), "TimedSample.evidence = [1] is not an object"),
        (line({"evidence": {"a": {}}}), "TimedSample.evidence.a = {} is not a finite number"),
        (line({"effective": {"n_ctx": "all"}}, event=EVENTS[3]), 'Loaded.effective.n_ctx = "all" is not a'),
        (line({"effective": 4096}, event=EVENTS[3]), "Loaded.effective = 4096 is not an object"),
        (line({"seconds": "x" * 1000}), f'TimedSample.seconds = "{"x" * 59} is not a finite number'),
    ],
)
def test_invalid_events_are_refused_with_one_message(received, sentence):
    with pytest.raises(ProtocolError) as refusal:
        decode_event(received)
    said = str(refusal.value)
    assert said.startswith(sentence) and said.endswith(REMEDY)
    assert "\n" not in said and len(said) < 200


def test_whole_numbers_are_accepted_but_not_huge_ones():
    assert decode_event(line({"seconds": 3})).seconds == 3.0
    with pytest.raises(ProtocolError, match="is not a finite number"):
        decode_event(line({"seconds": 10**400}))


def test_numbers_that_are_not_finite_are_not_sent():
    with pytest.raises(ValueError, match="JSON"):
        encode(protocol.Overhead(float("nan")))


def test_fields_with_defaults_are_optional_in_a_job():
    values = json.loads(encode(JOBS[0]))
    values["setting"] = {"device": "cpu"}
    del values["seed"], values["load_only"]
    assert decode_job(json.dumps(values)) == Job("engine", "a.gguf", Setting("cpu"), JOBS[0].workload)
    assert {field.name for field in fields(Setting)} == set(asdict(Setting("cpu")))


@pytest.mark.real
@pytest.mark.parametrize(
    ("received", "sentence"),
    [
        (json.dumps({"event": "done"}), "its protocol version is missing"),
        (encode(protocol.Done()).replace(f": {VERSION},", f": {VERSION + 1},"), "its protocol version is"),
        (line({"type": "Progress"}), 'its type "Progress" is unknown'),
        (line({"seconds": float("nan")}), "TimedSample.seconds = NaN is not a finite number"),
    ],
)
def test_a_foreign_worker_file_fails_with_the_message(tmp_path, received, sentence):
    entry = tmp_path / "worker.py"
    entry.write_text(f"print({received!r}, flush=True)\ninput()\n")
    ended = launch(ProbeJob(), lambda _phase: 30, interpreter=Interpreter(entry=entry))
    assert ended.outcome is Outcome.FAILED
    assert ended.reason.startswith(f"it printed {received.encode()[:80]!r}"[:-1])
    assert f" instead of an event: {sentence}" in ended.reason and ended.reason.endswith(REMEDY)
