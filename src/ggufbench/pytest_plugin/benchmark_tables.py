"""pytest-benchmark's own tables, made compact for a session that holds our benchmarks alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

_FIGURE, _COUNT, _NAME_GAP = 22, 8, 3
"""Columns that pytest-benchmark gives a figure with its factor, a count, and the end of a name."""

_MOST_COLUMNS = ["median", "iqr", "ops", "rounds"]
_FEW_COLUMNS = ["median", "iqr", "rounds"]


def make_compact(config: pytest.Config, width: int) -> bool:
    """Show fewer columns and case ids only; True if so.

    The tables stay as they are in a session with other benchmarks, and where the user chose their form or
    compares with a stored run.
    """
    session: Any = config.pluginmanager.get_plugin("pytest-benchmark")
    rows = [row for _, rows in getattr(session, "groups", None) or [] for row in rows]
    if not rows or _has_own_form(config) or not all("gguf_case" in (row["params"] or {}) for row in rows):
        return False
    ids = [row["params"]["gguf_case"] for row in rows]
    longest = max(map(len, _without_identities(ids)))
    session.columns = _MOST_COLUMNS if _room(_MOST_COLUMNS, width) >= longest else _FEW_COLUMNS
    session.sort = "median"
    session.name_format = _case_name(ids, _room(session.columns, width))
    return True


def _has_own_form(config: pytest.Config) -> bool:
    option = config.getoption
    return bool(
        option("benchmark_columns")
        or option("benchmark_verbose")
        or option("benchmark_compare")
        or option("benchmark_sort") != "min"
        or option("benchmark_name") != "normal"
    )


def _room(columns: list[str], width: int) -> int:
    """Columns that are left for a name."""
    return width - _NAME_GAP - sum(_COUNT if column == "rounds" else _FIGURE for column in columns)


def _case_name(ids: list[str], room: int) -> Callable[[dict[str, Any]], str]:
    from ggufbench.report.text.names import shortened

    short = dict(zip(ids, _without_identities(ids), strict=True))
    shown = shortened(short.values(), max(room, 12))
    return lambda row: shown[short[row["params"]["gguf_case"]]]


def _without_identities(ids: list[str]) -> list[str]:
    """The ids without the identity of the model at their ends, if that leaves them distinct."""
    short = [case_id.rpartition("-")[0] for case_id in ids]
    return short if len(set(short)) == len(set(ids)) else ids
