"""A worker whose device reports an error after llama_decode and llama_synchronize have returned."""

import importlib
import runpy
import sys
from pathlib import Path

import ggufbench.worker

entry = runpy.run_path(str(Path(ggufbench.worker.__file__).with_name("__main__.py")))
entry["_load_package"]()
native = importlib.import_module("ggufbench_worker.native")
errors = native.NativeLog.errors


def late(self):
    line = "ggml_metal_synchronize: error: command buffer 0 failed with status 5"
    return f"{errors(self)}{line}; Insufficient Memory (kIOGPUCommandBufferCallbackErrorOutOfMemory)"


native.NativeLog.errors = late
sys.exit(importlib.import_module("ggufbench_worker.session").main([]))
