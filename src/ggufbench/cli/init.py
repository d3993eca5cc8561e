"""`ggufbench init`: an example for a project that gates its own changes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

_SCENARIOS = ("cpu.toml", "metal.toml", "cuda.toml", "vulkan.toml", "chat.toml", "targets.toml")
"""One for each device, the chat model, and the targets that they are held to."""


def init(
    folder: Annotated[Path, typer.Argument(help="The project, created if necessary.")] = Path(),
) -> None:
    """Write an example into a project: bench/, scenarios/ and a workflow for pull requests.

    Files that exist are kept as they are. Afterwards: pytest bench --benchmark-only
    """
    from ggufbench.errors import GgufbenchError

    try:
        written = [path for source, path in _example(folder) if _copy(source, path)]
    except OSError as error:
        raise GgufbenchError(f"{error.filename or folder} cannot be written: {error.strerror}") from None
    for path in written:
        typer.echo(f"wrote {path}")
    if not written:
        typer.echo(f"{folder} has every file of the example already; nothing was written.")
    typer.echo("Next: pytest bench --benchmark-only   (what would run: ggufbench plan)")


def _example(folder: Path) -> list[tuple[Path, Path]]:
    """Each file of the example: its source, and its place in the project."""
    from ggufbench.paths import shipped_folder

    scenarios = shipped_folder("scenarios")
    benchmarks = sorted(shipped_folder("bench").glob("*.py"))
    workflow = Path(__file__).parent / "example" / "workflow.yml"
    return [
        *((source, folder / "bench" / source.name) for source in benchmarks),
        *((scenarios / name, folder / "scenarios" / name) for name in _SCENARIOS),
        (workflow, folder / ".github" / "workflows" / "benchmarks.yml"),
    ]


def _copy(source: Path, path: Path) -> bool:
    """Copy a file unless something has its name already; False if so."""
    if path.exists() or path.is_symlink():
        typer.echo(f"kept {path}")
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)
    return True
