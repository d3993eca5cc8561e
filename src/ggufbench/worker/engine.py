"""The `engine` provider: llama_decode and llama_synchronize, without Python code between two tokens.

It times the same work as llama-bench: random tokens (one fixed token would send a mixture of experts down the
same path every time), logits for the last token of a batch only, one synchronisation at the end of a prompt
and one after each decoded token.
"""

from __future__ import annotations

import ctypes
import os
import random
import re
from itertools import pairwise
from time import perf_counter_ns
from typing import Any

from . import releases, steps
from .channel import ProviderError
from .evidence import Watch
from .job import Job
from .native import Library, attach_threadpool, device_list
from .protocol import EffectiveSetting
from .provider import DIGEST_TOKENS, WARMUP, Loading, Timing, digest_of, digest_prompt

_DECODE_ERRORS = {
    1: "the context is full",
    2: "the library aborted the computation",
    -1: "the library refused the batch",
    -2: "failed to allocate memory for the computation",
    -3: "a device failed to compute",
}
_DEVICE_FAILED = re.compile(
    r"command buffer \d+ failed|OutOfMemory|ErrorOutOf\w+Memory|ErrorDeviceLost|ERROR_OUT_OF_RESOURCES"
)
"""Errors of Metal, Vulkan and SYCL that arrive after `llama_decode` has returned 0 for submitted work."""

_WARMUP_TOKENS = 8
"""Tokens decoded before the first timed decode: enough for graph reuse and lazily touched pages."""
_OVERHEAD_TOKENS = 2000
SETTLING_SECONDS = 0.01
"""Duration of decoding just before a clock starts: a process that waited for its harness has cold caches."""


