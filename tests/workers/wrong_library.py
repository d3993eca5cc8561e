"""A worker with a bug: it registers RPC servers in the second copy of ggml, which `llama_cpp._ggml` opens.

Devices registered there look real. Without a list of devices, as here, libllama uses its own copy, which
knows none of them, and every layer goes to the CPU. Everything else is the real worker.
"""

import importlib
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import ggufbench.worker

entry = runpy.run_path(str(Path(ggufbench.worker.__file__).with_name("__main__.py")))
entry["_load_package"]()
native = importlib.import_module("ggufbench_worker.native")
real_symbols = native.ggml_symbols


def symbols_of_the_wrong_copy(api):
    from llama_cpp._ggml import libggml

    return real_symbols(SimpleNamespace(_lib=libggml, llama_supports_rpc=api.llama_supports_rpc))


engine = importlib.import_module("ggufbench_worker.engine")
real_params = engine.Engine._model_params


def params_without_devices(self):
    params = real_params(self)
    params.devices = None
    return params


native.ggml_symbols = symbols_of_the_wrong_copy
engine.Engine._model_params = params_without_devices
sys.exit(importlib.import_module("ggufbench_worker.session").main([]))
