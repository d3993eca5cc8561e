"""Options, output and requests shared by several commands."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ggufbench.text import escaped

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ggufbench.measuring.preparation import Request

Places = Annotated[
    list[str] | None,
    typer.Option(
        "--models",
        metavar="PATH",
        help="File or folder with models, instead of the known caches (repeatable; also GGUFBENCH_MODELS).",
    ),
]
ModelMatch = Annotated[
    list[str] | None,
    typer.Option(help="Only models whose name or repository contains or matches this pattern (repeatable)."),
]
Quant = Annotated[
    list[str] | None, typer.Option(help="Only models of this quantization, such as Q4_K_M (repeatable).")
]
ScenarioNames = Annotated[
    list[str] | None, typer.Option(help="Only this scenario, such as cpu (repeatable).")
]
ScenarioFolder = Annotated[
    Path | None, typer.Option(help="Folder with scenario files (default: the built-in scenarios).")
]
Repetitions = Annotated[
    int | None, typer.Option(min=1, max=1000, help="Number of timed samples in each launch.")
]
Seed = Annotated[
    int | None,
    typer.Option(min=0, max=2**63 - 1, help="Random seed of the order in each pair (default: random)."),
]
RunName = Annotated[str | None, typer.Argument(help="Name or folder of a run (default: the newest).")]
CaseMatch = Annotated[
    list[str] | None, typer.Option(help="Only cases whose id contains this text (repeatable).")
]
Results = Annotated[Path, typer.Option(envvar="GGUFBENCH_RESULTS", help="Folder with the stored runs.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 13 if a verdict is inconclusive.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

_NOT_ASCII = re.compile(r"[^\x00-\x7e]")
_JOINERS = "\u200c\u200d"  # used within words of some scripts, and within emoji


def request_from(
    places: list[str] | None,
    match: list[str] | None,
    *,
    quant: list[str] | None = None,
    scenario: list[str] | None = None,
    scenarios: Path | None = None,
    repetitions: int | None = None,
    results: Path = Path("results"),
    time_budget: str | None = None,
) -> Request:
    """The request that these options describe. Raises GgufbenchError for an invalid time."""
    from ggufbench.measuring.preparation import Request, parse_duration, requested_places
    from ggufbench.planning.plan import Selection

    return Request(
        places=requested_places(places or []),
        selection=Selection(match or [], quant or []),
        scenarios=scenario or [],
        scenario_folder=scenarios,
        repetitions=repetitions,
        results=results,
        time_budget_seconds=parse_duration(time_budget) if time_budget else None,
    )


def print_rich(content: RenderableType) -> None:
    """Print a table or text in the width of the terminal."""
    from rich.console import Console

    Console(highlight=False).print(content)


def print_json(value: Any) -> None:
    """Print a value as JSON, with what a terminal would interpret, and lone surrogates, as escapes."""
    import json

    from pydantic_core import to_jsonable_python

    # Other encodings lack characters, for which JSON has escapes.
    is_unicode = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    text = json.dumps(to_jsonable_python(value), indent=2, ensure_ascii=not is_unicode)
    typer.echo(_NOT_ASCII.sub(lambda found: _as_json(found[0]), text))


def _as_json(character: str) -> str:
    """A character within JSON: an escape if it is unprintable, as bytes of a path that are not UTF-8."""
    import json

    return character if character.isprintable() else json.dumps(character)[1:-1]


def print_error(message: object) -> None:
    """Print one line to standard error."""
    typer.echo(f"ggufbench: {escaped(str(message), kept=_JOINERS)}", err=True)


def harmless(text: str) -> str:
    """Text for a terminal, with control characters escaped."""
    return escaped(text, kept="\n\t" + _JOINERS)
