"""The cache folder, and files written in one step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def cache_folder(env: Mapping[str, str] = os.environ) -> Path:
    """`GGUFBENCH_CACHE`, or `ggufbench` in the user's cache folder: limits, builds, environments."""
    if given := env.get("GGUFBENCH_CACHE"):
        return Path(given).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("ggufbench", appauthor=False)
