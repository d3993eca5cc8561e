"""The command that lets a person choose a model: `pick`."""

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
            metavar="DIR", help="Where records lie, instead of GGUFBENCH_RESULTS or `results` here."
        ),
    ] = None,
    match: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="Begin with these words in the filter: all must match (capitals or not)."
        ),
    ] = "",
    sort: Annotated[SortBy, typer.Option(help="Sort by this column; the best first.")] = "name",
    output: Annotated[
        Output | None,
        typer.Option(help="Print the file's path (as without it), or its LlamaCppModelConfig as JSON."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every model that matches as JSON, and ask nothing.")
    ] = False,
) -> None:
    """Choose a model in the terminal, among all on this machine with what was measured of them.

    Only the choice reaches standard output, so that this works: MODEL=$(ggufbench pick)

    Keys: type to filter, up and down, Enter chooses, ctrl+s sorts, ? shows all keys.

    Exits 0 with a choice, 130 without one (Esc, Ctrl-C, or q in the table), 2 where it cannot be asked for.
    """
    from ggufbench.picker.entries import Order, matching, ordered

    if as_json and output is not None:
        raise GgufbenchError(
            "--json prints every model, and --output says how to print the chosen one; leave one out"
        )
    if results is not None and not results.is_dir():
        raise GgufbenchError(
            f"--results {str(results)!r} is no folder; name the one that holds the runs, or leave it out"
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
    """The user's choice; None where they left."""
    from ggufbench.picker.terminal import on_the_terminal

    try:
        from ggufbench.picker.app import Picker
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        raise GgufbenchError(
            "the picker needs textual, which is not installed here; "
            'install it with `pip install "ggufbench[tui]"`, or take --json'
        ) from None
    with on_the_terminal():
        pass  # before anything is looked for
    tell("Looking for models")
    entries = _entries(places, results)
    if not entries:
        raise GgufbenchError(
            "no GGUF model was found; give a folder with --models, or make some with `ggufbench synth`"
        )
    with on_the_terminal():
        return Picker(entries, match, order).run()


def _print_path(path: Path) -> None:
    """The path as it is for a program; on a terminal what could steer it is quoted as shells read it."""
    shown = str(path)
    if sys.stdout.isatty() and not shown.isprintable():
        from ggufbench.report.text.phrases import shell_command

        typer.echo(shell_command([shown]))
        return
    sys.stdout.buffer.write(os.fsencode(path) + b"\n")
    sys.stdout.buffer.flush()
