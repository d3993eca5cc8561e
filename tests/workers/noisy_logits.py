"""A worker whose logits have random noise: a build that computes wrongly and does not crash.

`LLAMA_TEST_NOISE` is the standard deviation of the noise, `LLAMA_TEST_FIRST` the position where it begins.
"""

import os
import sys
from pathlib import Path

_SOURCE = Path(__file__).resolve().parents[2] / "src"
sys.path.insert(0, str(_SOURCE))

from ggufbench.worker import scorer, session  # noqa: E402

_decode = scorer.Scorer._decode


def noisy(self, ids, start, outputs):
    import numpy as np

    rows = _decode(self, ids, start, outputs)
    if rows is None or start + len(ids) <= int(os.environ.get("LLAMA_TEST_FIRST", "0")):
        return rows
    noise = np.random.default_rng(start).normal(0, float(os.environ["LLAMA_TEST_NOISE"]), rows.shape)
    return rows + noise.astype(np.float32)


scorer.Scorer._decode = noisy
sys.exit(session.main(sys.argv[1:]))
