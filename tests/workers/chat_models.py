"""A user's own providers, as a scenario names them: real ones, and ones with one fault each.

The real ones answer through llama-cpp-python's own class. Random weights would soon end an answer, so the end
token is suppressed. LLAMA_TEST_ASKED names a file for a line about each question: variables of that prefix
reach a worker.
"""

import functools
import json
import os
import sys
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import llama_cpp

NO_FUNCTION = "not a function"


@dataclass
class Chunk:
    content: Any
    usage_metadata: Any = None


class Model:
    """A chat model."""

    def __init__(self, llama, **options):
        self.llama, self.options = llama, options

    def stream(self, text):
        messages = [{"role": "user", "content": text}]
        stream = self.llama.create_chat_completion(messages, stream=True, **self.options)
        whole = False
        try:
            for part in stream:
                yield Chunk(part["choices"][0]["delta"].get("content") or "")
            whole = True
        finally:
            stream.close()
            self._note(text, whole)

    def _note(self, text, whole):
        if path := os.environ.get("LLAMA_TEST_ASKED"):
            tokens = self.llama.tokenize(text.encode(), add_bos=False)
            with Path(path).open("a") as file:
                file.write(json.dumps({"text": text, "tokens": len(tokens), "whole": whole}) + "\n")


def get_chat_model(
    *, model_path, n_ctx, n_gpu_layers, n_batch, n_threads, use_mmap, use_mlock, temperature, max_tokens, seed
):
    llama = llama_cpp.Llama(
        model_path,
        n_ctx=n_ctx,
        n_gpu_layers=n_gpu_layers,
        n_batch=n_batch,
        n_threads=n_threads,
        n_threads_batch=n_threads,
        use_mmap=use_mmap,
        use_mlock=use_mlock,
        seed=seed,
        verbose=False,
    )
    no_end = {llama.token_eos(): -1e9}
    return Model(llama, temperature=temperature, max_tokens=max_tokens, logit_bias=no_end)


class Wrapped:
    """A chat model around another one."""

    def __init__(self, model):
        self.model = model

    def stream(self, text):
        yield from self.model.stream(text)


class Counting(Wrapped):
    """A model that counts its tokens in the last chunk and answers in blocks, as in LangChain."""

    reasoning = 0

    def stream(self, text):
        count = 0
        for chunk in super().stream(text):
            count += bool(chunk.content)
            yield Chunk([{"type": "text", "text": chunk.content}, {"type": "other"}, ""])
        usage = {"input_tokens": 1, "output_tokens": count + self.reasoning}
        yield Chunk([], {**usage, "output_token_details": {"reasoning": self.reasoning}})


def counting(**options):
    return Counting(get_chat_model(**options))


def reasoning(**options):
    model = counting(**options)
    model.reasoning = 7
    return model


def with_its_own_log(**options):
    take.kept = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(take.kept, None)
    return get_chat_model(**options)


def take(*, model_path, n_ctx):
    """A model that accepts too few arguments."""


def talkative(**options):
    """A model that prints to stdout and reads stdin, both of which the harness uses for its conversation."""
    os.write(1, b"loading\n")
    print(sys.stdin.read(), os.read(0, 100))
    return get_chat_model(**options)


def swallowing(*, n_ctx, max_tokens, **options):
    """A model that accepts arguments without passing them on."""
    return get_chat_model(n_ctx=2 * n_ctx, max_tokens=max_tokens, **options)


def unbounded(*, max_tokens, **options):
    return get_chat_model(max_tokens=10 * max_tokens, **options)


def needing(*, api_key, **options):
    """A model that needs an argument that is never passed."""


def failing(**options):
    raise RuntimeError("no such quantization")


def leaving(**options):
    sys.exit(0)


def without_stream(**options):
    return functools


class Scripted:
    """A model that gives a fixed answer."""

    def __init__(self, *chunks):
        self.chunks = chunks

    def stream(self, text):
        for chunk in self.chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


def silent(**options):
    return Scripted(Chunk(""), Chunk([]))


def monosyllabic(**options):
    return Scripted(Chunk("a"))


def in_one_piece(**options):
    return Scripted(Chunk(""), Chunk("The whole answer, all at once."), Chunk(""))


def breaking(**options):
    return Scripted(Chunk("One"), Chunk(" two"), OSError("the connection was lost"))


def of_no_text(**options):
    return Scripted(Chunk({"text": "One"}))


class Endless:
    def stream(self, text):
        return (Chunk(word) for word in repeat("again "))


def endless(**options):
    return Endless()


def brief(**options):
    """A model whose answers end early."""
    return Scripted(Chunk("One"), Chunk(" two"), Chunk(" three"))
