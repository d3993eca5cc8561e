"""The model's own tokenizer in a separate process, so that its memory is not part of the measured process.

The other process is also a worker. It loads only the vocabulary of the file, and sleeps while it waits for
text.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .channel import Channel, ProviderError
from .native import Library
from .protocol import Error, Text, TokenizeJob, Tokens, decode_event, decode_text, encode
from .releases import vocabulary_params

_ENTRY = Path(__file__).resolve().with_name("__main__.py")


class Tokenizer:
    """Tokenize text in the other process. Raises ProviderError if that process fails."""

    def __init__(self, model_path: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_ENTRY)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        self._exchange(TokenizeJob(model_path))

    def tokens(self, text: str) -> list[int]:
        """Token ids of the text, without added tokens."""
        return self._exchange(Text(text)).ids

    def close(self) -> None:
        """End the other process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def _exchange(self, message: TokenizeJob | Text) -> Tokens:
        said, answers = self._process.stdin, self._process.stdout
        assert said is not None and answers is not None  # noqa: S101 (both are pipes)
        try:
            said.write(encode(message) + "\n")
            said.flush()
            line = answers.readline()
        except OSError:
            line = ""
        event = decode_event(line) if line else None
        if isinstance(event, Tokens):
            return event
        reason = event.message if isinstance(event, Error) else "it ended"
        raise ProviderError(f"the model's tokenizer cannot be used: {reason}")


def serve(job: TokenizeJob, channel: Channel) -> None:
    """Answer each text with its tokens, until the input ends."""
    library = Library()
    api, path = library.api, os.fsencode(job.model_path)
    model = api.llama_model_load_from_file(path, vocabulary_params(api, library.version))
    if not model:
        raise ProviderError(library.log.errors() or "llama.cpp could not load the file")
    vocabulary = api.llama_model_get_vocab(model)
    ids: list[int] = []
    while line := channel.exchange(Tokens(ids)):
        ids = tokenize(api, vocabulary, decode_text(line).text)
        library.log.drain()


def tokenize(api: Any, vocabulary: Any, text: str, *, special: bool = False) -> list[int]:
    """Token ids of a text, without an added first token; `special`: its control tokens count as such."""
    raw = text.encode("utf-8", errors="replace")
    capacity = len(raw) + 8  # no token is shorter than a byte; some vocabularies put one before the text
    ids = (api.llama_token * capacity)()
    count = api.llama_tokenize(vocabulary, raw, len(raw), ids, capacity, False, special)
    if count < 0:
        raise ProviderError(
            f"a text of {len(raw)} bytes gives {-count} tokens, more than its number of bytes"
        )
    return list(ids[:count])
