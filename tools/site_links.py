"""Hook of mkdocs: on the site, a link to a file outside of `docs/` becomes plain text."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]*\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Keep the text of links that only work in the repository."""
    return _OUTSIDE.sub(r"\1", markdown)
