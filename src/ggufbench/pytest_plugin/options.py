"""The options of a run, as pytest declares them."""

from __future__ import annotations

from typing import Any

import pytest

from ggufbench.measuring.run_options import RUN_OPTIONS, RunOption


def add_options(parser: pytest.Parser, title: str, prefix: str) -> None:
    """Declare every option as PREFIX + name, except names that another plugin or conftest has declared."""
    groups = [*parser._groups, parser._anonymous]
    taken = {name for group in groups for known in group.options for name in known.names()}
    group = parser.getgroup(title)
    for declared in RUN_OPTIONS:
        name = f"{prefix}{declared.name}"
        if name not in taken:
            group.addoption(name, **_declaration(declared))


def option(config: pytest.Config, name: str) -> Any:
    """The value of an option of a run, by its name without a prefix."""
    return config.getoption(RunOption.key_of(name))


def _declaration(option: RunOption) -> dict[str, Any]:
    common = {"dest": option.key, "help": option.help, "default": option.default}
    if option.metavar is None:
        return {**common, "action": "store_true"}
    valued = {**common, "metavar": option.metavar, "type": option.value_type}
    if option.repeatable:
        return {**valued, "action": "append", "default": []}
    if option.without_value is not None:
        return {**valued, "nargs": "?", "const": option.without_value}
    return valued
