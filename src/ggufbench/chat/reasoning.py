"""Reasoning of a model, separated from its answer: channels as of gpt-oss, and `<think>` blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ggufbench.chat.call_formats import Call, named_call
from ggufbench.chat.text_reader import unfinished

CHANNEL, FINAL = "<|channel|>", "<|channel|>final<|message|>"
_MARK = re.compile(r"<\|(start|channel|message|constrain|end|return|call)\|>")
_MARK_TEXTS = tuple(
    f"<|{name}|>" for name in ("start", "channel", "message", "constrain", "end", "return", "call")
)
BLOCKS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "<|START_THINKING|>": "<|END_THINKING|>",
}
"""Markers around reasoning, as the chat templates of the models have them."""

CONTROL_TEXTS = (*_MARK_TEXTS, *BLOCKS, *BLOCKS.values())
"""Control tokens that separate reasoning from the answer."""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A part of the reasoning before or between the answer."""

    text: str


class Reader(Protocol):
    """Splits an answer into parts."""

    def feed(self, text: str) -> Iterator[str | Reasoning | Call]:
        """Yield the parts that are certain after this text."""

    def end(self) -> Iterator[str | Reasoning | Call]:
        """Yield the parts held back, after the last text."""


def reader_for(prompt: str, template: str, *, has_tools: bool) -> Reader | None:
    """The reader for the answer to this prompt; None if the template has neither channels nor blocks."""
    if CHANNEL in template:
        return ChannelReader(has_tools=has_tools)
    opened = next((mark for mark in BLOCKS if prompt.rstrip().endswith(mark)), None)
    used = [mark for mark, close in BLOCKS.items() if mark in template or close in template]
    return BlockReader(used, opened) if opened or used else None


def without_reasoning(prompt: str) -> str:
    """The prompt for an answer in a required form: the block it opens is closed, the final channel opened."""
    if prompt.endswith("<|start|>assistant"):
        return prompt + FINAL
    text = prompt.rstrip()
    close = next((close for mark, close in BLOCKS.items() if text.endswith(mark)), None)
    return prompt if close is None else f"{text}\n\n{close}\n\n"


class ChannelReader:
    """Reads messages of the form `<|channel|>NAME<|message|>TEXT<|end|><|start|>assistant`.

    The channel `analysis` is reasoning. A message to `functions.NAME` is a call, or reasoning without tools.
    """

    def __init__(self, *, has_tools: bool) -> None:
        self._has_tools = has_tools
        self._held = ""
        self._header: str | None = ""
        """The header that is being read; None in the text of a message."""
        self._is_plain = True
        """True as long as text without a header is an answer, because no marker has begun one."""
        self._tool: str | None = None
        self._is_reasoning = False
        self._arguments = ""

    def feed(self, text: str) -> Iterator[str | Reasoning | Call]:
        """Yield the parts that are certain after this text."""
        self._held += text
        while found := _MARK.search(self._held):
            yield from self._take(self._held[: found.start()])
            self._held = self._held[found.end() :]
            yield from self._pass(found[1])
        kept = max(unfinished(self._held, mark) for mark in _MARK_TEXTS)
        ready, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        yield from self._take(ready)

    def end(self) -> Iterator[str | Reasoning | Call]:
        """Yield the parts held back, after the last text."""
        held, self._held = self._held, ""
        yield from self._take(held)
        if self._header and self._is_plain and self._header.strip():
            yield self._header
        yield from self._end_message()

    def _take(self, text: str) -> Iterator[str | Reasoning]:
        if self._header is not None:
            self._header += text
            start = self._header.lstrip()[:3]
            if not self._is_plain or "to=".startswith(start):
                return
            text, self._header = self._header, None
        if self._tool is not None:
            self._arguments += text
        elif text:
            yield Reasoning(text) if self._is_reasoning else text

    def _pass(self, mark: str) -> Iterator[Call]:
        if mark == "message":
            self._begin_message(self._header or "")
        elif mark in ("end", "return", "call"):
            yield from self._end_message()
            self._header, self._is_plain = "", True
        elif self._header is None or mark == "start":
            yield from self._end_message()
            self._header, self._is_plain = f" {mark}=", False
        else:
            self._header += f" {mark}="
            self._is_plain = False

    def _begin_message(self, header: str) -> None:
        tool = re.search(r"to=functions\.([\w.-]{1,256})", header)
        self._tool = tool[1] if tool and self._has_tools else None
        self._is_reasoning = "channel=analysis" in header or "to=" in header
        self._header = None

    def _end_message(self) -> Iterator[Call]:
        if self._tool is not None:
            yield named_call(self._tool, self._arguments)
        self._tool, self._arguments, self._is_reasoning = None, "", False


class BlockReader:
    """Reads an answer that may begin with a block of reasoning; the prompt may have `opened` one."""

    def __init__(self, marks: list[str], opened: str | None) -> None:
        self._marks = marks
        self._close = BLOCKS[opened] if opened else None
        self._held = ""
        self._answers = False
        """True once the answer itself has begun."""

    def feed(self, text: str) -> Iterator[str | Reasoning]:
        """Yield the parts that are certain after this text."""
        if self._answers:
            yield text
            return
        self._held += text
        if self._close is None and not self._begin():
            return
        if self._close is not None:
            reasoning, found, rest = self._held.partition(self._close)
            if not found:
                kept = unfinished(reasoning, self._close)
                reasoning, rest = reasoning[: len(reasoning) - kept], reasoning[len(reasoning) - kept :]
            self._held = rest
            if reasoning:
                yield Reasoning(reasoning)
            if not found:
                return
            self._close, self._marks = None, []
        self._held = self._held.lstrip()
        if self._held:
            self._answers = True
            yield self._held
            self._held = ""

    def _begin(self) -> bool:
        """Begin a block if the text begins with a marker. False if the next text must decide."""
        text = self._held.lstrip()
        mark = next((mark for mark in self._marks if text.startswith(mark)), None)
        if mark is not None:
            self._close, self._held = BLOCKS[mark], text[len(mark) :]
            return True
        return bool(text) and not any(mark.startswith(text) for mark in self._marks)

    def end(self) -> Iterator[str | Reasoning]:
        """Yield the parts held back, after the last text."""
        if self._held.strip():
            yield Reasoning(self._held) if self._close else self._held
