"""The command `pick`, which lets the user choose a model."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ggufbench.cli.options import Places, print_json
from ggufbench.cli.progress import tell
from ggufbench.errors import GgufbenchError
from ggufbench.exit_codes import ExitCode
from ggufbench.picker.entries import SortBy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ggufbench.picker.entries import Order, PickerEntry

Output = Literal["path", "config"]


def pick(
    places: Places = None,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder with the stored runs (default: GGUFBENCH_RESULTS, or ./results)."
        ),
    ] = None,
    match: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Initial filter; every word must match, in any case."),
    ] = "",
    sort: Annotated[SortBy, typer.Option(help="Sort by this column, best first.")] = "name",
    output: Annotated[
        Output | None,
        typer.Option(help="Print the path of the file (default), or its LlamaCppModelConfig as JSON."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every matching model as JSON without asking.")
    ] = False,
) -> None:
    """Choose a model in the terminal, from all models on this machine with their measured results.

    Only the choice is written to standard output.

    Example: MODEL=$(ggufbench pick)

    Keys: type to filter, move with up and down, Enter to choose, Ctrl-S to sort, ? for all keys.

    Exit codes: 0 with a choice; 130 without one (Esc, Ctrl-C, or q in the table); 2 without a terminal.
    """
    from ggufbench.picker.entries import Order, matching, ordered

    if as_json and output is not None:
        raise GgufbenchError(
            "--json prints every model and --output prints the chosen one; use only one of them"
        )
    if results is not None and not results.is_dir():
        raise GgufbenchError(
            f"--results {str(results)!r} is not a folder; name the folder with the runs, or omit the option"
        )
    if as_json:
        entries = ordered(matching(_entries(places or [], results), match), Order(sort))
        print_json({"models": [entry.document() for entry in entries]})
        return
    chosen = _ask(places or [], results, match, Order(sort))
    if chosen is None:
        raise typer.Exit(ExitCode.INTERRUPTED)
    if output == "config":
        print_json(chosen.row.config())
    else:
        _print_path(chosen.row.path)


def _entries(places: Sequence[str], results: Path | None) -> list[PickerEntry]:
    from ggufbench.measuring.preparation import requested_places
    from ggufbench.picker.entries import find_entries

    return find_entries(requested_places(places) or None, results)


def _ask(places: Sequence[str], results: Path | None, match: str, order: Order) -> PickerEntry | None:
    """The choice of the user; None if there was none."""
    from ggufbench.picker.terminal import on_the_terminal

    try:
        from ggufbench.picker.app import Picker
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        raise GgufbenchError(
            "the picker needs textual, which is not installed; "
            'install it with `pip install "ggufbench[tui]"`, or use --json'
        ) from None
    with on_the_terminal():
        pass  # fail before the search
    tell("Searching for models")
    entries = _entries(places, results)
    if not entries:
        raise GgufbenchError(
            "no GGUF model was found; name a folder with --models, or make a model with `ggufbench synth`"
        )
    with on_the_terminal():
        return Picker(entries, match, order).run()


def _print_path(path: Path) -> None:
    """Print the exact path for a program; on a terminal control characters are quoted as in a shell."""
    shown = str(path)
    if sys.stdout.isatty() and not shown.isprintable():
        from ggufbench.report.text.phrases import shell_command

        typer.echo(shell_command([shown]))
        return
    sys.stdout.buffer.write(os.fsencode(path) + b"\n")
    sys.stdout.buffer.flush()
