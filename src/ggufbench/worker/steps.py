"""Decode one token after the other, with every call prepared before the clock starts.

If llama.cpp has `llama_process`, which llama-bench also calls, its arguments are pointers; `llama_decode`
takes a structure by value, which costs about a microsecond more per call from Python.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from time import perf_counter_ns
from typing import Any

_DECODE = 1
"""`LLAMA_PROCESS_TYPE_DECODE`."""
_POSITION_DIMENSIONS = 4
"""Maximum number of positions per token in some models; all are equal for text."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A function of the library and its arguments: one iterable per argument, with one value per token."""

    function: Any
    arguments: Sequence[Iterable[Any]]
    signature: Sequence[Any]
    """The types of the arguments."""

    def doing_nothing(self, address: int) -> Steps:
        """The same calls to the function at that address, which does nothing."""
        return Steps(ctypes.CFUNCTYPE(None, *self.signature)(address), self.arguments, self.signature)


@contextmanager
def prepared(api: Any, context: int, ids: Sequence[int], position: int) -> Iterator[Steps]:
    """The steps that decode these tokens starting at this position, with logits for each."""
    if not hasattr(api, "llama_process"):
        tokens = [(api.llama_token * 1)(token) for token in ids]
        batches = [api.llama_batch_get_one(token, 1) for token in tokens]
        signature = (ctypes.c_void_p, api.llama_batch)
        yield Steps(api.llama_decode, (repeat(ctypes.c_void_p(context)), batches), signature)
        return
    extended = [_extended(api, context, token, position + index) for index, token in enumerate(ids)]
    arguments = (repeat(ctypes.c_void_p(context)), repeat(ctypes.c_int(_DECODE)), extended)
    try:
        yield Steps(api.llama_process, arguments, (ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p))
    finally:
        for batch in extended:
            api.llama_batch_ext_free(batch)


def run(steps: Steps, synchronize: Any, context: int) -> tuple[int, list[int]]:
    """Run and time the steps: the first error code, and the clock before each step and after the last, in ns.

    The loop runs no bytecode: when a token ends, the weights have replaced the interpreter in the nearest
    caches, so each of its instructions is slow.
    """
    loop = zip(  # for each token: decode, synchronize, read the clock; the shortest argument ends it
        map(steps.function, *steps.arguments),
        map(synchronize, repeat(ctypes.c_void_p(context))),
        iter(perf_counter_ns, None),
        strict=False,
    )
    start = perf_counter_ns()
    timed = list(loop)
    code = next((code for code, _, _ in timed if code), 0)
    return code, [start, *(stop for _, _, stop in timed)]


def _extended(api: Any, context: int, token: int, position: int) -> ctypes.c_void_p:
    batch = ctypes.c_void_p(api.llama_batch_ext_init(context))
    index = api.llama_batch_ext_add_token(batch, 0, token)
    positions = (api.llama_pos * _POSITION_DIMENSIONS)(*[position] * _POSITION_DIMENSIONS)
    api.llama_batch_ext_set_pos(batch, index, positions)
    api.llama_batch_ext_set_output_logits(batch, index, True)
    return batch
