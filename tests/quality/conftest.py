"""A family of one tiny model in four quantizations, and scenarios that compare its answers."""

import shutil
from pathlib import Path

import pytest

from ggufbench.launching.launcher import Interpreter
from ggufbench.measuring.preparation import Request, prepare_run
from ggufbench.modelkit import SynthSpec, synthesize
from ggufbench.modelkit.quantization import quantize

SHIPPED = Path(__file__).resolve().parents[2] / "scenarios"
SCORE = """
provider = "scorer"
reference = "{reference}"
text = "text.txt"

[setting]
device = "cpu"
n_ctx = 512
n_batch = 128
n_ubatch = 128
n_threads = 1
{extra}

[workload]
prompt_tokens = 32
"""
TEXT = "The tide rises for six hours and falls for six; twelve boats wait at the wall.\n" * 16


@pytest.fixture(scope="session")
def family(tmp_path_factory) -> Path:
    """F16, Q8_0, Q4_0 and Q2_K of one model with random weights."""
    folder = tmp_path_factory.mktemp("family")
    largest = folder / "tide-F16.gguf"
    synthesize(largest, SynthSpec("llama", 4_000_000, "F16", vocabulary=2048))
    for quantization in ("Q8_0", "Q4_0", "Q2_K"):
        quantize(largest, folder / f"tide-{quantization}.gguf", quantization)
    return folder


@pytest.fixture(scope="session")
def score_scenarios(tmp_path_factory) -> Path:
    """`quality` compares files, `cache-q8_0` and `cache-f16` settings, all over a short text."""
    folder = tmp_path_factory.mktemp("score")
    shutil.copy(SHIPPED / "targets.toml", folder)
    (folder / "text.txt").write_text(TEXT)
    (folder / "quality.toml").write_text(SCORE.format(reference="file", extra=""))
    for kind in ("f16", "q8_0", "q4_0"):
        extra = f'type_k = "{kind}"\ntype_v = "{kind}"'
        (folder / f"cache-{kind}.toml").write_text(SCORE.format(reference="setting", extra=extra))
    return folder


@pytest.fixture(scope="session")
def plan_scores(score_scenarios, one_probe):
    """A function that plans the models of a folder with a scenario of `score_scenarios`."""

    def plan(folder: Path, scenario: str = "quality", **changes):
        request = Request(
            places=[folder],
            scenarios=[scenario],
            scenario_folder=score_scenarios,
            results=folder / "none",
            **changes,
        )
        return prepare_run(request, Interpreter())

    return plan
