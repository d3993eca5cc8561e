"""What goes wrong with a chat model, as one sentence for the user."""

from __future__ import annotations

from ggufbench.discovery.header import printable
from ggufbench.errors import GgufbenchError


class ChatModelError(GgufbenchError, ValueError):
    """A model cannot be loaded or asked in this way.

    The message is one sentence that names the file or the value, and the remedy.
    """


def shown(text: str, most: int = 300) -> str:
    """Text of a file or of llama.cpp, fit for a message: one line, no control characters, at most `most`."""
    return printable(" ".join(text.split()), most)
