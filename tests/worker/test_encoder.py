"""Embedding models, rerankers and encoder-decoder models: their vectors, their records, and broken ones."""

import json
import math
import operator
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ggufbench.discovery import discover
from ggufbench.launching.launcher import Interpreter
from ggufbench.measuring.case import measure_case
from ggufbench.measuring.preparation import Request, prepare_run
from ggufbench.modelkit.load_test import load_test
from ggufbench.outcomes import Outcome
from ggufbench.records.schema import Record
from ggufbench.report.content import Content
from ggufbench.report.page.view import page_of
from ggufbench.report.text.terminal import render, results_table

ENCODE = Path(__file__).parents[1] / "workers" / "encode.py"
IDS = [[508, 7, 300, 41, 511], [508, 90, 511], [508, 12, 12, 13, 200, 201, 202, 511]]
TEXTS = [
    "The cat sits on the mat.",
    "A kitten rests on a rug.",
    "Interest rates were raised by the central bank on Thursday, for the third time this year.",
]
SCENARIO = """
provider = "{provider}"
[setting]
device = "cpu"
n_ctx = 256
n_batch = 256
n_ubatch = 256
n_threads = 1
[workload]
{workload}
repetitions = 2
launches = 2
cold_launches = 0
[tolerance]  # interference on this machine must not fail these tests
most_waiting = 1
most_other_work = 1
most_stolen = 1
most_disk_reads = 1000000
"""


def encoded(*asked: dict) -> list[dict]:
    done = subprocess.run(
        [sys.executable, str(ENCODE)], input=json.dumps(asked), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def cosine(first, second) -> float:
    return sum(map(operator.mul, first, second)) / math.hypot(*first) / math.hypot(*second)


@pytest.mark.real
def test_a_batch_gives_the_vectors_of_its_sequences(encoder_folder):
    """Every pooling, with and without a KV cache: the sequences of a batch do not see each other."""
    paths = sorted(path for path in encoder_folder.glob("*.gguf") if "t5" not in path.name)
    answers = encoded(*({"path": str(path), "ids": IDS} for path in paths))
    vectors = {path.stem: answer["together"] for path, answer in zip(paths, answers, strict=True)}
    for answer in answers:
        for together, alone in zip(answer["together"], answer["alone"], strict=True):
            assert together == pytest.approx(alone, rel=1e-3, abs=1e-4)
        assert answer["together"][0] != answer["together"][2]
    assert {name: len(found[0]) for name, found in vectors.items()} == {
        "bert-cls-F32": 64, "bert-last-F32": 64, "bert-mean-F32": 64, "bert-none-F32": 64,
        "bert-rank-F32": 1, "causal-F32": 64,
    }  # fmt: skip
    assert vectors["bert-none-F32"] == vectors["bert-last-F32"]
    assert cosine(vectors["bert-cls-F32"][0], vectors["bert-mean-F32"][0]) < 0.99


@pytest.mark.nightly
def test_vectors_equal_those_of_transformers(minilm, minilm_checkpoint):
    """The converted all-MiniLM and the original, for the same tokens."""
    import torch
    from transformers import AutoModel

    (answer,) = encoded({"path": str(minilm), "texts": TEXTS})
    original = AutoModel.from_pretrained(minilm_checkpoint, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = [
            original(torch.tensor([ids])).last_hidden_state[0].mean(0).tolist() for ids in answer["ids"]
        ]
    for kind in ("together", "alone"):
        assert min(map(cosine, answer[kind], expected)) >= 0.999
    cats, finance = cosine(*answer["alone"][:2]), cosine(answer["alone"][0], answer["alone"][2])
    assert cats > 0.5 > 0.2 > finance


@pytest.fixture
def measured(tmp_path, encoders, one_probe, make_bench, scenario_folder):
    """A function that measures a model with a provider."""

    def measure(path: Path, provider: str = "encoder", workload: str = "prompt_tokens = 24\nsequences = 3"):
        (tmp_path / "targets.toml").write_text((scenario_folder / "targets.toml").read_text())
        text = SCENARIO.format(provider=provider, workload=workload)
        (tmp_path / "mine.toml").write_text(text)
        request = Request([path], scenario_folder=tmp_path, results=tmp_path / "none")
        prepared = prepare_run(request, Interpreter())
        (case,) = prepared.cases
        assert case.skip is None
        return measure_case(case, make_bench(prepared))

    return measure


def shown_at_the_end(record: Record) -> str:
    """The table that a run prints."""
    return render(results_table([record], (), 160), 160, color=False)


@pytest.mark.real
@pytest.mark.parametrize("name", ["bert-mean", "t5"])
def test_new_files_of_each_kind_are_loaded_once(encoder_folder, name):
    """The test that `convert` and `quantize` make."""
    loaded = load_test(encoder_folder / f"{name}-F32.gguf")
    assert loaded.problem is None and loaded.seconds > 0


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "kind", "pooling"), [("bert-cls", "embedding", "cls"), ("bert-rank", "reranker", "rank")]
)
def test_record_of_an_encoder(measured, encoder_folder, name, kind, pooling):
    record = measured(encoder_folder / f"{name}-F32.gguf")
    assert record.outcome is Outcome.MEASURED, record.reason
    assert (record.model.kind, record.model.pooling) == (kind, pooling)
    workload = record.workload
    assert (workload.prompt_tokens, workload.sequences, workload.generated_tokens) == (24, 3, 0)
    samples = [s for launch in record.launches for s in launch.samples if s.phase == "encode"]
    assert {sample.tokens for sample in samples} == {72} and len(samples) == 6  # with a warm-up each
    rate, seconds = record.summary["encode_tokens_per_second"], record.summary["encode_seconds"]
    assert rate.minimum == pytest.approx(72 / seconds.maximum)
    assert {"ready_seconds", "peak_rss_bytes"} < set(record.summary)
    assert not any(metric.startswith(("decode_tok", "prompt", "token")) for metric in record.summary)
    first, second = (launch.digest for launch in record.launches)
    assert first == second is not None
    assert [target.status for target in record.targets if target.name != "cold load"] == ["met", "met"]
    assert Record.model_validate_json(record.model_dump_json()) == record
    assert "Encode" in shown_at_the_end(record) and "Prompt" not in shown_at_the_end(record)


