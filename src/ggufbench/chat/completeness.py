"""Check that every text of a conversation is in its prompt.

A template can omit a message without an error: the model then answers a question that it has not read. Two
checks find that. Each text must occur in the prompt, as it is or escaped. And in a second prompt, in which
the first and the last letter of each text are unique characters, all of these must occur: that finds an
omitted text that also occurs elsewhere.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from markupsafe import escape

from ggufbench.chat.forms import Message

_REASONING = re.compile(r".*(?:</think>|</thinking>|</seed:think>|\[/THINK\])", re.DOTALL | re.IGNORECASE)
"""The reasoning at the beginning of an answer, which templates leave out of later prompts."""
_LETTER, _SIGN = re.compile(r"[^\W_]"), re.compile(r"\S")
_PRIVATE = range(0xF0000, 0xFFFFE)
"""A private use plane of Unicode."""

Change = Callable[[str], str]


class Probe:
    """A conversation with unique characters in each text, and the search for them in its prompt."""

    def __init__(self, messages: Sequence[Message]) -> None:
        used = set(json.dumps(messages, ensure_ascii=False, default=str))
        self._unused = (chr(code) for code in _PRIVATE if chr(code) not in used)
        self._marks: dict[str, str] = {}
        self.messages = messages
        self.marked = [rewritten(message, self._mark) for message in messages]

    def omitted(self, prompt: str) -> str | None:
        """A text that is not in the prompt of the marked conversation; None if all are."""
        letters = set(prompt)
        lost = (mark for mark in self._marks if mark not in letters)
        return next((self._marks[mark] for mark in lost if json.dumps(mark)[1:-1] not in prompt), None)

    def _mark(self, text: str) -> str:
        made = text
        for index in _ends(text):
            mark = next(self._unused, None)
            if mark is not None:
                made = made[:index] + mark + made[index + 1 :]
                self._marks[mark] = text
        return made


def _ends(text: str) -> set[int]:
    """The indexes of the first and the last letter; without letters, of the first and the last sign."""
    for pattern in (_LETTER, _SIGN):
        if first := pattern.search(text):
            last = pattern.search(text[::-1])
            return {first.start(), len(text) - last.end() if last else 0}
    return set()


def omitted(prompt: str, messages: Sequence[Message]) -> str | None:
    """A text of the conversation that is not in the prompt; None if all are."""
    squeezed: str | None = None
    at = 0
    for text in _texts(messages):
        # Most texts follow each other as in the conversation, so most searches are short.
        found = prompt.find(text, at)
        if found >= 0:
            at = found
            continue
        if text in prompt:
            continue
        squeezed = squeezed or _squeezed(prompt)
        if not any(_squeezed(written) in squeezed for written in _written(text)):
            return text
    return None


def shows_python(prompt: str, messages: Sequence[Message]) -> bool:
    """True if the prompt shows a part of a message, or the arguments of a call, as a Python object."""
    objects = [part for message in messages for part in _parts(message)]
    return any(str(one) in prompt or json.dumps(one, ensure_ascii=False) in prompt for one in objects) or any(
        arguments and str(arguments) in prompt and str(arguments) != json.dumps(arguments, ensure_ascii=False)
        for message in messages
        for call in message.get("tool_calls") or ()
        if isinstance(arguments := call["function"]["arguments"], Mapping)
    )


def _parts(message: Message) -> list[Any]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def rewritten(message: Message, change: Change) -> Message:
    """The message with `change` applied to each text that must be in the prompt."""
    made = dict(message)
    content = message.get("content")
    if isinstance(content, str):
        made["content"] = _content(message["role"], content, change)
    elif isinstance(content, list):
        made["content"] = [
            {**part, "text": _content(message["role"], part["text"], change)} for part in content
        ]
    if message.get("tool_calls"):
        made["tool_calls"] = [_call(call, change) for call in message["tool_calls"]]
    return made


def _content(role: str, text: str, change: Change) -> str:
    reasoning = _REASONING.match(text) if role == "assistant" else None
    start = reasoning.end() if reasoning else 0
    return text[:start] + change(text[start:])


def _call(call: Mapping[str, Any], change: Change) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"]
    if isinstance(arguments, Mapping):  # a text is JSON, which must stay valid
        arguments = _value(arguments, change)
    return {**call, "function": {**function, "name": change(function["name"]), "arguments": arguments}}


def _value(value: Any, change: Change) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _value(inner, change) for key, inner in value.items()}
    return [_value(inner, change) for inner in value] if isinstance(value, list | tuple) else value


def _texts(messages: Sequence[Message]) -> Iterator[str]:
    found: list[str] = []

    def note(text: str) -> str:
        found.append(text.strip())
        return text

    for message in messages:
        rewritten(message, note)
        for call in message.get("tool_calls") or ():
            found += _names_and_numbers(call["function"]["arguments"])
    return filter(None, dict.fromkeys(found))


def _names_and_numbers(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from map(str, value)
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from _names_and_numbers(inner)
    elif isinstance(value, int | float):
        yield str(value)


def _written(text: str) -> Iterator[str]:
    """The text as templates write it: plain, in HTML, in JSON, and in JSON inside JSON."""
    yield text
    yield html.escape(text, quote=False)
    yield str(escape(text))
    for ascii_only in (False, True):
        once = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield once
        yield json.dumps(once, ensure_ascii=ascii_only)[1:-1]
    yield repr(text)[1:-1]


def _squeezed(text: str) -> str:
    """The text without white space and case, which templates may change."""
    return "".join(text.split()).casefold()
