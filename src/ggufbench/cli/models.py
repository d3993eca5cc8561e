"""The commands that get a GGUF and try it: quantize, convert, pull, chat."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ggufbench.cli.options import AsJson, harmless, print_error, print_json
from ggufbench.cli.progress import ProgressLine
from ggufbench.errors import GgufbenchError
from ggufbench.exit_codes import ExitCode
from ggufbench.text import decimal_size

if TYPE_CHECKING:
    from ggufbench.chat import LlamaCppModelConfig
    from ggufbench.modelkit.load_test import LoadTest

NoLoadTest = Annotated[
    bool, typer.Option("--no-load-test", help="Do not load the file afterwards to see that it works.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]


def quantize(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A GGUF; of a split model the first part.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The file to write, or a folder: the name is made.")
    ],
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="Q4_K_M, Q8_0, IQ4_XS, F16, ... in any case.")],
    threads: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Processors to use; all if left out.")
    ] = None,
    imatrix: Annotated[
        Path | None, typer.Option(help="An importance matrix (GGUF), which types below Q2_K need.")
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
    sizes = f"{_size(made.source_bytes)} of {made.source_type} became {_size(made.file_size_bytes)}"
    told = f"{made.tensors} tensors in {made.seconds:.0f} s, {sizes} of {made.type}"
    _conclude(made, made.path, [told, *made.notes], test=not no_load_test, as_json=as_json)


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="REPO_OR_FOLDER",
            help="A folder with safetensors, or owner/name in the Hugging Face cache.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Argument(metavar="OUT", help="The file to write, or a folder; this folder if left out."),
    ] = None,
    kind: Annotated[
        str, typer.Option("--type", help="bf16, f16, f32, q8_0, or auto: the 16 bits that lose least.")
    ] = "auto",
    overwrite: Overwrite = False,
    no_load_test: NoLoadTest = False,
    as_json: AsJson = False,
) -> None:
    """Make a GGUF of a safetensors checkpoint, with the converter of the llama.cpp that is installed.

    The converter is fetched once, and where its libraries are missing, an environment is made for it once.
    Nothing of the checkpoint is run. Exits 11 where the file was made and does not load.
    """
    from ggufbench.modelkit.conversion import convert as work

    with ProgressLine() as line:
        made = work(source, out, kind, _say, line.show_bytes, overwrite=overwrite)
    sizes = f"{_size(made.source_bytes)} of safetensors became {_size(made.file_size_bytes)} of {made.type}"
    told = f"{sizes} in {made.seconds:.0f} s, by the converter of llama-cpp-python {made.converter}"
    _conclude(made, made.path, [told, *made.notes], test=not no_load_test, as_json=as_json)


def pull(
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="A repository that holds GGUFs.")],
    quant: Annotated[
        str | None,
        typer.Option(help="Which quantization, such as Q5_K_M, or which file; a Q4 before Q5, Q8, others."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="A branch, tag or commit.")] = None,
    cache: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Instead of the usual Hugging Face cache.")
    ] = None,
    no_load_test: NoLoadTest = False,
    as_json: AsJson = False,
) -> None:
    """Download one GGUF model from the hub into the Hugging Face cache, all its parts, and load it once.

    Interrupted, the same command goes on where it stopped. Exits 11 where the file does not load.
    """
    from ggufbench.modelkit.pull import pull as work

    made = work(repository, quant, revision, cache, _say)

    fetched = f"{decimal_size(made.fetched_bytes)} fetched" if made.fetched_bytes else "all of it was there"
    told = f"{decimal_size(made.file_size_bytes)}, {fetched} in {made.seconds:.0f} s"
    _conclude(made, made.path, [told], test=not no_load_test, as_json=as_json)


def chat(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A GGUF file, or owner/name in the Hugging Face cache.")
    ],
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="Left out, lines are read until Ctrl-D.")
    ] = None,
    quant: Annotated[
        str | None, typer.Option(help="Which quantization of owner/name, such as Q4_K_M.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, max=2**20, help="The longest answer.")] = 512,
    temperature: Annotated[
        float, typer.Option(min=0, max=100, help="0 takes the likeliest token each time.")
    ] = 0.8,
) -> None:
    """Ask a model, and see its answer as it comes; tokens and tokens per second go to stderr."""
    from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

    from ggufbench.chat import get_chat_model

    try:
        speaker = get_chat_model(_config(model, quant, max_tokens=max_tokens, temperature=temperature))
    except (ImportError, OSError) as error:
        raise GgufbenchError(str(error)) from None
    talk: list[BaseMessage] = []
    for text in [question] if question is not None else _lines():
        talk.append(HumanMessage(text))
        try:
            talk.append(AIMessage(_answer(speaker, talk)))
        except (ValueError, RuntimeError) as error:  # langchain's own among them
            raise GgufbenchError(str(error)) from None


def _config(model: str, quant: str | None, **changes: Any) -> LlamaCppModelConfig:
    """The config of a file, with a context that it was trained for. Raises GgufbenchError."""
    from ggufbench.chat import find_gguf_in_cache, rows
    from ggufbench.discovery import discover

    path = Path(model).expanduser()
    if not path.is_file():
        if model.lower().endswith(".gguf") or path.exists():
            raise GgufbenchError(
                f"{model} is no GGUF file; name one, or owner/name in the Hugging Face cache"
            )
        path = find_gguf_in_cache(model, quantization=quant)
    elif quant is not None:
        raise GgufbenchError(f"--quant chooses a file of owner/name, and {model} is a file; leave it out")
    found = discover([path])
    if not found.models:
        reason = found.rejected[0].reason if found.rejected else "it holds no model"
        raise GgufbenchError(f"{model} cannot be chatted with: {reason}")
    return rows(found.models)[0].config(**changes)


def _lines() -> Iterable[str]:
    while True:
        if sys.stdin.isatty():
            typer.echo("> ", err=True, nl=False)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.rstrip("\n")


def _answer(speaker: Any, talk: list[Any]) -> str:
    """Stream the answer to stdout and return it as the model wrote it.

    The rate is over the whole time, the question's included: a piece of text may hold several tokens, so that
    the time between the first piece and the last is that of an unknown number of them.
    """
    from time import perf_counter

    said, usage, first = [], None, 0.0
    asked = perf_counter()
    for chunk in speaker.stream(talk):
        first = first or (perf_counter() - asked if chunk.text else 0.0)
        usage = chunk.usage_metadata or usage
        said.append(chunk.text)
        typer.echo(harmless(chunk.text), nl=False)
        sys.stdout.flush()
    seconds = perf_counter() - asked
    typer.echo()
    sys.stdout.flush()
    tokens = usage["output_tokens"] if usage else len(said)
    rate = f"{tokens} tokens in {seconds:.2f} s, {tokens / seconds:.1f} tokens/s with the question's time"
    typer.echo(f"{rate}; the first text after {first:.2f} s", err=True)
    return "".join(said)


def _conclude(made: Any, path: Path, told: list[str], *, test: bool, as_json: bool) -> None:
    """Print what was made, load it, say what comes next; exit with 11 where it does not load."""
    from dataclasses import asdict

    from ggufbench.modelkit.load_test import load_test

    if not as_json:
        typer.echo(harmless(str(path)))
        for line in told:
            typer.echo(f"  {harmless(line)}")
    result = load_test(path) if test else None
    if as_json:
        print_json({**asdict(made), "load_test": asdict(result) if result else None})
    elif result is None or result.problem is None:
        typer.echo("\n".join(_next_steps(path, result)))
    if result is not None and result.problem is not None:
        print_error(f"{path} was made and is kept, but it does not load: {result.problem}")
        raise typer.Exit(ExitCode.BROKEN)


def _next_steps(path: Path, result: LoadTest | None) -> list[str]:
    import shlex

    from ggufbench.text import seconds_text

    lines = []
    if result is not None:
        took, size = seconds_text(result.seconds), _size(result.file_size_bytes)
        lines.append(f"  loads in {took} on the CPU: {result.layers} layers, {size}")
    quoted = harmless(shlex.quote(str(path)))
    lines.append(f'next: ggufbench chat {quoted} "Hello"')
    lines.append(f"      pytest bench --benchmark-only --models {quoted}")
    return lines


def _size(count: int) -> str:
    from ggufbench.text import size

    return size(count)


def _say(sentence: str) -> None:
    """Print a step that takes minutes, in the log of a CI run as well."""
    typer.echo(harmless(sentence), err=True)
