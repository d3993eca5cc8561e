"""`ggufbench verify --perplexity`: what both programs read, and agreement, difference and failure."""

import json
import shutil
import sys
from pathlib import Path

import numpy
import pytest

from ggufbench.comparing.llama_perplexity import chunks_of_text, stored_divergences
from ggufbench.modelkit import SynthSpec, synthesize

FAKE = Path(__file__).parents[1] / "workers" / "fake_llama_perplexity.py"
SCENARIO = """
provider = "scorer"
text = "text.txt"
[setting]
device = "cpu"
n_ctx = 256
n_batch = 128
n_ubatch = 128
n_threads = 1
[workload]
prompt_tokens = 32
"""


def test_chunks_are_those_of_llama_perplexity():
    """The first token of each chunk is replaced, and an incomplete last one is left out."""
    assert chunks_of_text([5, 6, 7, 8, 9, 10], 3, 1) == [[1, 5, 6], [1, 8, 9]]
    assert chunks_of_text([5, 6, 7, 8, 9, 10], 3, None) == [[5, 6, 7], [8, 9, 10]]
    assert chunks_of_text([5], 3, 1) == []


def test_a_stored_reference_has_steps_and_an_end(tmp_path):
    """Worked out by hand: two tokens of probability 1/2, and one that is too improbable to be stored."""
    reference, candidate = tmp_path / "reference", tmp_path / "candidate"
    numpy.array([[0, 0, -40]], numpy.float32).tofile(reference)
    numpy.array([[0, numpy.log(3), -40]], numpy.float32).tofile(candidate)
    (found,) = stored_divergences(reference, candidate, 3)
    assert found == pytest.approx(0.5 * numpy.log(2) + 0.5 * numpy.log(2 / 3), rel=1e-4)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """One tiny model in F16 and in Q8_0, with random weights from one seed."""
    folder = tmp_path_factory.mktemp("pair")
    for quantization in ("F16", "Q8_0"):
        spec = SynthSpec("llama", 4_000_000, quantization, vocabulary=2048)
        synthesize(folder / f"tide-{quantization}.gguf", spec)
    return folder


@pytest.fixture
def run(ggufbench, pair, tmp_path, monkeypatch):
    """A function that runs the command with the fake program in a mode."""
    scenarios = tmp_path / "scenarios"
    scenarios.mkdir()
    shutil.copy(Path(__file__).parents[2] / "scenarios" / "targets.toml", scenarios)
    (scenarios / "quality.toml").write_text(SCENARIO)
    (scenarios / "text.txt").write_text("The tide rises for six hours and falls for six.\n" * 12)
    monkeypatch.setenv("LLAMA_FAKE_FOLDER", str(tmp_path))

    def start(mode: str, *more: str):
        program = tmp_path / "fake-llama-perplexity"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" {mode} "$@"\n')
        program.chmod(0o755)
        return ggufbench("verify", "--perplexity", program, "--models", pair, "--scenarios", scenarios, *more)

    return start


@pytest.mark.real
def test_a_difference_exits_10_and_agreement_0(run, tmp_path):
    done = run("0.5", "--json")
    (case,) = json.loads(done.stdout)["cases"]
    assert (done.returncode, case["agrees"], case["theirs"]) == (10, False, 0.5)
    assert case["tokens"] > 50 and 0 < case["ours"] == pytest.approx(case["stored"], rel=0.05)

    agreeing = run(f"{case['stored']:.9f}")
    assert agreeing.returncode == 0, agreeing.stdout + agreeing.stderr
    assert "agree within 0.1 % in 1 of 1 case" in " ".join(agreeing.stdout.split())
    assert "tide-F16-quality" in agreeing.stdout and "was skipped: it is the largest file" in agreeing.stdout

    reference, candidate = (tmp_path / "arguments").read_text().splitlines()[:2]
    assert "tide-F16.gguf" in reference and reference.endswith("base.bin")
    assert "tide-Q8_0.gguf" in candidate and candidate.endswith("--kl-divergence")
    assert "-c 32 -b 32 -ub 32 -t 1 -tb 1 -fa auto -ctk f16 -ctv f16 -dev none -ngl 0" in candidate


@pytest.mark.real
@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("fails", "failed with"),
        ("fails", "(exit 3): fake: no such option"),
        ("silent", "printed no mean divergence for tide-Q8_0-quality-"),
    ],
)
def test_a_program_that_breaks_exits_2_with_its_words(run, mode, words):
    done = run(mode)
    assert done.returncode == 2 and words in done.stderr


def test_one_program_must_be_given(ggufbench, tmp_path):
    neither, both = ggufbench("verify"), ggufbench("verify", "--llama-bench", "a", "--perplexity", "b")
    absent = ggufbench("verify", "--perplexity", tmp_path / "absent")
    assert (neither.returncode, both.returncode, absent.returncode) == (2, 2, 2)
    assert "either --llama-bench PATH or --perplexity PATH" in neither.stderr == both.stderr
    assert "there is no llama-perplexity at" in absent.stderr
