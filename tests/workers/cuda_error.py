"""A worker with a fake of CUDA: its first prompt ends as ggml's CUDA backend ends a process.

The lines and their order are those of ggml_cuda_error and ggml_abort in llama.cpp 0c1e570; the variable
CUDA_TEST_ERROR contains the message. Everything before that is the real worker.
"""

import importlib
import os
import runpy
import sys
from pathlib import Path

import ggufbench.worker

entry = runpy.run_path(str(Path(ggufbench.worker.__file__).with_name("__main__.py")))
entry["_load_package"]()
engine = importlib.import_module("ggufbench_worker.engine")


def prompt(self, number):
    source = "/build/ggml-cuda.cu"
    lines = [
        f"CUDA error: {os.environ['CUDA_TEST_ERROR']}",
        f"  current device: 0, in function alloc at {source}:612",
        "  cuMemCreate(&handle, reserve_size, &prop, 0)",
        f"{source}:109: CUDA error",
    ]
    os.write(2, "".join(f"{line}\n" for line in lines).encode())
    os.abort()


engine.Engine.prompt = prompt
sys.exit(importlib.import_module("ggufbench_worker.session").main([]))
