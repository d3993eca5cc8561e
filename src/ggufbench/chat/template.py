"""Chat templates: programs from a model file, rendered in a sandbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError, meta

from ggufbench.chat.errors import ChatModelError
from ggufbench.chat.sandbox import MOST_CHARACTERS, LimitError, Sandbox, limits
from ggufbench.text import printable

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHATML_END = "<|im_end|>"

Message = dict[str, Any]


class Template:
    """A compiled chat template. Raises ChatModelError if the source is invalid."""

    def __init__(self, source: str, bos: str, eos: str, name: str) -> None:
        environment = Sandbox()
        self._name, self._texts = name, {"bos_token": bos, "eos_token": eos}
        self.source = source
        self.calls_by_tag = "<tool_call>" in source
        try:
            tree = environment.parse(source)
            self.takes_tools = "tools" in meta.find_undeclared_variables(tree)
            self._template = environment.from_string(source)
        except (TemplateError, RecursionError, ArithmeticError, ValueError, MemoryError) as error:
            raise self._broken(error) from None

    def render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """The prompt of this conversation, up to the beginning of the answer.

        Some templates reject two consecutive messages of one role, or a system message. Such a conversation
        is rewritten into a form that they accept; raises ChatModelError if that fails too.
        """
        failures: list[Exception] = []
        for form in _forms(messages):
            try:
                return self._render(form, tools)
            except LimitError as error:
                raise self._broken(error) from None
            except Exception as error:  # a template can raise anything, including MemoryError
                failures.append(error)
        raise self._broken(failures[0])

    def _render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str:
        parts, length = [], 0
        given = {"messages": messages, "tools": tools or None, "add_generation_prompt": True, **self._texts}
        for part in self._template.generate({**given, **limits()}):
            length += len(part)
            if length > MOST_CHARACTERS:
                raise LimitError(f"it makes more than {MOST_CHARACTERS} characters")
            parts.append(part)
        return "".join(parts)

    def _broken(self, error: Exception) -> ChatModelError:
        return ChatModelError(
            f"The chat template of {self._name} fails: {printable(str(error) or type(error).__name__, 160)}; "
            "set chat_template to another one."
        )


def _forms(messages: Sequence[Message]) -> list[Sequence[Message]]:
    merged = _merged(messages)
    system = merged[0]["content"] if merged and merged[0]["role"] == "system" else None
    rest = merged[1:]
    if system is None or not rest or rest[0]["role"] != "user":
        return [messages, merged]
    first = {**rest[0], "content": f"{system}\n\n{rest[0]['content']}"}
    return [messages, merged, [first, *rest[1:]]]


def _merged(messages: Sequence[Message]) -> list[Message]:
    """Merge consecutive plain messages of the same role."""
    merged: list[Message] = []
    for message in messages:
        last = merged[-1] if merged else None
        if last is None or last["role"] != message["role"] or not _is_plain(last) or not _is_plain(message):
            merged.append(message)
        else:
            merged[-1] = {**last, "content": f"{last['content']}\n\n{message['content']}"}
    return merged


def _is_plain(message: Message) -> bool:
    return message["role"] != "tool" and not message.get("tool_calls")
