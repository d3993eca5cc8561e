"""Convert LangChain messages into the plain dictionaries that chat templates take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, ToolMessage

from ggufbench.chat.errors import ChatModelError
from ggufbench.chat.forms import Message, text_of, tools_as_text
from ggufbench.text import printable

_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "tool"}
_NOT_TEXT = (
    "tool_use", "tool_call", "tool_call_chunk", "invalid_tool_call",
    "thinking", "redacted_thinking", "reasoning",
)  # fmt: skip
"""Non-text blocks of a message, passed to the template in another way or left out."""


def to_template(messages: Sequence[BaseMessage], *, knows_tools: bool) -> list[Message]:
    """The conversation for a template; tool calls become text if the template has no tools.

    Raises ChatModelError for content that is not text.
    """
    plain = [_plain(message) for message in messages]
    return plain if knows_tools else tools_as_text(plain)


def _plain(message: BaseMessage) -> Message:
    plain: Message = {"role": _role(message), "content": _content(message.content)}
    if message.name:
        plain["name"] = message.name
    if isinstance(message, AIMessage) and message.tool_calls:
        plain["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["args"]},
            }
            for call in message.tool_calls
        ]
    if isinstance(message, AIMessage) and "reasoning_content" in message.additional_kwargs:
        plain["reasoning_content"] = message.additional_kwargs["reasoning_content"]
    if isinstance(message, ToolMessage):
        plain["tool_call_id"] = message.tool_call_id
    return plain


def _role(message: BaseMessage) -> str:
    if isinstance(message, ChatMessage):
        return message.role
    kind = message.type.removesuffix("MessageChunk").lower()
    role = _ROLES.get(kind)
    if role is None:
        raise ChatModelError(
            f"A message of type {printable(message.type)} is not supported; use a HumanMessage."
        )
    return role


def _content(content: str | list[str | dict[str, Any]]) -> str | list[dict[str, str]]:
    """The content as a text, or as a list of text parts."""
    if isinstance(content, str):
        return content
    return [{"type": "text", "text": text} for block in content if (text := _block_text(block))] or ""


def _block_text(block: str | dict[str, Any]) -> str:
    if isinstance(block, str):
        return block
    kind = block.get("type", "text")
    if kind in _NOT_TEXT:
        return ""
    if kind in ("text", "text-plain") and isinstance(block.get("text"), str):
        text: str = block["text"]
        return text
    raise ChatModelError(
        f"A message has a part of type {printable(str(kind), 40)}, but this model reads text only; send text."
    )


def with_instruction(messages: Sequence[Message], text: str) -> list[Message]:
    """The conversation with `text` appended to its system message, or as a new system message."""
    if messages and messages[0]["role"] == "system":
        return [{**messages[0], "content": f"{text_of(messages[0]['content'])}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]
