"""Chat templates: programs out of a file, run where they can do no harm.

The sandbox of jinja2 keeps them from Python's objects. It does not keep them from work without end, so
ranges, repetitions and the length of the result have limits of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ggufbench.chat.errors import ChatModelError, shown

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHATML_END = "<|im_end|>"

_MOST_CHARACTERS = 64 << 20
_MOST_STEPS = 1_000_000
"""Of all ranges in one rendering."""

Message = dict[str, Any]


class Template:
    """A compiled chat template. Raises ChatModelError where the source is none."""

    def __init__(self, source: str, bos: str, eos: str, name: str) -> None:
        from jinja2 import TemplateError, meta

        self._environment = _environment()
        self._name, self._texts = name, {"bos_token": bos, "eos_token": eos}
        self.calls_by_tag = "<tool_call>" in source
        try:
            tree = self._environment.parse(source)
            self.takes_tools = "tools" in meta.find_undeclared_variables(tree)
            self._template = self._environment.from_string(source)
        except (TemplateError, RecursionError, OverflowError, ValueError) as error:
            raise self._broken(error) from None

    def render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """The prompt of this conversation up to where the answer begins.

        Some templates refuse two messages of one role in a row, or a system message. Such a conversation is
        put into a form that they take; ChatModelError where that does not help either.
        """
        failure: Exception | None = None
        for form in _forms(messages):
            try:
                return self._render(form, tools)
            except Exception as error:  # a template can raise anything
                failure = failure or error
        assert failure is not None  # noqa: S101 (there is always one form)
        raise self._broken(failure)

    def _render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str:
        parts, length = [], 0
        given = {"messages": messages, "tools": tools or None, "add_generation_prompt": True, **self._texts}
        for part in self._template.generate(given, range=_limited_range()):
            length += len(part)
            if length > _MOST_CHARACTERS:
                raise OverflowError(f"it makes more than {_MOST_CHARACTERS} characters")
            parts.append(part)
        return "".join(parts)

    def _broken(self, error: Exception) -> ChatModelError:
        return ChatModelError(
            f"The chat template of {self._name} fails: {shown(str(error) or type(error).__name__, 160)}; "
            "give another one with chat_template."
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
    """Plain messages of one role in a row become one."""
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


def _environment() -> ImmutableSandboxedEnvironment:
    """What templates expect: the names and filters that transformers gives them."""
    from jinja2 import ext, nodes, sandbox

    class Generation(ext.Extension):
        """`{% generation %}` marks what a model is trained on; for a prompt it means nothing."""

        tags = {"generation"}  # noqa: RUF012 (jinja2's own form)

        def parse(self, parser: Any) -> list[nodes.Node]:
            next(parser.stream)
            body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return body

    class Environment(sandbox.ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            """Refuse what would make an endless text or number of a short template."""
            if operator == "**" or _repeats_too_often(left, right) or _repeats_too_often(right, left):
                raise OverflowError(f"the template multiplies too much with {operator}")
            return super().call_binop(context, operator, left, right)

    environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols])
    environment.filters["tojson"] = _to_json
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["raise_exception"] = _raise_exception
    return environment


def _repeats_too_often(text: Any, times: Any) -> bool:
    if isinstance(text, str | list | tuple) and isinstance(times, int):
        return len(text) * times > _MOST_STEPS
    return False


def _limited_range() -> Any:
    left = _MOST_STEPS

    def limited(*bounds: int) -> range:
        nonlocal left
        steps = range(*bounds)
        left -= len(steps) + 1
        if left < 0:
            raise OverflowError(f"the template counts to more than {_MOST_STEPS}")
        return steps

    return limited


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _raise_exception(message: str) -> None:
    raise ValueError(message)
