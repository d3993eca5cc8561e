"""A worker that gives the installed llama-cpp-python the interface of an older release.

It has the structures and functions of such a release. The installed library does the work, so that the
settings can be read back from it. LLAMA_TEST_SHAPE names the older part: variables of that prefix reach a
worker. Everything else is the real worker.

`flags`: booleans instead of load_mode, as in 0.3.20. `no-dio`: before direct I/O. `bool-flash`: flash
attention is only on or off. `no-repack`: no choice of buffer types. `too-old`: no function for the memory of
a context.
"""

import ctypes
import importlib
import os
import runpy
import sys
from pathlib import Path

import ggufbench.worker

SHAPE = os.environ["LLAMA_TEST_SHAPE"]
MISSING = {"llama_process", "llama_batch_ext_init", "ggml_commit", "ggml_version"}
if SHAPE == "too-old":
    MISSING.add("llama_get_memory")

entry = runpy.run_path(str(Path(ggufbench.worker.__file__).with_name("__main__.py")))
entry["_load_package"]()
native = importlib.import_module("ggufbench_worker.native")
real = native.import_bindings()


def older(structure, without, added):
    kept = [entry for entry in structure._fields_ if entry[0] not in without]
    fields = [*kept, *((name, ctypes.c_bool) for name in added)]
    return type(structure.__name__, (ctypes.Structure,), {"_fields_": fields})


FLAGS = () if SHAPE == "bool-flash" else ("use_mmap", "use_direct_io", "use_mlock")
if SHAPE == "no-dio":
    FLAGS = ("use_mmap", "use_mlock")
NEWER = {"load_mode", "lazy_mode", "load_mtp"} if FLAGS else set()
if SHAPE == "no-repack":
    NEWER.add("use_extra_bufts")
ModelParams = older(real.llama_model_params, NEWER, FLAGS)
BOOL_FLASH = SHAPE == "bool-flash"
ContextParams = older(
    real.llama_context_params,
    {"flash_attn_type", "swa_full"} if BOOL_FLASH else set(),
    ("flash_attn",) if BOOL_FLASH else (),
)


def copy(source, target):
    """Copy the fields; a name has one meaning in both."""
    names = {name for name, *_ in target._fields_}
    for name, *_ in source._fields_:
        if name in names:
            setattr(target, name, getattr(source, name))
    return target


class Binding:
    """The binding with the interface of that release."""

    def __getattr__(self, name):
        if name in MISSING:
            raise AttributeError(name)
        return getattr(real, name)

    @property
    def _lib(self):
        return Exports()

    def llama_model_default_params(self):
        params = copy(real.llama_model_default_params(), ModelParams())
        if FLAGS:
            params.use_mmap = True
        return params

    def llama_context_default_params(self):
        return copy(real.llama_context_default_params(), ContextParams())

    def llama_model_load_from_file(self, path, params):
        newer = copy(params, real.llama_model_default_params())
        if FLAGS:
            direct = getattr(params, "use_direct_io", False)
            newer.load_mode = 4 if direct else params.use_mmap + 2 * params.use_mlock
        return real.llama_model_load_from_file(path, newer)

    def llama_init_from_model(self, model, params):
        newer = copy(params, real.llama_context_default_params())
        if BOOL_FLASH:
            newer.flash_attn_type = int(params.flash_attn)
        return real.llama_init_from_model(model, newer)


class Exports:
    """The shared library, without the functions that release does not export."""

    def __getattr__(self, name):
        if name in MISSING:
            raise AttributeError(name)
        return getattr(real._lib, name)


native.import_bindings = Binding
sys.exit(importlib.import_module("ggufbench_worker.session").main([]))
