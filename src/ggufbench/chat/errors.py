"""What goes wrong with a chat model, as one sentence for the user."""

from __future__ import annotations

from ggufbench.errors import GgufbenchError


class ChatModelError(GgufbenchError, ValueError):
    """A model cannot be loaded or asked in this way.

    The message is one sentence that names the file or the value, and the remedy.
    """
