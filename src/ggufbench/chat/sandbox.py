"""Where chat templates run: jinja2's sandbox, and limits to how much work and memory they can ask for.

jinja2 keeps a template from Python's objects. It does not keep it from working for ever or from filling the
memory, so every loop and call is counted here, and whatever makes long texts of short ones is measured first.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from jinja2 import ext, nodes, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from ggufbench.errors import GgufbenchError

MOST_CHARACTERS = 16 << 20
"""Of any text that a template makes."""
_MOST_STEPS = 1_000_000
"""Of one rendering: a round of a loop is one."""
_CALL = 20
"""Steps of a call, which takes that much longer."""
_MOST_WIDTH = 10_000
"""Of a number that is given to anything: texts are padded to it."""
_WIDE = re.compile(r"\d{5,}|\*")
"""A width in a format."""
_COUNTER = "steps left"
"""No template can set a name with a space in it."""


class LimitError(GgufbenchError, ValueError):
    """A template asks for too much."""


def limits() -> dict[str, Any]:
    """What one rendering needs among its variables."""
    return {_COUNTER: [_MOST_STEPS]}


class _GenerationTag(ext.Extension):
    """`{% generation %}` marks what a model is trained on; for a prompt it means nothing."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own form)

    def parse(self, parser: Any) -> list[nodes.Node]:
        next(parser.stream)
        body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return body


class _SizedValue(NodeTransformer):
    """Lets every loop count its steps, and every `~` measure its text."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        node.iter = nodes.Filter(node.iter, "counted", [], [], None, None)
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        return nodes.Filter(self.generic_visit(nodes.List(node.nodes)), "joined", [], [], None, None)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment, with the names and filters that transformers gives to chat templates."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, ext.loopcontrols])
        self.filters = {name: _guarded(made) for name, made in self.filters.items()}
        self.filters |= {"tojson": _to_json, "counted": _counted, "joined": _joined}
        self.globals |= {"strftime_now": _strftime_now, "raise_exception": _raise_exception}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _SizedValue().visit(super()._parse(source, name, filename))
        return tree

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """What jinja2 joins the parts of blocks and macros with."""
        return _joined(parts)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The operators that make much of little."""
        if operator == "*":
            _check_length(_length(left) * right if isinstance(right, int) else 0)
            _check_length(_length(right) * left if isinstance(left, int) else 0)
        elif operator == "+":
            _check_length(_length(left) + _length(right))
        elif operator == "**" or (isinstance(left, str) and _WIDE.search(left)):
            raise LimitError(f"it makes too much with {operator}")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Every call of a function, method or macro."""
        _count(context, _CALL)
        method = getattr(called, "__wrapped__", called)  # jinja2 wraps str.format in a function of its own
        _check_arguments(getattr(method, "__name__", ""), getattr(method, "__self__", None), args, kwargs)
        return super().call(context, called, *args, **kwargs)


def _guarded(made: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(made)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        first = next((value for value in args if isinstance(value, str)), None)
        _check_arguments(made.__name__.removeprefix("do_"), first, args, kwargs)
        return made(*args, **kwargs)

    return guarded


def _check_arguments(name: str, text: Any, args: Iterable[Any], kwargs: dict[str, Any]) -> None:
    given = [*args, *kwargs.values()]
    numbers = (
        value for value in given if isinstance(value, int) and name not in ("int", "float", "abs", "range")
    )
    if any(abs(number) > _MOST_WIDTH for number in numbers):
        raise LimitError(f"it gives a number above {_MOST_WIDTH} to {name}")
    texts = [value for value in (text, *given) if isinstance(value, str)]
    if name.startswith("format") and any(_WIDE.search(value) for value in texts):
        raise LimitError(f"it gives a number above {_MOST_WIDTH} to {name}")
    if name in ("replace", "join"):
        lengths = sorted(map(_length, [text, *given]))
        _check_length((lengths[-1] + 1) * max(lengths[-2:-1], default=0))


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


def _check_length(length: int) -> None:
    if length > MOST_CHARACTERS:
        raise LimitError(f"it makes a text of more than {MOST_CHARACTERS} characters")


def _count(context: Context, steps: int = 1) -> None:
    counter = context.resolve(_COUNTER)
    if not isinstance(counter, list):  # while it is compiled: constant parts are computed then
        return
    counter[0] -= steps
    if counter[0] < 0:
        raise LimitError(f"it takes more than {_MOST_STEPS} steps")


@pass_context
def _counted(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _count(context)
        yield item


def _joined(parts: Iterable[Any]) -> str:
    texts = [str(part) for part in parts]
    _check_length(sum(map(len, texts)))
    return "".join(texts)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    _check_arguments("tojson", None, [], {"indent": indent})
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _raise_exception(message: str) -> None:
    raise ValueError(message)
