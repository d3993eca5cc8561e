"""Keep a text of the conversation a text, although it looks like a token of the template.

A prompt is one text, so a message that contains `<|im_end|>` would end its own turn and could forge another
one. If a special token of the prompt also occurs in a message, the prompt is rendered a second time with a
mark inside each such place, and only unmarked places become special tokens. Any other prompt is tokenized as
a whole, exactly as llama.cpp does it.

A name that the template itself assembles from two fields, such as the end of one and the beginning of the
next, is not recognized.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

from ggufbench.chat.engine import ChatEngine
from ggufbench.chat.forms import Message

Tools = Sequence[Mapping[str, Any]]
Write = Callable[[Sequence[Message], Tools], str]

# Bits of llama.cpp's `llama_token_attr`.
_UNKNOWN, _CONTROL, _USER_DEFINED, _STRIPS_LEFT, _STRIPS_RIGHT = 1, 8, 16, 128, 256
_SPECIAL = _UNKNOWN | _CONTROL | _USER_DEFINED
_TAG = re.compile(r"[<\[].+[>\]]")


class Prompt(NamedTuple):
    """A prompt as text and as tokens."""

    text: str
    tokens: list[int]


class _Special(NamedTuple):
    """A token that llama.cpp finds in a text by its name."""

    name: str
    token: int
    attributes: int


class _Place(NamedTuple):
    """A part of the prompt, from one index to another."""

    start: int
    end: int


class PromptTokenizer:
    """The tokens of a model's prompts."""

    def __init__(self, engine: ChatEngine) -> None:
        self._engine = engine
        self._known: dict[int, _Special] = {}

    def prompt(self, write: Write, source: str, messages: Sequence[Message], tools: Tools) -> Prompt:
        """The prompt that `write` renders from a template with this source."""
        prompt = write(messages, tools)
        tokens = self._engine.prompt_tokens(prompt)
        present = [one for one in map(self._special, set(tokens)) if _matters(one, source)]
        texts = [text for message in messages for text in _strings(message)] + list(_strings(tools))
        if not any(one.name in text for one in present for text in texts):
            return Prompt(prompt, tokens)
        marks = _Marks([one for one in self._specials if _matters(one, source)], texts)
        marked = write(list(map(marks.message, messages)), marks.value(tools))
        return Prompt(prompt, self._engine.with_bos(self._apart(*marks.removed(marked))))

    def _special(self, token: int) -> _Special:
        if token not in self._known:
            api, vocabulary = self._engine.api, self._engine.vocabulary
            attributes = api.llama_vocab_get_attr(vocabulary, token)
            raw = api.llama_vocab_get_text(vocabulary, token) or b""
            self._known[token] = _Special(raw.decode("utf-8", errors="replace"), token, attributes)
        return self._known[token]

    @cached_property
    def _specials(self) -> list[_Special]:
        """Every special token, longest first, as llama.cpp looks for them."""
        attributes, vocabulary = self._engine.api.llama_vocab_get_attr, self._engine.vocabulary
        tokens = range(self._engine.vocabulary_size)
        found = [self._special(token) for token in tokens if attributes(vocabulary, token) & _SPECIAL]
        return sorted(filter(_is_special, found), key=lambda one: len(one.name.encode()), reverse=True)

    def _apart(self, prompt: str, forged: frozenset[int]) -> list[int]:
        """The tokens of a prompt; a name with a forged index inside it stays text."""
        parts: list[_Place | int] = [_Place(0, len(prompt))]
        for special in self._specials:
            if special.name in prompt:
                parts = [made for part in parts for made in _split(part, special, prompt, forged)]
        tokens: list[int] = []
        for part in parts:
            tokens += [part] if isinstance(part, int) else self._text(prompt, part, forged)
        return tokens

    def _text(self, prompt: str, place: _Place, forged: frozenset[int]) -> list[int]:
        """Tokens of a text. A name that llama.cpp finds in any text is cut, so that it stays text, too."""
        names = [one.name for one in self._specials if one.attributes & _USER_DEFINED]
        inside = [index for index in forged if place.start < index < place.end]
        cuts = [index for index in inside if any(prompt.startswith(name, index - 1) for name in names)]
        ends = sorted({place.start, place.end, *cuts})
        return [
            token
            for start, end in pairwise(ends)
            for token in self._engine.tokenize(prompt[start:end], special=False)
        ]


def _is_special(one: _Special) -> bool:
    return bool(one.attributes & _SPECIAL and one.name)


def _matters(one: _Special, source: str) -> bool:
    """True for a control token, and for a tag of the template that every text may contain."""
    if not _is_special(one) or len(one.name) < 2:
        return False
    is_tag = one.name in source and _TAG.fullmatch(one.name) is not None
    return bool(one.attributes & (_UNKNOWN | _CONTROL)) or is_tag


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _strings(key)
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


class _Marks:
    """Marks inside each occurrence of some names in a conversation."""

    def __init__(self, specials: Sequence[_Special], texts: Iterable[str]) -> None:
        everything = "\n".join(texts)
        number = 0
        while (mark := f"\ue000{number}\ue001") in everything:
            number += 1
        self._mark = mark
        self._all = _pattern(specials)
        self._control = _pattern([one for one in specials if one.attributes & (_UNKNOWN | _CONTROL)])

    def message(self, message: Message) -> Message:
        """The marked message. An answer of the model keeps its tags, such as those of its reasoning."""
        marked: Message = self.value(message)
        if message["role"] == "assistant":
            marked["content"] = self._deep(message.get("content"), self._control)
        return marked

    def value(self, value: Any) -> Any:
        """The value with a mark after the first character of each name in its texts."""
        return self._deep(value, self._all)

    def _deep(self, value: Any, names: re.Pattern[str]) -> Any:
        if isinstance(value, str):
            return names.sub(lambda found: found[0] + self._mark, value)
        if isinstance(value, Mapping):
            return {self._deep(key, names): self._deep(inner, names) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._deep(inner, names) for inner in value]
        return value

    def removed(self, prompt: str) -> tuple[str, frozenset[int]]:
        """The prompt without marks, and the index of each mark in it."""
        escaped = self._mark.encode("ascii", "backslashreplace").decode()  # JSON in ASCII
        pieces = re.split(f"{self._mark}|{re.escape(escaped)}", prompt)
        indexes, at = [], 0
        for piece in pieces[:-1]:
            at += len(piece)
            indexes.append(at)
        return "".join(pieces), frozenset(indexes)


def _pattern(specials: Sequence[_Special]) -> re.Pattern[str]:
    """The first character of each name; names may overlap."""
    names = "|".join(re.escape(one.name) for one in specials)
    return re.compile(f"(?={names})." if names else "(?!)", re.DOTALL)


def _split(
    part: _Place | int, special: _Special, prompt: str, forged: frozenset[int]
) -> Iterator[_Place | int]:
    """The part, divided at each occurrence of the name that is not forged."""
    if isinstance(part, int):
        yield part
        return
    start = at = part.start
    while (at := prompt.find(special.name, at, part.end)) >= 0:
        after = at + len(special.name)
        if any(at < index < after for index in forged):
            at += 1
            continue
        before = at
        while special.attributes & _STRIPS_LEFT and before > start and prompt[before - 1].isspace():
            before -= 1
        yield _Place(start, before)
        yield special.token
        while special.attributes & _STRIPS_RIGHT and after < part.end and prompt[after].isspace():
            after += 1
        start = at = after
    yield _Place(start, part.end)
