"""A worker that breaks at its first prompt, as LLAMA_TEST_BREAKS requests: crash, hang or fail.

Everything before that is the real worker.
"""

import importlib
import os
import runpy
import signal
import sys
import time
from pathlib import Path

import ggufbench.worker

entry = runpy.run_path(str(Path(ggufbench.worker.__file__).with_name("__main__.py")))
entry["_load_package"]()
engine = importlib.import_module("ggufbench_worker.engine")
channel = importlib.import_module("ggufbench_worker.channel")


def prompt(self, number):
    way = os.environ["LLAMA_TEST_BREAKS"]
    if way == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if way == "hang":
        time.sleep(1000)
    raise channel.ProviderError("it failed on purpose")


engine.Engine.prompt = prompt
sys.exit(importlib.import_module("ggufbench_worker.session").main([]))
