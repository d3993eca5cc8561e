"""The depth of the engine's workload: the restored context answers like the evaluated one."""

import json
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import sys
from ggufbench.worker.engine import Engine
from ggufbench.worker.job import Job, Setting, Workload
from ggufbench.worker.native import Library

setting = Setting("cpu", n_ctx=1024, n_batch=64, n_ubatch=64)
engine = Engine(Library(), Job("engine", sys.argv[1], setting, Workload(8, 8, 600, 1)))
engine.load()
for restored in (False, True):
    assert (engine._depth_state is not None) is restored
    engine.prompt(1)
    row = engine._api.llama_get_logits_ith(engine._context, -1)
    print(row[: engine._vocabulary_size])
engine.close()
"""


@pytest.mark.real
@pytest.mark.parametrize("kind", ["sliding window", "recurrent state"])
def test_a_restored_depth_gives_the_same_answer(model_folder, write_tiny, tmp_path, kind):
    """A depth of 600 tokens exceeds the window of 128; a recurrent model has only its last state."""
    if kind == "sliding window":
        path = model_folder / "gpt-oss-tiny-MXFP4.gguf"
    else:
        path = write_tiny("mamba", tmp_path / "mamba-tiny-F32.gguf")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    rows = [np.array(json.loads(line)) for line in done.stdout.splitlines()]
    evaluated, restored = (row - row.max() - np.log(np.exp(row - row.max()).sum()) for row in rows)
    divergence = float((np.exp(evaluated) * (evaluated - restored)).sum())
    assert evaluated.std() > 0.1
    assert divergence < 1e-3, "the cells have another order, which rounds differently"
