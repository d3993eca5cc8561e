"""Decode token bytes into text: whole characters only, and without stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from ggufbench.chat.errors import ChatModelError
from ggufbench.text import printable


def stop_texts(stop: Any) -> list[str]:
    """The texts that end an answer; one string is one text. Raises ChatModelError for anything else."""
    stops = [stop] if isinstance(stop, str) else [] if stop is None else stop
    if not isinstance(stops, list | tuple) or not all(isinstance(text, str) and text for text in stops):
        raise ChatModelError(
            f"stop = {printable(repr(stop), 80)} is not usable: it is neither a text nor a list of texts, or "
            "has an empty one; change it."
        )
    return list(stops)


class TextReader:
    """Decodes an answer piece by piece; text that may become a stop string is held back."""

    def __init__(self, stops: Sequence[str] = (), *, strip_space: bool = False) -> None:
        self.stopped = False
        """True once a stop string has occurred: the rest of the answer is discarded."""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._stops = tuple(stops)
        self._strip_space = strip_space
        self._held = ""

    def feed(self, raw: bytes) -> str:
        """Decode these bytes and return the text that is certain; often empty."""
        if self._strip_space and raw:
            raw, self._strip_space = raw.removeprefix(b" "), False
        text = self._decode(raw)
        return self._without_stops(text) if self._stops else text

    def end(self) -> str:
        """The text held back, after the last bytes."""
        if self.stopped:
            return ""
        # An unfinished character becomes a replacement character; stop strings never end with that.
        text, self._held = self._held + self._decode(b"", True), ""
        return text

    def _without_stops(self, text: str) -> str:
        held = self._held + text
        places = [place for stop in self._stops if (place := held.find(stop)) >= 0]
        if places:
            self.stopped, self._held = True, ""
            return held[: min(places)]
        keep = max(unfinished(held, stop) for stop in self._stops)
        ready, self._held = held[: len(held) - keep], held[len(held) - keep :]
        return ready


def unfinished(text: str, word: str) -> int:
    """Length of the longest proper prefix of `word` that `text` ends with."""
    most = min(len(text), len(word) - 1)
    return next((count for count in range(most, 0, -1) if text.endswith(word[:count])), 0)
