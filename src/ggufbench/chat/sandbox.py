"""Sandbox for chat templates: jinja2's sandbox with limits on work and memory.

jinja2 keeps a template away from Python's objects. It does not prevent an endless template or one that fills
the memory, so every loop and call is counted here, and operations that lengthen texts are checked first. A
number is checked only where it decides a length: one that is shown, compared or passed on is harmless.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from string import Formatter
from typing import Any

from jinja2 import ext, nodes, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from ggufbench.errors import GgufbenchError

_MOST_CHARACTERS = 16 << 20
"""Longest text that a template may make."""
_MOST_STEPS = 1_000_000
"""Steps of one rendering; a loop iteration is one step."""
_CALL = 20
"""Steps counted for a call, which takes about as much longer than an iteration."""
_MOST_SECONDS = 10.0
"""Duration of one rendering."""
_MOST_WIDTH = 10_000
"""Largest width to which a value is padded."""
_MOST_BITS = 100_000
"""Largest result of a multiplication of numbers, as a number of bits."""
_PADS = frozenset(
    {
        "batch",
        "center",
        "expandtabs",
        "indent",
        "lipsum",
        "ljust",
        "rjust",
        "round",
        "slice",
        "to_bytes",
        "zfill",
    }
)
"""Filters and methods whose result is as long as a number that is passed to them."""
_PERCENT_FIELD = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(\*|\d*)(?:\.(\*|\d*))?")
"""A field of a `%` format, with its width and its precision."""
_COUNTER = "steps left"
"""Variable name of the counter; a template cannot set a name that contains a space."""


class LimitError(GgufbenchError, ValueError):
    """A template exceeded a limit."""


def limits() -> dict[str, Any]:
    """Variables that one rendering needs for its limits."""
    return {_COUNTER: [_MOST_STEPS, time.monotonic() + _MOST_SECONDS]}


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
        self.filters = {name: _guarded(name, made) for name, made in self.filters.items()}
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
            _check_product(left, right)
        elif operator == "+":
            _check_length(_length(left) + _length(right))
        elif operator == "**":
            _check_bits(left.bit_length() * right if isinstance(left, int) and isinstance(right, int) else 0)
        elif isinstance(left, str):
            _check_percent(left, right)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Count and check every call of a function, method or macro."""
        _count(context, _CALL)
        method = getattr(called, "__wrapped__", called)  # jinja2 wraps str.format
        name, text = getattr(method, "__name__", ""), getattr(method, "__self__", None)
        if name in ("format", "format_map") and isinstance(text, str):
            _check_braces(text, [*args, *kwargs.values()])
        name = "lipsum" if called is self.globals["lipsum"] else name
        _check_arguments(name, text, [*args, *kwargs.values()])
        return super().call(context, called, *args, **kwargs)


def _guarded(name: str, made: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(made)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        first, given = (
            next((value for value in args if isinstance(value, str)), None),
            [*args, *kwargs.values()],
        )
        if name == "format" and first is not None:
            _check_percent(first, given)
        _check_arguments(name, first, given)
        return made(*args, **kwargs)

    return guarded


def _check_arguments(name: str, text: Any, given: Sequence[Any]) -> None:
    """Check a call of a filter or method that can make a long text from short ones."""
    widths = [value for value in given if isinstance(value, int)]
    if name in _PADS:
        _check_width(max(map(abs, widths), default=0), name)
    lengths = sorted(map(_length, [text, *given]))
    if name in ("replace", "join", "wordwrap"):
        _check_length((lengths[-1] + 1) * max(lengths[-2:-1], default=0))
    elif name in ("indent", "expandtabs"):
        places = text.count("\n") + text.count("\t") if isinstance(text, str) else _length(text)
        indents = [_length(value) for value in given if value is not text]
        _check_length(places * max([*widths, *indents], default=0))


def _check_percent(form: str, values: Any) -> None:
    """Check the widths in a `%` format, and the total length of its fields."""
    given = list(values.values()) if isinstance(values, dict) else values
    given = given if isinstance(given, list | tuple) else [given]
    fields = _PERCENT_FIELD.findall(form)
    for width in (width for field in fields for width in field if width):
        numbers = [value for value in given if isinstance(value, int)]
        _check_width(max(map(abs, numbers), default=0) if width == "*" else int(width), "a format")
    _check_length(len(fields) * max(map(_length, given), default=0))


def _check_braces(form: str, values: Sequence[Any]) -> None:
    """The same for a format with braces."""
    given = [inner for value in values for inner in (value.values() if isinstance(value, dict) else [value])]
    fields = [(field, spec or "") for _, field, spec, _ in Formatter().parse(form) if field is not None]
    for _, spec in fields:
        nested = [str(value) for value in given if "{" in spec and isinstance(value, int | str)]
        for width in re.findall(r"\d+", " ".join([spec, *nested])):
            _check_width(int(width), "a format")
    _check_length(len(fields) * max(map(_length, given), default=0))


def _check_product(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
    elif isinstance(right, int):
        _check_length(_length(left) * right)
    elif isinstance(left, int):
        _check_length(_length(right) * left)


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def _check_length(length: int) -> None:
    if length > _MOST_CHARACTERS:
        raise LimitError(f"it makes a text of more than {_MOST_CHARACTERS} characters")


def _check_width(width: int, name: str) -> None:
    if width > _MOST_WIDTH:
        raise LimitError(f"it passes a width above {_MOST_WIDTH} to {name}")


def _check_bits(bits: int) -> None:
    if bits > _MOST_BITS:
        raise LimitError(f"it computes a number of more than {_MOST_BITS} bits")


def _count(context: Context, steps: int = 1) -> None:
    counter = context.resolve(_COUNTER)
    if not isinstance(counter, list):  # during compilation, when constants are folded
        return
    counter[0] -= steps
    if counter[0] < 0:
        raise LimitError(f"it takes more than {_MOST_STEPS} steps")
    if time.monotonic() > counter[1]:
        raise LimitError(f"it takes more than {_MOST_SECONDS:g} s")


@pass_context
def _counted(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _count(context)
        yield item


def _joined(parts: Iterable[Any]) -> str:
    return "".join(limited(str(part) for part in parts))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    if not indent:
        return encoder.encode(value)
    _check_width(_length(indent) or indent, "tojson")
    return "".join(limited(encoder.iterencode(value)))


def limited(parts: Iterable[str]) -> Iterator[str]:
    """The parts, as long as their total length is within the limit."""
    length = 0
    for part in parts:
        length += len(part)
        _check_length(length)
        yield part


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _raise_exception(message: str) -> None:
    raise ValueError(message)
