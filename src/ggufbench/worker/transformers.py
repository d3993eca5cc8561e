"""The `transformers` provider: the baseline for llama.cpp, from the same GGUF or its original checkpoint.

It does the same work with the same clocks as the engine: random tokens, logits for the last token of a prompt
only, each sample from an empty cache, and one wait for the device after a prompt and after each token.
"""

from __future__ import annotations

import gc
import inspect
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from . import torch_library
from .channel import ProviderError, explain
from .compatibility import provider_problem
from .evidence import Watch
from .job import Job
from .protocol import EffectiveSetting, Placement
from .provider import DIGEST_TOKENS, WARMUP, Loading, Timing, digest_of, digest_prompt
from .torch_library import torch, transformers
from .untrusted import adapter_refusal, checkpoint_refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

_WARMUP_TOKENS = 8


class Transformers:
    """One model, driven through its `forward`. Seconds are of a monotonic clock."""

    def __init__(self, job: Job) -> None:
        problem = provider_problem(job.provider, job.setting, job.workload)
        if problem is not None:
            raise ProviderError(problem)
        self._job = job
        self._device = job.setting.device
        self._model: Any = None
        self._cache: Any = None
        self._watch = Watch()
        torch.set_num_threads(job.setting.n_threads)

    def device_free_bytes(self) -> dict[str, int]:
        """Free bytes of the device, as reported by PyTorch."""
        return torch_library.free_bytes(self._device)

    def drain_log(self) -> list[str]:
        """Empty: messages of transformers go to stderr."""
        return []

    def load(self) -> Loading:
        """Load the weights and move them to the device; there is no context to make."""
        loader = transformers.AutoModelForCausalLM
        arguments = _source(self._job)
        self._watch.start()
        start = perf_counter_ns()
        with _explained("could not load"):
            model, info = loader.from_pretrained(
                **arguments,
                output_loading_info=True,
                dtype=getattr(torch, self._job.setting.dtype),
                device_map={"": self._device},
                trust_remote_code=False,
                local_files_only=True,
            )
            _refuse_missing_weights(info)
            self._model = model.eval()
            torch_library.synchronize(self._device)
        stop = perf_counter_ns()
        evidence = self._watch.stop()
        self._vocabulary_size = int(model.config.get_text_config().vocab_size)
        takes = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in takes else "past_key_values"
        return Loading((stop - start) / 1e9, None, evidence, self._placement())

    def effective(self) -> EffectiveSetting:
        """Class, number type, matrices that stay packed as in the file, and the threads of PyTorch."""
        packed = sum("Gguf" in type(module).__name__ for module in self._model.modules())
        kept = "" if self._job.setting.weights != "gguf" else f", {packed} matrices packed as in the GGUF"
        kinds = Counter(str(weight.dtype).removeprefix("torch.") for weight in self._model.parameters())
        described = f"{type(self._model).__name__}, {kinds.most_common(1)[0][0]}{kept}"
        return EffectiveSetting(n_threads=torch.get_num_threads(), description=described)

    def first_decode(self) -> Timing:
        """The first token after loading, from an empty cache."""
        ids = self._tokens("first", 0, 1)
        self._empty()
        self._watch.start()
        return self._decode_tokens(ids)

    def prompt(self, number: int) -> Timing:
        """Evaluate a prompt at the workload's depth; the same number is the same prompt."""
        count = self._job.workload.prompt_tokens
        ids = self._tokens("prompt", number, count)
        batch = self._batch(ids)
        self._go_to_depth()
        self._watch.start()
        start = perf_counter_ns()
        self._forward(batch)
        torch_library.synchronize(self._device)
        stop = perf_counter_ns()
        evidence = self._watch.stop()
        self._check(count)
        return Timing([(stop - start) / 1e9], count, evidence)

    def decode(self, number: int) -> Timing:
        """Generate tokens one by one at the workload's depth; the same number gives the same tokens."""
        count = _WARMUP_TOKENS if number == WARMUP else self._job.workload.generated_tokens
        ids = self._tokens("decode", number, count)
        self._go_to_depth()
        self._watch.start()
        timing = self._decode_tokens(ids)
        self._check(count)
        return timing

    def loop_overhead(self) -> float | None:
        """None: the loop cannot be separated from the library's own Python code."""
        return None

    def digest(self) -> str:
        """Hash of the 32 greedy tokens after the fixed prompt, as in the engine."""
        self._empty()
        logits = self._forward(self._batch(digest_prompt(self._vocabulary_size)))
        likeliest = []
        for _ in range(DIGEST_TOKENS):
            token = int(logits[0, -1].argmax())
            likeliest.append(token)
            logits = self._forward(self._batch([token]))
        return digest_of(likeliest)

    def close(self) -> None:
        """Unload the model."""
        self._model = self._cache = None
        gc.collect()
        torch_library.release(self._device)

    def _placement(self) -> Placement:
        """Placement of the weights. Raises ProviderError if one is not on the device."""
        tensors = [*self._model.parameters(), *self._model.buffers()]
        stray = sum(tensor.device.type != self._device for tensor in tensors)
        if stray:
            where = f"{stray} of {len(tensors)} tensors are on another device"
            raise ProviderError(f"the setting requests {self._device}, but {where}")
        name = "CPU" if self._device == "cpu" else self._device
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        layers = int(self._model.config.get_text_config().num_hidden_layers) + 1
        return Placement({name: layers}, {"model": {name: size}})

    def _tokens(self, kind: str, number: int, count: int) -> list[int]:
        """Random tokens; the same kind and number always give the same ones."""
        source = random.Random(f"{self._job.seed} {kind} {number}")  # noqa: S311 (a workload, no secret)
        return [source.randrange(self._vocabulary_size) for _ in range(count)]

    def _batch(self, ids: Sequence[int]) -> Any:
        return torch.tensor([ids], dtype=torch.long, device=self._device)

    def _empty(self) -> None:
        self._cache = transformers.DynamicCache(config=self._model.config)

    def _go_to_depth(self) -> None:
        """Start an empty cache and fill it to the workload's depth."""
        self._empty()
        if self._job.workload.depth:
            self._forward(self._batch(self._tokens("depth", 0, self._job.workload.depth)))
            torch_library.synchronize(self._device)

    def _forward(self, batch: Any) -> Any:
        """The logits of the last token; afterwards the cache contains the batch."""
        cache = {self._cache_name: self._cache}
        with _explained("failed"), torch.inference_mode():
            return self._model(input_ids=batch, use_cache=True, logits_to_keep=1, **cache).logits

    def _decode_tokens(self, ids: Sequence[int]) -> Timing:
        """Time the tokens; the watch has been started, and the cache is ready."""
        batches = [self._batch([token]) for token in ids]
        stamps = [perf_counter_ns()]
        for batch in batches:
            self._forward(batch)
            torch_library.synchronize(self._device)
            stamps.append(perf_counter_ns())
        evidence = self._watch.stop()
        return Timing([(stop - start) / 1e9 for start, stop in pairwise(stamps)], len(ids), evidence)

    def _check(self, added: int) -> None:
        """Raise ProviderError unless the cache holds the expected number of tokens."""
        held, asked = int(self._cache.get_seq_length()), self._job.workload.depth + added
        if held != asked:
            raise ProviderError(f"unequal work: the cache holds {held} tokens instead of {asked}")


def _source(job: Job) -> dict[str, Any]:
    """Arguments for loading. Raises ProviderError for files that could contain foreign code or a pickle."""
    path = Path(job.model_path)
    is_gguf = job.setting.weights == "gguf"
    if refusal := adapter_refusal(path.parent) if is_gguf else checkpoint_refusal(path):
        raise ProviderError(f"{path.name} is not loaded: {refusal}")
    if is_gguf:
        # The whole path: transformers looks for a bare name in the current folder first.
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": str(path.absolute())}
    return {"pretrained_model_name_or_path": str(path), "use_safetensors": True}


def _refuse_missing_weights(info: dict[str, Any]) -> None:
    """Raise ProviderError if weights were missing: transformers fills them with random numbers."""
    missing = sorted([*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])])
    if missing:
        raise ProviderError(f"{len(missing)} weights are missing from the files, such as {missing[0]:.80}")


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    try:
        yield
    except ProviderError:
        raise
    except Exception as error:
        raise ProviderError(f"transformers {doing}: {explain(error)}") from error
