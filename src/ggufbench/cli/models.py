"""The commands that make or download a GGUF: quantize, convert, pull."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ggufbench.cli.options import AsJson, harmless, print_error, print_json
from ggufbench.cli.progress import ProgressLine
from ggufbench.exit_codes import ExitCode
from ggufbench.text import decimal_size

if TYPE_CHECKING:
    from ggufbench.modelkit.load_test import LoadTest

NoLoadTest = Annotated[bool, typer.Option("--no-load-test", help="Do not load the file afterwards.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]


def quantize(
    source: Annotated[Path, typer.Argument(metavar="IN", help="GGUF file; the first part of a split model.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="File to write, or a folder for an automatic name.")
    ],
    kind: Annotated[
        str,
        typer.Argument(
            metavar="TYPE", help="Quantization: Q4_K_M, Q8_0, IQ4_XS, F16, ..., in upper or lower case."
        ),
    ],
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Number of threads (default: all processors).")
    ] = None,
    imatrix: Annotated[
        Path | None,
        typer.Option(help="Importance matrix, which types below Q2_K need."),
    ] = None,
    overwrite: Overwrite = False,
    no_load_test: NoLoadTest = False,
    as_json: AsJson = False,
) -> None:
    """Quantize a GGUF with the quantizer of llama.cpp. An incomplete file is never left behind.

    Example: ggufbench quantize model-F16.gguf . Q4_K_M

    Exit codes: 0; 2 if it cannot be quantized; 11 if the new file does not load.
    """
    from ggufbench.modelkit import quantization

    with ProgressLine() as line:
        made = quantization.quantize(
            source, out, kind, line.show_bytes, threads=threads, imatrix=imatrix, overwrite=overwrite
        )
    sizes = f"{_size(made.source_bytes)} of {made.source_type} to {_size(made.file_size_bytes)}"
    summary = f"{made.tensors} tensors in {made.seconds:.0f} s: {sizes} of {made.type}"
    _conclude(made, made.path, [summary, *made.notes], test=not no_load_test, as_json=as_json)


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="REPO_OR_FOLDER",
            help="Folder with safetensors, or owner/name in the Hugging Face cache.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="File to write, or a folder (default: this folder)."),
    ] = None,
    kind: Annotated[
        str, typer.Option("--type", help="bf16, f16, f32, q8_0, or auto: the 16-bit type that loses least.")
    ] = "auto",
    overwrite: Overwrite = False,
    no_load_test: NoLoadTest = False,
    as_json: AsJson = False,
) -> None:
    """Convert a safetensors checkpoint to GGUF with the converter of the installed llama.cpp.

    The converter is downloaded once, and gets its own environment if its libraries are missing. No code of
    the checkpoint is run. Example: ggufbench convert owner/name model.gguf --type bf16

    Exit codes: 0; 2 if it cannot be converted; 11 if the new file does not load.
    """
    from ggufbench.modelkit.conversion import convert as work

    with ProgressLine() as line:
        made = work(source, out, kind, _say, line.show_bytes, overwrite=overwrite)
    sizes = f"{_size(made.source_bytes)} of safetensors to {_size(made.file_size_bytes)} of {made.type}"
    summary = f"{sizes} in {made.seconds:.0f} s, by the converter of llama-cpp-python {made.converter}"
    _conclude(made, made.path, [summary, *made.notes], test=not no_load_test, as_json=as_json)


def pull(
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository with GGUF files.")],
    quant: Annotated[
        str | None,
        typer.Option(help="Quantization, such as Q5_K_M, or file (default: a Q4, else Q5, Q8, others)."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder to use instead of the default Hugging Face cache."),
    ] = None,
    no_load_test: NoLoadTest = False,
    as_json: AsJson = False,
) -> None:
    """Download a GGUF model with all its parts into the Hugging Face cache, and load it once.

    The same command resumes an interrupted download. Example: ggufbench pull owner/name --quant Q4_K_M

    Exit codes: 0; 2 if it cannot be downloaded; 11 if the file does not load.
    """
    from ggufbench.modelkit.pull import pull as work

    made = work(repository, quant, revision, cache, _say)

    fetched = f"{decimal_size(made.fetched_bytes)} downloaded" if made.fetched_bytes else "already downloaded"
    summary = f"{decimal_size(made.file_size_bytes)}, {fetched} in {made.seconds:.0f} s"
    _conclude(made, made.path, [summary], test=not no_load_test, as_json=as_json)


def _conclude(made: Any, path: Path, lines: list[str], *, test: bool, as_json: bool) -> None:
    """Print the new file, load it, and print the next steps. Exits with 11 if it does not load."""
    from dataclasses import asdict

    from ggufbench.modelkit.load_test import load_test

    if not as_json:
        typer.echo(harmless(str(path)))
        for line in lines:
            typer.echo(f"  {harmless(line)}")
    result = load_test(path) if test else None
    if as_json:
        print_json({**asdict(made), "load_test": asdict(result) if result else None})
    elif result is None or result.problem is None:
        typer.echo("\n".join(_next_steps(path, result)))
    if result is not None and result.problem is not None:
        print_error(f"{path} was written, but it does not load: {result.problem}")
        raise typer.Exit(ExitCode.BROKEN)


def _next_steps(path: Path, result: LoadTest | None) -> list[str]:
    import shlex

    from ggufbench.discovery import discover
    from ggufbench.text import seconds_text

    lines = []
    if result is not None:
        took, size = seconds_text(result.seconds), _size(result.file_size_bytes)
        lines.append(f"  loads in {took} on the CPU: {result.layers} layers, {size}")
    quoted = harmless(shlex.quote(str(path)))
    steps = [f"ggufbench run --models {quoted}"]
    if any(model.kind == "generator" for model in discover([path]).models):
        steps.insert(0, f'ggufbench chat {quoted} "Hello"')
    return [*lines, f"next: {steps[0]}", *(f"      {step}" for step in steps[1:])]


def _size(count: int) -> str:
    from ggufbench.text import size

    return size(count)


def _say(sentence: str) -> None:
    """Print a step that takes minutes, also without a terminal."""
    typer.echo(harmless(sentence), err=True)
