"""Benchmarks and a regression gate for GGUF models on your own machine.

The names in `__all__` are the public API (docs/api.md). Each is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ggufbench.api.measurement import discover, measure
    from ggufbench.api.stored import Results, compare, load
    from ggufbench.discovery.model import Discovery, Model
    from ggufbench.errors import GgufbenchError
    from ggufbench.metrics import METRICS
    from ggufbench.planning.scenario import Scenario
    from ggufbench.records.runs import StoredRun
    from ggufbench.records.schema import Record
    from ggufbench.records.tables import Table

__version__ = "0.1.0"

_MODULES = {
    "METRICS": "metrics",
    "Discovery": "discovery.model",
    "GgufbenchError": "errors",
    "Model": "discovery.model",
    "Record": "records.schema",
    "Results": "api.stored",
    "Scenario": "planning.scenario",
    "StoredRun": "records.runs",
    "Table": "records.tables",
    "compare": "api.stored",
    "discover": "api.measurement",
    "load": "api.stored",
    "measure": "api.measurement",
}

__all__ = [
    "METRICS",
    "Discovery",
    "GgufbenchError",
    "Model",
    "Record",
    "Results",
    "Scenario",
    "StoredRun",
    "Table",
    "compare",
    "discover",
    "load",
    "measure",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
