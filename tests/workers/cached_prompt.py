"""A worker with a bug: it answers a repeated prompt from the cache, and reports it as evaluated.

LLAMA_TEST_BUG selects the bug (variables of that prefix reach a worker): `reuse` computes the last token
alone, like a binding that finds the prompt's prefix in its cache; `skip` forgets the rest of the prompt.
Everything else is the real worker.
"""

import importlib
import os
import runpy
import sys
from pathlib import Path
from time import perf_counter_ns

import ggufbench.worker

entry = runpy.run_path(str(Path(ggufbench.worker.__file__).with_name("__main__.py")))
entry["_load_package"]()
engine = importlib.import_module("ggufbench_worker.engine")
real_prompt = engine.Engine.prompt


def cached_prompt(self, number):
    if number == engine.WARMUP:
        return real_prompt(self, number)
    tokens = self._tokens("prompt", 0)
    if number == 0:
        real_prompt(self, 0)
    if os.environ["LLAMA_TEST_BUG"] == "skip":
        self._api.llama_memory_clear(self._memory, False)
    else:
        self._api.llama_memory_seq_rm(self._memory, 0, len(tokens) - 1, -1)
    last = (self._api.llama_token * 1)(tokens[-1])
    self._watch.start()
    start = perf_counter_ns()
    code = self._api.llama_decode(self._context, self._api.llama_batch_get_one(last, 1))
    self._api.llama_synchronize(self._context)
    stop = perf_counter_ns()
    evidence = self._watch.stop()
    self._check([code], self._job.workload.depth + len(tokens))
    return engine.Timing([(stop - start) / 1e9], len(tokens), evidence)


engine.Engine.prompt = cached_prompt
sys.exit(importlib.import_module("ggufbench_worker.session").main([]))
