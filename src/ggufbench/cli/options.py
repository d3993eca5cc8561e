"""What every command of the terminal shares: its common options, its ways to print and to refuse."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ggufbench.exit_codes import ExitCode

if TYPE_CHECKING:
    from rich.console import RenderableType

Places = Annotated[
    list[str] | None,
    typer.Option(
        "--models",
        metavar="PATH",
        help="Look in this file or folder instead of the known caches (repeatable; also GGUFBENCH_MODELS).",
    ),
]
Results = Annotated[Path, typer.Option(envvar="GGUFBENCH_RESULTS", help="Where the runs lie.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def print_rich(content: RenderableType) -> None:
    """A table or text for people, as wide as the terminal."""
    from rich.console import Console

    Console(highlight=False).print(content)


def print_json(value: Any) -> None:
    """The same for programs."""
    import json

    from pydantic_core import to_jsonable_python

    text = json.dumps(to_jsonable_python(value), indent=2, ensure_ascii=False)
    # A path's bytes that are not UTF-8 stand in the text as lone surrogates, for which JSON has escapes.
    typer.echo(text.encode("utf-8", errors="backslashreplace").decode())


def tell(step: str) -> None:
    """What takes time now, for who watches."""
    if sys.stderr.isatty():
        typer.echo(f"{step} ...", err=True)


def refuse(error: object) -> NoReturn:
    """One sentence, and the exit code of a request that cannot be met."""
    typer.echo(f"ggufbench: {error}", err=True)
    raise typer.Exit(ExitCode.USAGE)
