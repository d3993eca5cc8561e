"""Forms of a conversation: as it was given, and as templates with stricter rules accept it.

A template may refuse a late system message, two consecutive messages of one role, several calls in a message
or the ids of calls, or it may omit the content that accompanies a call. Each function here changes one of
these properties and keeps every text.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial, reduce
from itertools import product
from typing import Any

Message = dict[str, Any]
Form = Callable[[list[Message]], list[Message]]

_SYSTEM = ("system", "developer")
_MOST_COST = 4
"""Largest cost of a form: a template that needs more changes at once is not tried further."""


@cache
def _forms() -> tuple[list[Form], list[Form]]:
    """Every form that changes something, the cheapest first; and those that write calls as text."""
    choices = [choice for choice in product(*_PROPERTIES) if sum(cost for cost, _ in choice) <= _MOST_COST]
    choices.sort(key=lambda choice: sum(cost for cost, _ in choice))
    made = [[step for _, step in choice if step is not _unchanged] for choice in choices]
    return (
        [partial(_steps, steps) for steps in made if steps],
        [partial(_steps, [tools_as_text, *steps]) for steps in made],
    )


def _steps(steps: Sequence[Form], messages: list[Message]) -> list[Message]:
    return reduce(lambda made, step: step(made), steps, messages)


def applied(messages: Sequence[Message], seconds: float) -> Iterator[tuple[Form, list[Message]]]:
    """Each form and the conversation in it; forms that give the same conversation are left out.

    Writing calls as text comes last, because it gives up the model's own format of calls; also if the other
    forms take longer than `seconds`.
    """
    seen = [list(messages)]
    yield _unchanged, seen[0]
    end = time.monotonic() + seconds
    for forms in _forms():
        for form in forms:
            if time.monotonic() > end:
                break
            made = form(list(messages))
            if made not in seen:
                seen.append(made)
                yield form, made
        end = time.monotonic() + seconds


def _unchanged(messages: list[Message]) -> list[Message]:
    return messages


# Content


def text_of(content: Any) -> str:
    """The text of a message's content, which is a text or a list of parts."""
    return content if isinstance(content, str) else "".join(part["text"] for part in content or ())


def _as_text(messages: list[Message]) -> list[Message]:
    return [
        {**message, "content": text_of(message["content"])}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def _as_parts(messages: list[Message]) -> list[Message]:
    return [
        {**message, "content": [{"type": "text", "text": message["content"]}]}
        if isinstance(message.get("content"), str)
        else message
        for message in messages
    ]


def _is_bare_call(message: Message) -> bool:
    return bool(message.get("tool_calls")) and not message.get("content")


def _content_is_null(messages: list[Message]) -> list[Message]:
    return [{**message, "content": None} if _is_bare_call(message) else message for message in messages]


def _content_is_absent(messages: list[Message]) -> list[Message]:
    return [
        {key: value for key, value in message.items() if key != "content"}
        if _is_bare_call(message)
        else message
        for message in messages
    ]


# System messages and consecutive messages of one role


def merged(messages: list[Message]) -> list[Message]:
    """Join consecutive plain messages of one role."""
    made: list[Message] = []
    for message in messages:
        last = made[-1] if made else None
        if last is None or last["role"] != message["role"] or not _is_plain(last) or not _is_plain(message):
            made.append(message)
        else:
            made[-1] = _joined([last, message])
    return made


def _joined(messages: Sequence[Message]) -> Message:
    return {**messages[0], "content": "\n\n".join(text_of(message.get("content")) for message in messages)}


def _is_plain(message: Message) -> bool:
    return message["role"] != "tool" and not message.get("tool_calls")


def _late_system_by_user(messages: list[Message]) -> list[Message]:
    """System messages after the beginning become part of the user's turn at their place."""
    made = merged(messages)
    return (
        made[:1] + _system_by_user(made[1:]) if made and made[0]["role"] in _SYSTEM else _system_by_user(made)
    )


def _system_by_user(messages: list[Message]) -> list[Message]:
    return merged(
        [{**message, "role": "user"} if message["role"] in _SYSTEM else message for message in messages]
    )


def _system_first(messages: list[Message]) -> list[Message]:
    """All system messages become one at the beginning."""
    system = [message for message in messages if message["role"] in _SYSTEM]
    rest = merged([message for message in messages if message["role"] not in _SYSTEM])
    return [{**_joined(system), "role": "system"}, *rest] if system else rest


# Calls


def _apart(messages: list[Message]) -> list[Message]:
    """The content that accompanies calls becomes a message before them."""
    return [made for message in messages for made in _parted(message)]


def _parted(message: Message) -> list[Message]:
    if not message.get("tool_calls") or not message.get("content"):
        return [message]
    plain = {key: value for key, value in message.items() if key != "tool_calls"}
    return [plain, {**message, "content": ""}]


def _one_by_one(messages: list[Message]) -> list[Message]:
    """Each call in its own message, followed by its result."""
    made: list[Message] = []
    rest = deque(_apart(messages))
    while rest:
        message = rest.popleft()
        results = []
        while message.get("tool_calls") and rest and rest[0]["role"] == "tool":
            results.append(rest.popleft())
        for call in message.get("tool_calls") or ():
            made.append({**message, "tool_calls": [call]})
            answer = next((one for one in results if one.get("tool_call_id") == call["id"]), None)
            if answer is not None:
                results.remove(answer)
                made.append(answer)
        if not message.get("tool_calls"):
            made.append(message)
        made += results
    return made


def tools_as_text(messages: list[Message]) -> list[Message]:
    """Calls and results as text in tags, for a template without tools."""
    return [_tool_as_text(message) for message in messages]


def _tool_as_text(message: Message) -> Message:
    if message["role"] == "tool":
        result = f"<tool_response>\n{text_of(message['content'])}\n</tool_response>"
        return {"role": "user", "content": result}
    if not message.get("tool_calls"):
        return message
    written = (json.dumps(call["function"], ensure_ascii=False) for call in message["tool_calls"])
    calls = [f"<tool_call>\n{call}\n</tool_call>" for call in written]
    rest = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**rest, "content": "\n".join(filter(None, [text_of(message.get("content")), *calls]))}


