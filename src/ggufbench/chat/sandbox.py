"""Sandbox for chat templates: jinja2's sandbox with limits on work and memory.

jinja2 keeps a template away from Python's objects. It does not prevent an endless template or one that fills
the memory, so every loop and call is counted here, and operations that lengthen texts are checked first.
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
"""Longest text that a template may make."""
_MOST_STEPS = 1_000_000
"""Steps of one rendering; a loop iteration is one step."""
_CALL = 20
"""Steps counted for a call, which takes about as much longer than an iteration."""
_MOST_WIDTH = 10_000
"""Largest number passed as an argument, because texts can be padded to it."""
_WIDE = re.compile(r"\d{5,}|\*")
"""A large width in a format string."""
_COUNTER = "steps left"
"""Variable name of the counter; a template cannot set a name that contains a space."""


class LimitError(GgufbenchError, ValueError):
    """A template exceeded a limit."""


def limits() -> dict[str, Any]:
    """Variables that one rendering needs for its limits."""
    return {_COUNTER: [_MOST_STEPS]}


class _GenerationTag(ext.Extension):
    """`{% generation %}`, which marks training text and has no effect on a prompt."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own form)

    def parse(self, parser: Any) -> list[nodes.Node]:
        next(parser.stream)
        body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return body


class _SizedValue(NodeTransformer):
    """Rewrites every loop to count its steps, and every `~` to check its length."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        node.iter = nodes.Filter(node.iter, "counted", [], [], None, None)
        return self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        return nodes.Filter(self.generic_visit(nodes.List(node.nodes)), "joined", [], [], None, None)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment, with the names and filters that transformers provides to chat templates."""

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
        """Join the parts of blocks and macros, for jinja2."""
        return _joined(parts)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Check the operators that can make large values from small ones."""
        if operator == "*":
            _check_length(_length(left) * right if isinstance(right, int) else 0)
            _check_length(_length(right) * left if isinstance(left, int) else 0)
        elif operator == "+":
            _check_length(_length(left) + _length(right))
        elif operator == "**" or (isinstance(left, str) and _WIDE.search(left)):
            raise LimitError(f"the operator {operator} could make a value that is too large")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Count and check every call of a function, method or macro."""
        _count(context, _CALL)
        method = getattr(called, "__wrapped__", called)  # jinja2 wraps str.format
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
        raise LimitError(f"it passes a number above {_MOST_WIDTH} to {name}")
    texts = [value for value in (text, *given) if isinstance(value, str)]
    if name.startswith("format") and any(_WIDE.search(value) for value in texts):
        raise LimitError(f"it passes a number above {_MOST_WIDTH} to {name}")
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
    if not isinstance(counter, list):  # during compilation, when constants are folded
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
