"""Errors of chat models, each with one sentence for the user."""

from __future__ import annotations

from ggufbench.errors import GgufbenchError


class ChatModelError(GgufbenchError, ValueError):
    """A model cannot be loaded, or cannot answer this request.

    The message is one sentence that names the file or the value, and the remedy.
    """


class PromptTooLongError(ChatModelError):
    """The prompt has more tokens than the context."""
