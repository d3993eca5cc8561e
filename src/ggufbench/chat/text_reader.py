"""Bytes of tokens to text that may be shown: whole characters only, and nothing of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextReader:
    """Gives the text of an answer piece by piece. What might become a stop string is held back."""

    def __init__(self, stops: Sequence[str] = (), *, strip_space: bool = False) -> None:
        self.stopped = False
        """A stop string has come: nothing more of the answer is wanted."""
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._stops = tuple(stop for stop in stops if stop)
        self._strip_space = strip_space
        self._held = ""

    def feed(self, raw: bytes) -> str:
        """The text that can be told after these bytes; often empty."""
        if self._strip_space and raw:
            raw, self._strip_space = raw.removeprefix(b" "), False
        text = self._decode(raw)
        return self._without_stops(text) if self._stops else text

    def end(self) -> str:
        """What was held back, when no more bytes come."""
        if self.stopped:
            return ""
        # What is left of an unfinished character becomes a mark, with which no stop string ends.
        told, self._held = self._held + self._decode(b"", True), ""
        return told

    def _without_stops(self, text: str) -> str:
        held = self._held + text
        places = [place for stop in self._stops if (place := held.find(stop)) >= 0]
        if places:
            self.stopped, self._held = True, ""
            return held[: min(places)]
        keep = max(unfinished(held, stop) for stop in self._stops)
        told, self._held = held[: len(held) - keep], held[len(held) - keep :]
        return told


def unfinished(text: str, word: str) -> int:
    """How many characters at the end of `text` are a beginning of `word`, the whole of it excepted."""
    most = min(len(text), len(word) - 1)
    return next((count for count in range(most, 0, -1) if text.endswith(word[:count])), 0)