@pytest.mark.real
def test_record_of_an_encoder_decoder(measured, encoder_folder):
    record = measured(
        encoder_folder / "t5-F32.gguf", "encoder-decoder", "prompt_tokens = 40\ngenerated_tokens = 6"
    )
    assert record.outcome is Outcome.MEASURED, record.reason
    tokens = {s.phase: s.tokens for s in record.launches[0].samples if not s.warmup}
    assert tokens == {"load": 0, "first_decode": 1, "encode": 40, "decode": 6}
    assert {"encode_tokens_per_second", "decode_tokens_per_second", "token_p50_seconds"} < set(record.summary)
    assert "prompt_tokens_per_second" not in record.summary
    assert record.launches[0].digest == record.launches[1].digest
    assert re.search(r"Encode +Decode", shown_at_the_end(record)) and "Prompt" not in shown_at_the_end(record)
    page = page_of(Content([record]), [])
    assert list(page.columns) == ["Load", "Cold load", "Peak memory", "Encode", "Decode", "Size"]
    assert page.results is not None and list(page.results.columns) == ["Load", "Memory", "Encode", "Decode"]


@pytest.mark.real
def test_vectors_that_are_not_finite_fail_the_case(measured, encoders, tmp_path):
    record = measured(encoders.write_bert(tmp_path / "nan-F32.gguf", broken=True))
    assert (record.outcome, record.phase) == (Outcome.FAILED, "first_decode")
    assert "the vector of sequence 1 of 1 was not finite" in record.reason


def test_kinds_of_the_tiny_models(encoder_folder):
    kinds = {model.name: (model.kind, model.pooling) for model in discover([encoder_folder]).models}
    assert kinds == {
        "bert-cls": ("embedding", "cls"), "bert-last": ("embedding", "last"),
        "bert-mean": ("embedding", "mean"), "bert-none": ("embedding", "none"),
        "bert-rank": ("reranker", "rank"), "causal": ("embedding", "last"),
        "t5": ("encoder-decoder", "none"),
    }  # fmt: skip