class Engine:
    """One model and one context, driven through llama.cpp's C interface. Seconds are of a monotonic clock."""

    def __init__(self, library: Library, job: Job) -> None:
        self._library = library
        self._api = library.api
        self._job = job
        self._model: Any = None
        self._context: Any = None
        self._threadpool: Any = None
        self._depth_state: Any = None
        self._watch = Watch()
        self._devices = library.devices_of(job.setting)
        self._device_list = device_list(self._devices)

    def device_free_bytes(self) -> dict[str, int]:
        """Free bytes of each device that the setting may use."""
        return self._library.free_bytes(self._devices)

    def drain_log(self) -> list[str]:
        """Lines that llama.cpp has logged since the last call."""
        return self._library.log.drain()

    def load(self) -> Loading:
        """Load the model and make its context."""
        model_params = self._model_params()
        context_params = self._context_params()
        self._watch.start()
        start = perf_counter_ns()
        self._model = self._api.llama_model_load_from_file(os.fsencode(self._job.model_path), model_params)
        if not self._model:
            raise ProviderError(self._library.log.errors() or "llama.cpp could not load the file")
        loaded = perf_counter_ns()
        self._context = self._api.llama_init_from_model(self._model, context_params)
        if not self._context:
            raise ProviderError(self._library.log.errors() or "llama.cpp could not create a context")
        ready = perf_counter_ns()
        evidence = self._watch.stop()
        self._prepare()
        return Loading((loaded - start) / 1e9, (ready - loaded) / 1e9, evidence)

    def effective(self) -> EffectiveSetting:
        """The settings as the library holds them now; the log contains the rest."""
        api, context = self._api, self._context
        return EffectiveSetting(
            n_ctx=api.llama_n_ctx(context),
            n_batch=api.llama_n_batch(context),
            n_ubatch=api.llama_n_ubatch(context),
            n_threads=api.llama_n_threads(context),
            n_threads_batch=api.llama_n_threads_batch(context),
            description=api_text(api.llama_model_desc, self._model),
        )

    def first_decode(self) -> Timing:
        """The first token after loading, from an empty context."""
        ids = list(self._tokens("first", 0, 1))
        with steps.prepared(self._api, self._context, ids, position=0) as ready:
            self._watch.start()
            return self._decode_tokens(ready, 1, position=0)

    def prompt(self, number: int) -> Timing:
        """Evaluate a prompt at the workload's depth.

        The same number is the same prompt. The warm-up fills a whole ubatch, so that every page of the
        compute buffers has been touched when memory is read.
        """
        workload = self._job.workload
        count = self._warmup_size() if number == WARMUP else workload.prompt_tokens
        tokens = self._tokens("prompt", number, count)
        chunks = self._chunks(tokens)
        decode, synchronize, context = self._api.llama_decode, self._api.llama_synchronize, self._context
        self._watch.start()
        self._settle()
        self._go_to_depth()
        start = perf_counter_ns()
        codes = [decode(context, chunk) for chunk in chunks]
        synchronize(context)
        stop = perf_counter_ns()
        evidence = self._watch.stop()
        self._check(codes, workload.depth + count)
        return Timing([(stop - start) / 1e9], count, evidence)

    def decode(self, number: int) -> Timing:
        """Generate tokens one by one at the workload's depth; the same number gives the same tokens."""
        workload = self._job.workload
        count = min(_WARMUP_TOKENS, self._available()) if number == WARMUP else workload.generated_tokens
        ids = list(self._tokens("decode", number, count))
        with steps.prepared(self._api, self._context, ids, position=workload.depth) as ready:
            self._watch.start()
            self._settle()
            self._go_to_depth()
            return self._decode_tokens(ready, count, position=workload.depth)

    def loop_overhead(self) -> float:
        """Seconds per token of the timed loop itself, measured around calls that do nothing.

        The calls have the signatures of the real ones, so that their arguments cost the same as in a sample.
        """
        address = ctypes.cast(self._api.llama_max_devices, ctypes.c_void_p).value or 0
        synchronize = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
        ids = [0] * _OVERHEAD_TOKENS
        with steps.prepared(self._api, self._context, ids, position=0) as real:
            _, stamps = steps.run(real.doing_nothing(address), synchronize, self._context)
        return (stamps[-1] - stamps[0]) / 1e9 / _OVERHEAD_TOKENS

    def digest(self) -> str:
        """Hash of the 32 greedy tokens after a fixed prompt: equal hashes mean equal work."""
        ids = digest_prompt(self._vocabulary_size)
        tokens = (self._api.llama_token * len(ids))(*ids)
        self._api.llama_memory_clear(self._memory, False)
        codes = [self._api.llama_decode(self._context, chunk) for chunk in self._chunks(tokens)]
        self._check(codes, len(ids))
        sampler = self._api.llama_sampler_init_greedy()
        try:
            likeliest = [self._follow(sampler, len(ids) + n) for n in range(DIGEST_TOKENS)]
        finally:
            self._api.llama_sampler_free(sampler)
        return digest_of(likeliest)

    def _follow(self, sampler: Any, position: int) -> int:
        """The likeliest next token, which is then part of the context."""
        token = int(self._api.llama_sampler_sample(sampler, self._context, -1))
        one = (self._api.llama_token * 1)(token)
        code = self._api.llama_decode(self._context, self._api.llama_batch_get_one(one, 1))
        self._check([code], position + 1)
        return token

    def close(self) -> None:
        """Free the context and the model, as a closing application would."""
        if self._context:
            self._api.llama_free(self._context)
        if self._threadpool:
            self._library.ggml.ggml_threadpool_free(self._threadpool)
        if self._model:
            self._api.llama_model_free(self._model)
        self._context = self._model = None

    def _model_params(self) -> Any:
        return releases.model_params(self._api, self._job.setting, self._device_list, self._library.version)

    def _context_params(self) -> Any:
        params = releases.context_params(self._api, self._job.setting, self._library.version)
        releases.expect_one_output(params)
        return params

    def _prepare(self) -> None:
        vocabulary = self._api.llama_model_get_vocab(self._model)
        self._vocabulary_size = self._api.llama_vocab_n_tokens(vocabulary)
        self._bos = (
            self._api.llama_vocab_bos(vocabulary) if self._api.llama_vocab_get_add_bos(vocabulary) else None
        )
        self._memory = self._api.llama_get_memory(self._context)
        threads = max(self._job.setting.n_threads, self._job.setting.n_threads_batch)
        self._threadpool = attach_threadpool(self._library.ggml, self._context, threads)

    def _tokens(self, kind: str, number: int, count: int | None = None) -> Any:
        """Random tokens; the same kind and number always give the same ones."""
        workload = self._job.workload
        counts = {"prompt": workload.prompt_tokens, "decode": workload.generated_tokens}
        source = random.Random(f"{self._job.seed} {kind} {number}")  # noqa: S311 (a workload, no secret)
        ids = [source.randrange(self._vocabulary_size) for _ in range(count or counts[kind])]
        if self._bos is not None and workload.depth == 0:
            ids[0] = self._bos
        return (self._api.llama_token * len(ids))(*ids)

    def _warmup_size(self) -> int:
        workload = self._job.workload
        ubatch = int(self._api.llama_n_ubatch(self._context))
        return max(workload.prompt_tokens, min(ubatch, self._available()))

    def _available(self) -> int:
        """Tokens after the depth that fit into the requested context.

        llama.cpp makes the context longer than requested, possibly longer than the model's learned positions.
        """
        return self._job.setting.n_ctx - self._job.workload.depth

    def _chunks(self, tokens: Any) -> list[Any]:
        """Batches of at most n_batch tokens, the library's limit; the caller keeps the tokens alive."""
        size, token = self._api.llama_n_batch(self._context), self._api.llama_token
        chunks = []
        for start in range(0, len(tokens), size):
            count = min(size, len(tokens) - start)
            part = (token * count).from_buffer(tokens, start * ctypes.sizeof(token))
            chunks.append(self._api.llama_batch_get_one(part, count))
        return chunks

    def _decode_tokens(self, ready: steps.Steps, count: int, position: int) -> Timing:
        """Time the prepared tokens; the watch has been started."""
        code, stamps = steps.run(ready, self._api.llama_synchronize, self._context)
        evidence = self._watch.stop()
        self._check([code], position + count)
        seconds = [(stop - start) / 1e9 for start, stop in pairwise(stamps)]
        return Timing(seconds, count, evidence)

    def _settle(self) -> None:
        """Decode for a moment, so that the caches are as warm as in a program that measures without pause.

        The context is emptied after every second token and so needs no extra space; the caller fills it
        again.
        """
        one = (self._api.llama_token * 1)(0)
        batch = self._api.llama_batch_get_one(one, 1)
        self._api.llama_memory_clear(self._memory, False)
        end = perf_counter_ns() + int(SETTLING_SECONDS * 1e9)
        while True:
            for _ in range(2):
                self._api.llama_decode(self._context, batch)
                self._api.llama_synchronize(self._context)
            self._api.llama_memory_clear(self._memory, False)
            if perf_counter_ns() >= end:
                return

    def _go_to_depth(self) -> None:
        """Empty the context, then bring it to the workload's depth, from saved state if there is one."""
        self._api.llama_memory_clear(self._memory, False)
        depth = self._job.workload.depth
        if not depth or self._restore_depth():
            return
        tokens = self._tokens("depth", 0, depth)
        codes = [self._api.llama_decode(self._context, chunk) for chunk in self._chunks(tokens)]
        self._check(codes, depth)
        self._api.llama_synchronize(self._context)
        self._save_depth()

    def _save_depth(self) -> None:
        size = self._api.llama_state_seq_get_size(self._context, 0)
        state = (ctypes.c_uint8 * size)()
        if size and self._api.llama_state_seq_get_data(self._context, state, size, 0) == size:
            self._depth_state = state

    def _restore_depth(self) -> bool:
        state = self._depth_state
        if state is None:
            return False
        return bool(self._api.llama_state_seq_set_data(self._context, state, len(state), 0))

    def _check(self, codes: list[int], positions: int) -> None:
        """Raise ProviderError if a call failed or the context holds another number of tokens."""
        failed = next((code for code in codes if code), 0)
        if failed:
            why = self._library.log.errors() or _DECODE_ERRORS.get(failed, "the library failed")
            raise ProviderError(f"llama_decode returned {failed}: {why}")
        errors = self._library.log.errors()
        if _DEVICE_FAILED.search(errors):
            raise ProviderError(f"the device failed after it had accepted the work: {errors}")
        held = self._api.llama_memory_seq_pos_max(self._memory, 0) + 1
        if held != positions:
            raise ProviderError(f"unequal work: the context holds {held} tokens instead of {positions}")


def api_text(function: Any, handle: Any) -> str:
    """The text that a `(handle, buffer, size)` function of the C interface writes."""
    buffer = ctypes.create_string_buffer(256)
    function(handle, buffer, len(buffer))
    return buffer.value.decode("utf-8", errors="replace")
