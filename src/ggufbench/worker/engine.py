"""The `engine` provider: llama_decode and llama_synchronize, with nothing of Python between two tokens.

What is timed is what llama-bench times: random tokens (one fixed token would send a mixture of experts down
the same path every time), logits for the last token of a batch only, one synchronisation at the end of a
prompt and one after each decoded token.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import random
from array import array
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from .channel import ProviderError
from .evidence import Watch
from .job import Job
from .native import Library, device_list

_LOAD_MODES = {"auto": -1, "none": 0, "mmap": 1, "mlock": 2, "mmap+mlock": 3, "dio": 4}
_SPLIT_MODES = {"none": 0, "layer": 1, "row": 2}
_FLASH_ATTN = {"auto": -1, "off": 0, "on": 1}
_KV_TYPES = {
    "f32": 0,
    "f16": 1,
    "bf16": 30,
    "q8_0": 8,
    "q4_0": 2,
    "q4_1": 3,
    "q5_0": 6,
    "q5_1": 7,
    "iq4_nl": 20,
}

_DECODE_ERRORS = {
    1: "the context has no room for another token",
    2: "the library aborted the computation",
    -1: "the library refused the batch",
}


_DIGEST_PROMPT_TOKENS, _DIGEST_TOKENS = 16, 32


@dataclass(frozen=True, slots=True)
class Timing:
    """Timed work, and what else happened meanwhile."""

    seconds: list[float]
    """Of each token in order, or of the whole prompt."""
    evidence: dict[str, float]


class Engine:
    """One model and one context, driven through llama.cpp's C interface. Seconds are of a monotonic clock."""

    def __init__(self, library: Library, job: Job) -> None:
        self._library = library
        self._api = library.api
        self._job = job
        self._random = random.Random(job.seed)  # noqa: S311 (a repeatable workload, no secret)
        self._model: Any = None
        self._context: Any = None
        self._depth_state: Any = None
        self._watch = Watch()
        if job.setting.device == "rpc":
            library.add_rpc_servers(job.setting.rpc_servers)
        self.devices = library.devices_for(job.setting.device)
        self._device_list = device_list(self.devices)

    def load(self) -> dict[str, float]:
        """Load the model and make its context. Returns `model_seconds` and `context_seconds`."""
        model_params, context_params = self._model_params(), self._context_params()
        start = perf_counter_ns()
        self._model = self._api.llama_model_load_from_file(os.fsencode(self._job.model_path), model_params)
        if not self._model:
            raise ProviderError(self._library.log.errors() or "llama.cpp could not load the file")
        loaded = perf_counter_ns()
        self._context = self._api.llama_init_from_model(self._model, context_params)
        if not self._context:
            raise ProviderError(self._library.log.errors() or "llama.cpp could not create a context")
        ready = perf_counter_ns()
        self._prepare()
        return {"model_seconds": (loaded - start) / 1e9, "context_seconds": (ready - loaded) / 1e9}

    def effective(self) -> dict[str, Any]:
        """The settings as the library holds them now; the log says the rest."""
        api, context = self._api, self._context
        return {
            "n_ctx": api.llama_n_ctx(context),
            "n_batch": api.llama_n_batch(context),
            "n_ubatch": api.llama_n_ubatch(context),
            "n_threads": api.llama_n_threads(context),
            "n_threads_batch": api.llama_n_threads_batch(context),
            "model": api_text(api.llama_model_desc, self._model),
        }

    def first_decode(self) -> Timing:
        """The first token after loading, from an empty context."""
        return self._decode_tokens(self._tokens(1))

    def prompt(self) -> Timing:
        """The evaluation of a prompt at the workload's depth."""
        tokens = self._tokens(self._job.workload.prompt_tokens)
        self._go_to_depth()
        chunks = self._chunks(tokens)
        decode, synchronize, context = self._api.llama_decode, self._api.llama_synchronize, self._context
        self._watch.start()
        start = perf_counter_ns()
        codes = [decode(context, chunk) for chunk in chunks]
        synchronize(context)
        stop = perf_counter_ns()
        evidence = self._watch.stop()
        self._check(codes)
        return Timing([(stop - start) / 1e9], evidence)

    def decode(self, tokens: int | None = None) -> Timing:
        """Generated tokens at the workload's depth, one after the other."""
        ids = self._tokens(tokens or self._job.workload.generated_tokens)
        self._go_to_depth()
        return self._decode_tokens(ids)

    def digest(self) -> str:
        """Hash of the 32 tokens that follow a fixed prompt, always the likeliest: the same work was done.

        The prompt is of token ids, so that it needs no tokenizer; nothing of it is random.
        """
        ids = [(index * 7919 + 13) % self._vocabulary_size for index in range(_DIGEST_PROMPT_TOKENS)]
        tokens = (self._api.llama_token * len(ids))(*ids)
        self._api.llama_memory_clear(self._memory, False)
        self._check([self._api.llama_decode(self._context, chunk) for chunk in self._chunks(tokens)])
        sampler = self._api.llama_sampler_init_greedy()
        try:
            likeliest = [self._follow(sampler) for _ in range(_DIGEST_TOKENS)]
        finally:
            self._api.llama_sampler_free(sampler)
        return hashlib.sha256(",".join(map(str, likeliest)).encode()).hexdigest()[:16]

    def _follow(self, sampler: Any) -> int:
        """The likeliest next token, which is then part of the context."""
        token = int(self._api.llama_sampler_sample(sampler, self._context, -1))
        one = (self._api.llama_token * 1)(token)
        self._check([self._api.llama_decode(self._context, self._api.llama_batch_get_one(one, 1))])
        return token

    def close(self) -> None:
        """Free the context and the model, as an application that closes would."""
        if self._context:
            self._api.llama_free(self._context)
        if self._model:
            self._api.llama_model_free(self._model)
        self._context = self._model = None

    def _model_params(self) -> Any:
        setting, params = self._job.setting, self._api.llama_model_default_params()
        on_cpu = setting.device == "cpu"
        params.devices = ctypes.cast(self._device_list, ctypes.c_void_p)
        # n_gpu_layers = 0 alone keeps the GPU for large batches; only a model without devices does not.
        params.n_gpu_layers = 0 if on_cpu else setting.n_gpu_layers
        params.split_mode = _SPLIT_MODES["none" if on_cpu else setting.split_mode]
        params.main_gpu = -1 if on_cpu else setting.main_gpu
        params.load_mode = _LOAD_MODES[setting.load_mode]
        params.use_extra_bufts = setting.repack
        return params

    def _context_params(self) -> Any:
        setting, params = self._job.setting, self._api.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = setting.n_ctx, setting.n_batch, setting.n_ubatch
        params.n_threads, params.n_threads_batch = setting.n_threads, setting.n_threads_batch
        params.flash_attn_type = _FLASH_ATTN[setting.flash_attn]
        params.type_k, params.type_v = _KV_TYPES[setting.type_k], _KV_TYPES[setting.type_v]
        params.offload_kqv = setting.offload_kqv
        # A full-size cache for sliding-window layers only serves prefix reuse, which no workload here does.
        params.swa_full = False
        return params

    def _prepare(self) -> None:
        vocabulary = self._api.llama_model_get_vocab(self._model)
        self._vocabulary_size = self._api.llama_vocab_n_tokens(vocabulary)
        self._bos = (
            self._api.llama_vocab_bos(vocabulary) if self._api.llama_vocab_get_add_bos(vocabulary) else None
        )
        self._memory = self._api.llama_get_memory(self._context)

    def _tokens(self, count: int) -> Any:
        ids = [self._random.randrange(self._vocabulary_size) for _ in range(count)]
        if self._bos is not None and self._job.workload.depth == 0:
            ids[0] = self._bos
        return (self._api.llama_token * count)(*ids)

    def _chunks(self, tokens: Any) -> list[Any]:
        """Batches of at most n_batch tokens, the most that the library takes; the caller keeps the tokens."""
        size, token = self._api.llama_n_batch(self._context), self._api.llama_token
        chunks = []
        for start in range(0, len(tokens), size):
            count = min(size, len(tokens) - start)
            part = (token * count).from_buffer(tokens, start * ctypes.sizeof(token))
            chunks.append(self._api.llama_batch_get_one(part, count))
        return chunks

    def _decode_tokens(self, ids: Any) -> Timing:
        one = (self._api.llama_token * 1)(0)
        batch = self._api.llama_batch_get_one(one, 1)
        decode, synchronize, context = self._api.llama_decode, self._api.llama_synchronize, self._context
        stamps = array("q", bytes(8 * (len(ids) + 1)))
        code = 0
        self._watch.start()
        stamps[0] = perf_counter_ns()
        for index, token in enumerate(ids, start=1):
            one[0] = token
            code = code or decode(context, batch)
            synchronize(context)
            stamps[index] = perf_counter_ns()
        evidence = self._watch.stop()
        self._check([code])
        return Timing([(stamps[i + 1] - stamps[i]) / 1e9 for i in range(len(ids))], evidence)

    def _go_to_depth(self) -> None:
        """Empty the context, then bring it to the workload's depth, from saved state where there is some."""
        self._api.llama_memory_clear(self._memory, False)
        depth = self._job.workload.depth
        if not depth or self._restore_depth():
            return
        tokens = self._tokens(depth)
        chunks = self._chunks(tokens)
        self._check([self._api.llama_decode(self._context, chunk) for chunk in chunks])
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

    def _check(self, codes: list[int]) -> None:
        failed = next((code for code in codes if code), 0)
        if failed:
            why = self._library.log.errors() or _DECODE_ERRORS.get(failed, "the library failed")
            raise ProviderError(f"llama_decode returned {failed}: {why}")


def api_text(function: Any, handle: Any) -> str:
    """The text that one of the C interface's `(handle, buffer, size)` functions writes."""
    buffer = ctypes.create_string_buffer(256)
    function(handle, buffer, len(buffer))
    return buffer.value.decode("utf-8", errors="replace")
