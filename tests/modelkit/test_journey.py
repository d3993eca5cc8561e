"""From a safetensors folder to a benchmarked chat model, with the installed programs only."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("ggufbench")

APPLICATION = """
import sys
from ggufbench.chat import LlamaCppModelConfig, get_chat_model
config = LlamaCppModelConfig(model="tiny", model_path=sys.argv[1], n_ctx=256, max_tokens=8, seed=1)
print(len(get_chat_model(config).invoke("the model reads").content))
"""


def run(*command: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.real
def test_from_safetensors_to_a_benchmark(checkpoint, tmp_path, run_pytest):
    models = tmp_path / "models"
    models.mkdir()
    run(PROGRAM, "convert", checkpoint, models)
    done = run(PROGRAM, "quantize", models / "tiny-llama-BF16.gguf", models, "Q4_K_M")
    assert "loads in" in done.stdout
    small = models / "tiny-llama-Q4_K_M.gguf"

    listed = json.loads(run(PROGRAM, "models", "--json", "--models", models).stdout)
    assert [model["quantization"] for model in listed["models"]] == ["BF16", "Q4_K_M"]
    assert not any(model["synthetic"] for model in listed["models"])

    answer = run(PROGRAM, "chat", small, "the clock counts", "--max-tokens", "12")
    assert answer.stdout.strip() and re.search(r"^1?\d tokens in ", answer.stderr, re.MULTILINE)
    assert int(run(sys.executable, "-c", APPLICATION, small).stdout) > 0

    measured = run_pytest("--models", str(small), "--scenario", "cpu")
    assert measured.returncode == 0, measured.stdout
    records = [json.loads(path.read_text()) for path in run_pytest.results.glob("*/*.json")]
    cases = {
        record["case_id"].rpartition("-")[0]: record["outcome"] for record in records if "case_id" in record
    }
    assert cases == {"tiny-llama-Q4_K_M-cpu": "measured"}
