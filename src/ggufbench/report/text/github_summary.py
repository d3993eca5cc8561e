"""The summary of a workflow run on GitHub."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ggufbench.records.comparison import Comparison
from ggufbench.report.text.comparison import markdown


def write_summary(comparisons: Sequence[Comparison], skipped: Sequence[tuple[str, str]]) -> str | None:
    """Append Markdown to the file named by GITHUB_STEP_SUMMARY, if set. Returns an error message, or None."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        return None
    try:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(markdown(comparisons, skipped))
    except OSError as error:
        return f"GITHUB_STEP_SUMMARY {path} cannot be written: {error.strerror}"
    return None