def _json_arguments(messages: list[Message]) -> list[Message]:
    def change(call: Any) -> Any:
        function = call["function"]
        return {
            **call,
            "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)},
        }

    return [
        {**message, "tool_calls": [change(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def _renumbered(made: Callable[[int, str], str]) -> Form:
    """The form whose ids are made from the number of the call in the conversation and the tool's name."""

    def change(messages: list[Message]) -> list[Message]:
        number = 0
        unanswered: dict[Any, deque[str]] = {}
        changed = []
        for message in messages:
            if calls := message.get("tool_calls"):
                unanswered = {call["id"]: deque() for call in calls}
                new = [made(number + index, call["function"]["name"]) for index, call in enumerate(calls)]
                number += len(calls)
                for call, identifier in zip(calls, new, strict=True):
                    unanswered[call["id"]].append(identifier)
                renamed = [{**call, "id": identifier} for call, identifier in zip(calls, new, strict=True)]
                changed.append({**message, "tool_calls": renamed})
            elif message["role"] == "tool" and (waiting := unanswered.get(message.get("tool_call_id"))):
                changed.append({**message, "tool_call_id": waiting.popleft()})
            else:
                changed.append(message)
        return changed

    return change


_PROPERTIES: tuple[tuple[tuple[int, Form], ...], ...] = (
    ((0, _unchanged), (1, _apart), (1, _one_by_one)),
    (
        (0, _unchanged),
        (1, _renumbered(lambda number, _: f"call{number:05d}")),  # Mistral: nine letters and digits
        (3, _renumbered(lambda number, _: f"call_{number:024x}")),  # OpenAI
        (3, _renumbered(lambda number, name: f"functions.{name}:{number}")),  # Kimi
        (3, _renumbered(lambda number, _: str(number))),
    ),
    ((0, _unchanged), (1, _json_arguments)),
    ((0, _unchanged), (1, merged), (1, _late_system_by_user), (2, _system_first), (1, _system_by_user)),
    ((0, _unchanged), (0, _as_text), (1, _as_parts)),
    ((0, _unchanged), (1, _content_is_null), (2, _content_is_absent)),
)
"""The properties in the order in which they are changed: the alternatives of each, with their costs."""
