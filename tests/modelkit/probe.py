"""Load a GGUF with llama.cpp and report its facts: `python probe.py PATH < texts.json`, JSON to stdout.

Runs in a separate process, because llama.cpp aborts on invalid files.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

import numpy as np
from llama_cpp import llama_cpp as native
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

LOG: list[tuple[int, str]] = []


@native.llama_log_callback
def receive(level: int, text: bytes, _: object) -> None:
    LOG.append((level, text.decode("utf-8", "replace")))


def load(path: str) -> tuple[Any, Any]:
    native.llama_backend_init()
    native.llama_log_set(receive, None)
    no_device = (ctypes.c_void_p * 1)(None)
    parameters = native.llama_model_default_params()
    parameters.devices = ctypes.cast(no_device, ctypes.c_void_p)
    # The file is under test, not the kernels for repacked weights (those for AMX crash in some builds:
    # https://github.com/ggml-org/llama.cpp/pull/26954).
    parameters.use_extra_bufts = False
    model = native.llama_model_load_from_file(path.encode(), parameters)
    if model is None:
        sys.exit("".join(text for level, text in LOG if level == 4) or "load failed")
    settings = native.llama_context_default_params()
    settings.n_ctx, settings.n_batch, settings.n_ubatch = 512, 256, 256
    # Spinning threads that wait for each other take minutes if other processes use the processor.
    settings.n_threads = settings.n_threads_batch = 1
    context = native.llama_init_from_model(model, settings)
    return model, context


def decode(context: Any, tokens: list[int], vocabulary: int) -> np.ndarray:
    array = (native.llama_token * len(tokens))(*tokens)
    assert native.llama_decode(context, native.llama_batch_get_one(array, len(tokens))) == 0
    native.llama_synchronize(context)
    return np.ctypeslib.as_array(native.llama_get_logits(context), shape=(vocabulary,)).copy()


def tokenize(vocab: Any, text: str, special: bool) -> list[int]:
    data = text.encode()
    capacity = len(data) + 8
    tokens = (native.llama_token * capacity)()
    count = native.llama_tokenize(vocab, data, len(data), tokens, capacity, False, special)
    assert count >= 0
    return list(tokens[:count])


def detokenize(vocab: Any, tokens: list[int]) -> str:
    array = (native.llama_token * max(1, len(tokens)))(*tokens)
    capacity = 64 * (len(tokens) + 1)
    data = ctypes.create_string_buffer(capacity)
    count = native.llama_detokenize(vocab, array, len(tokens), data, capacity, False, True)
    assert count >= 0
    return data.raw[:count].decode()


def text_of(model: Any, call: Any) -> str:
    data = ctypes.create_string_buffer(256)
    call(model, data, 256)
    return data.value.decode()


def chat(vocab: Any, template: str) -> dict[str, Any]:
    formatter = Jinja2ChatFormatter(template, "<|im_end|>", "")
    prompt = formatter(messages=[{"role": "user", "content": "Good day, ångström!"}]).prompt
    return {"prompt": prompt, "tokens": tokenize(vocab, prompt, True)}


def probe(path: str, texts: list[str]) -> dict[str, Any]:
    model, context = load(path)
    vocab = native.llama_model_get_vocab(model)
    size = native.llama_vocab_n_tokens(vocab)
    prompt = [index * 7 % (size - 4) for index in range(200)]
    logits = decode(context, prompt, size)
    greedy: list[int] = []
    for _ in range(24):
        greedy.append(int(logits.argmax()))
        logits = decode(context, greedy[-1:], size)
    tokens = [tokenize(vocab, text, False) for text in texts]
    return {
        "parameters": native.llama_model_n_params(model),
        "type": native.llama_ftype_name(native.llama_model_ftype(model)).decode(),
        "description": text_of(model, native.llama_model_desc),
        "layers": native.llama_model_n_layer(model),
        "window": native.llama_model_n_swa(model),
        "vocabulary": size,
        "context": native.llama_model_n_ctx_train(model),
        "finite": bool(np.isfinite(logits).all()),
        "deviation": float(logits.std()),
        "greedy": greedy,
        "ended": any(native.llama_vocab_is_eog(vocab, token) for token in greedy),
        "bos": native.llama_vocab_bos(vocab),
        "eos": native.llama_vocab_eos(vocab),
        "tokens": tokens,
        "texts": [detokenize(vocab, each) for each in tokens],
        "chat": chat(vocab, native.llama_model_chat_template(model, None).decode()),
        "warnings": [text for level, text in LOG if level in (3, 4)],
    }


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1], json.load(sys.stdin))))
