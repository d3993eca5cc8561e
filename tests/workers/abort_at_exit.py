"""A worker that finishes its work and then aborts at exit, as ggml's Metal backend does on macOS 15."""

import importlib
import os
import runpy
import sys
from pathlib import Path

import ggufbench.worker

entry = runpy.run_path(str(Path(ggufbench.worker.__file__).with_name("__main__.py")))
entry["_load_package"]()
code = importlib.import_module("ggufbench_worker.session").main([])
os.write(2, b"/build/ggml-metal-device.m:612: GGML_ASSERT([rsets->data count] == 0) failed\n")
if code:
    sys.exit(code)
os.abort()
