"""`ggufbench run`: the benchmarks that are part of the package, without a checkout."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ggufbench.measuring.run_options import RUN_OPTIONS, RunOption


def run(**given: Any) -> None:
    """Measure every GGUF model that is found, under every scenario that can run here.

    This is `pytest bench --benchmark-only` without a checkout, and the records, the table and the exit codes
    are the same: 0 pass, 1 a benchmark failed, 2 or 4 usage, 10 regression, 11 broken, 12 no comparable
    baseline, 13 inconclusive with --gate-strict, 14 nothing measured. What follows `--` goes to pytest.

    Example: ggufbench run --models model.gguf --scenario cpu -- -k load
    """
    import pytest

    from ggufbench.paths import shipped_folder

    benchmarks = shipped_folder("bench")
    options = [word for option in RUN_OPTIONS for word in _words(option, given[option.key])]
    # The settings, conftests and plugins of the project in the current folder must not change a measurement.
    isolation = ["-c", os.devnull, f"--rootdir={Path.cwd()}", f"--confcutdir={benchmarks}"]
    plugins = ["--disable-plugin-autoload", "-p", "benchmark", "-p", "ggufbench", "-p", "no:cacheprovider"]
    quiet = ["--no-header", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    more = given["pytest_arguments"] or []
    arguments = [str(benchmarks), "--benchmark-only", *isolation, *plugins, *quiet, *options, *more]
    raise typer.Exit(int(pytest.main(arguments)))


def _words(option: RunOption, value: Any) -> Iterator[str]:
    """The option as pytest reads it."""
    values = value if option.repeatable else [value]
    for one in values or []:
        if one is True:
            yield f"--gguf-{option.name}"
        elif one is not None and one is not False:
            yield f"--gguf-{option.name}={one}"


def _parameters() -> Iterator[inspect.Parameter]:
    for option in RUN_OPTIONS:
        is_flag = option.metavar is None or option.without_value is not None
        value: Any = bool if is_flag else list[str] if option.repeatable else option.value_type
        help_ = option.help[:1].upper() + option.help[1:] + "."
        declared = typer.Option(f"--{option.name}", metavar=None if is_flag else option.metavar, help=help_)
        accepted: Any = value if is_flag else value | None
        annotation = Annotated[accepted, declared]
        yield _keyword(option.key, annotation, False if is_flag else None)
    rest = typer.Argument(metavar="PYTEST_ARGUMENTS", help="Given to pytest, for example -- -k load.")
    yield _keyword("pytest_arguments", Annotated[list[str] | None, rest], None)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


# typer reads the options of a command from the signature of its function.
run.__signature__ = inspect.Signature(list(_parameters()))  # type: ignore[attr-defined]
