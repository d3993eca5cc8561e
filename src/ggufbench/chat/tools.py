"""Tools: their description for the model, and the calls found in its answer."""

# ruff: noqa: RUF001 (the marks of DeepSeek have a wide bar)
from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.utils.function_calling import convert_to_openai_tool

from ggufbench.chat.call_formats import CALL_MARKS, Call, Tools, bare_calls, read_calls
from ggufbench.chat.errors import ChatModelError
from ggufbench.chat.schemas import check_depth
from ggufbench.text import printable

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_FUNCTION = "<function="

# The special tokens of the models' tokenizers, as their chat templates use them.
_BLOCKS = {
    _OPEN: _CLOSE,  # Hermes, Qwen, GLM, and Granite, which does not close it
    _FUNCTION: "</function>",  # Qwen3-Coder without the outer tag, Llama 3
    "<seed:tool_call>": "</seed:tool_call>",
    "<minimax:tool_call>": "</minimax:tool_call>",
    "<TOOLCALL>": "</TOOLCALL>",  # Nemotron
    "<|tool_call|>": "<|/tool_call|>",  # Phi, and Granite, which does not close it
    "<|tool_call>": "<tool_call|>",  # Gemma 4
    "<start_function_call>": "<end_function_call>",  # FunctionGemma
    "<|tool_call_start|>": "<|tool_call_end|>",  # LFM
    "<｜tool▁calls▁begin｜>": "<｜tool▁calls▁end｜>",  # DeepSeek
    "<｜tool▁call▁begin｜>": "<｜tool▁call▁end｜>",  # DeepSeek without the outer marker
    "<|tool_calls_section_begin|>": "<|tool_calls_section_end|>",  # Kimi
    "<|START_ACTION|>": "<|END_ACTION|>",  # Command
    "```tool_code": "```",  # Gemma 3
    "[TOOL_CALLS]": None,  # Mistral
    "<|python_tag|>": None,  # Llama 3
    "functools": None,  # Phi
}
"""Markers around calls; None: the calls last until the end of the answer."""
_MARKS = re.compile("|".join(map(re.escape, sorted([*_BLOCKS, _CLOSE], key=len, reverse=True))))
_BEGINNINGS = frozenset(mark[:length] for mark in [*_BLOCKS, _CLOSE] for length in range(1, len(mark)))
_LONGEST = max(map(len, [*_BLOCKS, *filter(None, _BLOCKS.values())]))

CONTROL_TEXTS = (*_BLOCKS, *filter(None, _BLOCKS.values()), *CALL_MARKS)
"""Control tokens whose text belongs to the answer if tools are bound."""


def describe(tools: Sequence[Mapping[str, Any]]) -> str:
    """The instruction that describes the tools to a model whose template does not support them."""
    listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    form = '{"name": "the tool\'s name", "arguments": {"an argument": "its value"}}'
    return (
        f"You can call these tools; each line describes one, with a JSON schema of its arguments:\n{listed}\n"
        f"To call one, answer with nothing but this:\n{_OPEN}\n{form}\n{_CLOSE}\n"
        "Its result comes back in <tool_response> tags. Answer in words where no tool is needed."
    )


def as_tool(tool: Any) -> dict[str, Any]:
    """A function, class or schema in OpenAI's tool format. Raises ChatModelError for anything else."""
    try:
        made = convert_to_openai_tool(tool)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        first = printable(str(error).strip().partition("\n")[0] or type(error).__name__, 120)
        raise ChatModelError(
            f"{printable(repr(tool), 80)} is not a tool: {first}; pass a function with a docstring, a "
            "pydantic class, or a JSON schema with a title."
        ) from None
    if not isinstance(made["function"].get("parameters") or {}, dict):
        name = printable(repr(made["function"].get("name")), 80)
        raise ChatModelError(f"The parameters of the tool {name} are not a JSON schema; write an object.")
    check_depth(made)
    return made


class ToolReader:
    """Splits an answer into text and calls, and yields each part as soon as its kind is certain."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._held = ""
        self._block: str | None = None
        """Marker of the block that is being read."""
        self._began = False
        """True once text was yielded: JSON that follows is text."""
        self._after_function = False
        """True if the last part was a call without the outer tag, whose end tag may follow."""

    def feed(self, text: str) -> Iterator[str | Call]:
        """Yield the parts that are certain after this text."""
        looked = max(0, len(self._held) - _LONGEST)
        self._held += text
        while self._block is not None or not self._may_be_bare():
            if self._block is not None:
                close = _BLOCKS[self._block]
                end = self._held.find(close, looked) if close else -1
                if close is None or end < 0:
                    return
                body, self._held = self._held[:end], self._held[end + len(close) :]
                yield from self._end_block(body, close)
            else:
                found = _MARKS.search(self._held, looked)
                if found is None:
                    yield from self._emit(self._certain())
                    return
                yield from self._begin_block(found)
            looked = 0

    def end(self) -> Iterator[str | Call]:
        """Yield the parts held back, after the last text."""
        held, self._held = self._held, ""
        if self._block is not None:
            yield from self._end_block(held, "")
            return
        calls = [] if self._began else bare_calls(held, self._tools)
        yield from calls
        if not calls and held.strip():
            yield held

    def _may_be_bare(self) -> bool:
        """True if the answer consists only of JSON so far, which may be calls without a marker."""
        text = self._held.lstrip()
        return not self._began and text[:1] in ("{", "[") and not _MARKS.match(text)

    def _begin_block(self, found: re.Match[str]) -> Iterator[str]:
        before, mark = self._held[: found.start()], found[0]
        self._held = self._held[found.end() :]
        if mark != _CLOSE:
            self._block = mark
            yield from self._emit(before.rstrip())
        elif self._after_function and not before.strip():
            self._after_function = False
        else:
            yield from self._emit(before + mark)

    def _end_block(self, body: str, close: str) -> Iterator[str | Call]:
        mark, self._block = self._block or "", None
        parts = body.split(mark)
        if mark == _FUNCTION:
            parts = [f"{mark}{part}{close}" for part in parts]
        calls = [call for part in parts for call in read_calls(part, self._tools)]
        self._after_function = mark == _FUNCTION
        yield from calls
        if not calls:  # it does not name a tool
            yield from self._emit(f"{mark}{body}{close}")

    def _emit(self, text: str) -> Iterator[str]:
        if text:
            self._began, self._after_function = True, False
            yield text

    def _certain(self) -> str:
        """Take the held text, except an unfinished marker and the space before it."""
        held = self._held
        longest = min(len(held), _LONGEST)
        kept = next((n for n in range(longest, 0, -1) if held[-n:] in _BEGINNINGS), 0)
        ready = held[: len(held) - kept].rstrip()
        self._held = held[len(ready) :]
        return ready


def argument_schemas(tools: Sequence[Mapping[str, Any]]) -> Tools:
    """The schema of the arguments of each tool, by the tool's name."""
    return {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
