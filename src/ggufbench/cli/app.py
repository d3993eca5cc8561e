"""The application of the command line, and the commands that belong to no other module."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ggufbench.cli.chat import chat
from ggufbench.cli.compare import compare
from ggufbench.cli.exchange import card, export, import_results
from ggufbench.cli.gating import TimeBudget, ab, bisect, selftest, shown_on
from ggufbench.cli.history import gate, history
from ggufbench.cli.init import init
from ggufbench.cli.models import convert, pull, quantize
from ggufbench.cli.options import (
    AsJson,
    CaseMatch,
    ModelMatch,
    Places,
    Quant,
    Results,
    RunName,
    ScenarioFolder,
    ScenarioNames,
    Seed,
    Strict,
    print_error,
    print_json,
    print_rich,
    request_from,
)
from ggufbench.cli.pick import pick
from ggufbench.cli.progress import ProgressLine, tell
from ggufbench.cli.report import report
from ggufbench.cli.run import run
from ggufbench.errors import GgufbenchError
from ggufbench.exit_codes import ExitCode
from ggufbench.modelkit.spec import Architecture
from ggufbench.paths import unusable_path
from ggufbench.processes import termination_as_interrupt

if TYPE_CHECKING:
    from ggufbench.measuring.preparation import Request
    from ggufbench.planning.plan import Case


_USAGE_ERRORS = (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP, errno.EROFS)
"""Errors of the file system that a wrong or inaccessible path of the user causes."""
_OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Commands(typer.core.TyperGroup):
    """All commands. A command that raises a GgufbenchError prints its message and exits with its code."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the help: first the command that most people need first."""
        return sorted(super().list_commands(ctx), key=lambda name: name != "run")

    def invoke(self, ctx: Any) -> Any:
        """Run the named command."""
        try:
            with termination_as_interrupt():
                return super().invoke(ctx)
        except GgufbenchError as error:
            print_error(error)
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            if error.errno not in _USAGE_ERRORS or error.filename is None:
                raise
            print_error(unusable_path(error))
            raise typer.Exit(ExitCode.USAGE) from None


app = typer.Typer(
    name="ggufbench",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Benchmark GGUF models on this machine, and find regressions.\n\n"
    "Measure every model that is found: ggufbench run\n\n"
    "Exit codes: 0 pass, 1 results or output not written, 2 wrong usage, 10 regression, 11 broken, "
    "12 no comparable baseline, 13 inconclusive with --strict, 14 nothing measured, 130 interrupted.",
)


def _print_version(requested: bool) -> None:
    if requested:
        from ggufbench import __version__

        typer.echo(f"ggufbench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Options without a command."""


def main() -> None:
    """The console script. Output to a full disk is one error, and a closed pipe ends it without a message."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the encoding of the terminal cannot represent must not end the command.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except OSError as error:
        if error.filename is not None or error.errno not in _OUTPUT_ERRORS:
            raise
        _discard_output()
        if error.errno != errno.EPIPE:
            with contextlib.suppress(OSError):
                print_error(f"the output cannot be written: {error.strerror}; free some space or redirect it")
        sys.exit(ExitCode.NOT_WRITTEN)


def _discard_output() -> None:
    """Send the rest of the output nowhere: Python writes it at its end, and would fail again."""
    if sys.stdout is not None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@app.command()
def models(places: Places = None, as_json: AsJson = False) -> None:
    """List the GGUF models on this machine, and the files that cannot be used, with the reasons.

    Example: ggufbench models --models ~/Downloads

    Exit codes: 0, also if no model was found; 2 if a folder does not exist.
    """
    from ggufbench.discovery import discover
    from ggufbench.measuring.preparation import requested_places

    found = discover(requested_places(places or []) or None)
    if as_json:
        print_json({"models": found.models, "rejected": found.rejected})
        return
    from ggufbench.report.text.terminal import models_table

    if not found.models and not found.rejected:
        typer.echo(
            "No GGUF file was found. Name a folder with --models, or make a model with `ggufbench synth`."
        )
        return
    print_rich(models_table(found))


@app.command()
def plan(
    places: Places = None,
    match: ModelMatch = None,
    quant: Quant = None,
    scenario: ScenarioNames = None,
    scenarios: ScenarioFolder = None,
    results: Results = Path("results"),
    as_json: AsJson = False,
) -> None:
    """List the cases that a run would measure, with the estimated memory and time of each.

    Example: ggufbench plan --scenario cpu --quant Q4_K_M

    Exit codes: 0; 2 if an option or a scenario is wrong.
    """
    from ggufbench.launching.launcher import Interpreter
    from ggufbench.measuring.preparation import prepare_run

    request = request_from(
        places, match, quant=quant, scenario=scenario, scenarios=scenarios, results=results
    )
    prepared = prepare_run(request, Interpreter())
    if as_json:
        print_json({"cases": [_planned(case) for case in prepared.cases]})
        return
    from ggufbench.report.text.terminal import plan_table

    print_rich(plan_table(prepared.cases))


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="File to write, or the folder with --demo.")],
    architecture: Annotated[
        Architecture, typer.Option("--arch", help="Architecture of the model.")
    ] = "llama",
    size: Annotated[str, typer.Option(help="Number of parameters, such as 20M or 1.1B.")] = "110M",
    quant: Annotated[
        str, typer.Option(help="Quantization: F16, Q8_0, Q4_0, MXFP4, Q4_K_M, IQ4_NL, ...")
    ] = "Q8_0",
    vocabulary: Annotated[int, typer.Option(help="Size of the vocabulary in tokens.")] = 32000,
    seed: Annotated[int, typer.Option(help="Random seed; the same seed makes the same file.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing file.")] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="Make those of the demo models that are missing.")
    ] = False,
) -> None:
    """Write a synthetic GGUF: real shapes, types and tokenizer, random weights.

    Its speed and memory are realistic, its answers are not. Example: ggufbench synth tiny.gguf --size 20M

    Exit codes: 0; 2 if the size or the quantization is not possible, or the file exists.
    """
    from ggufbench.modelkit import SynthSpec, make_demo_models, parse_size, synthesize

    with ProgressLine() as line:

        def progress(done: int, total: int) -> None:
            line.show_bytes(done / max(1, total), total)

        def demo_progress(name: str, done: int, total: int) -> None:
            if done == 0:
                typer.echo(f"Making {name}", err=True)
            progress(done, total)

        if demo:
            made = make_demo_models(out, demo_progress)
        else:
            spec = SynthSpec(
                architecture=architecture,
                parameters=parse_size(size),
                quantization=quant,
                vocabulary=vocabulary,
                seed=seed,
            )
            made = [synthesize(out, spec, progress, overwrite=overwrite)]
    for path in made:
        typer.echo(f"{path} ({path.stat().st_size / 1e6:.0f} MB, synthetic)")


@app.command()
def verify(
    llama_bench: Annotated[
        Path | None, typer.Option("--llama-bench", metavar="PATH", help="Path of the llama-bench program.")
    ] = None,
    perplexity: Annotated[
        Path | None,
        typer.Option(
            "--perplexity",
            metavar="PATH",
            help="Path of the llama-perplexity program: compare divergences instead of rates.",
        ),
    ] = None,
    places: Places = None,
    match: ModelMatch = None,
    scenario: Annotated[
        str | None,
        typer.Option(help="Scenario with the setting of both programs (default: cpu, or quality)."),
    ] = None,
    scenarios: ScenarioFolder = None,
    pairs: Annotated[int, typer.Option(min=1, max=1000, help="Pairs of runs for each model.")] = 10,
    prompt: Annotated[int, typer.Option(min=1, max=2**20, help="Number of prompt tokens.")] = 512,
    generate: Annotated[int, typer.Option(min=1, max=2**20, help="Number of generated tokens.")] = 64,
    depth: Annotated[int, typer.Option(min=0, max=2**20, help="Tokens already in the context.")] = 0,
    repetitions: Annotated[int, typer.Option(min=1, max=1000, help="Samples of each test in a run.")] = 3,
    tolerance: Annotated[
        float,
        typer.Option(min=0, max=1, help="Largest distance of the confidence interval of the ratio from 1."),
    ] = 0.02,
    seed: Seed = None,
    strict: Strict = False,
    time_budget: TimeBudget = None,
    as_json: AsJson = False,
) -> None:
    """Check the rates of ggufbench against llama-bench, or its divergences against llama-perplexity.

    Rates are compared in pairs of runs; the options for pairs and work apply to them alone.
    Example: ggufbench verify --llama-bench ~/llama.cpp/build/bin/llama-bench --models model.gguf

    Exit codes: 0 if no test differs; 10 if one differs; 11 if a program failed; 13 with --strict if a test is
    inconclusive; 14 if nothing could be measured.
    """
    from ggufbench.comparing.verify import VerifyRequest, Work
    from ggufbench.comparing.verify import verify as run_verify
    from ggufbench.report.text.verification import document, verification_report

    if (llama_bench is None) == (perplexity is None):
        raise GgufbenchError(
            "give the program to compare with: either --llama-bench PATH or --perplexity PATH"
        )
    name = scenario or ("quality" if llama_bench is None else "cpu")
    request = request_from(places, match, scenario=[name], scenarios=scenarios, time_budget=time_budget)
    if perplexity is not None:
        raise typer.Exit(_verify_divergences(request, perplexity, as_json=as_json))
    assert llama_bench is not None  # noqa: S101 (one of both, see above)
    work = Work(prompt, generate, depth, repetitions)
    with ProgressLine() as line:
        question = VerifyRequest(
            request,
            llama_bench,
            work,
            pairs,
            tolerance,
            seed,
            on_step=shown_on(line),
            tell=tell,
            on_wait=print_error,
        )
        found = run_verify(question)
    code = found.exit_code(strict=strict)
    if as_json:
        print_json(document(found, code))
    else:
        print_rich(verification_report(found))
    raise typer.Exit(code)


def _verify_divergences(request: Request, program: Path, *, as_json: bool) -> int:
    """Run `verify --perplexity`, print its result and return the exit code."""
    from ggufbench.comparing.llama_perplexity import PerplexityRequest, verify_divergences
    from ggufbench.report.text.divergences import divergences_report, document

    with ProgressLine() as line:
        found = verify_divergences(PerplexityRequest(request, program, line.show, print_error))
    if as_json:
        print_json(document(found))
    else:
        print_rich(divergences_report(found))
    return found.exit_code


@app.command()
def doctor(
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Measure the limits of the machine again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the limits of this machine, and the problems that make it unfit for measuring.

    The limits are measured once for each build of llama.cpp, in about 20 seconds, and stored.
    Example: ggufbench doctor --refresh

    Exit codes: 0, also if there are problems.
    """
    from ggufbench.calibration.doctor import examine
    from ggufbench.launching.launcher import Interpreter

    found = examine(Interpreter(), refresh=refresh, tell=tell)
    if as_json:
        print_json(found.document())
        return
    from ggufbench.report.text.doctor import doctor_report

    print_rich(doctor_report(found))


@app.command("rpc-server")
def rpc_server(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 50052,
    threads: Annotated[int, typer.Option(help="Number of CPU threads; 0 means the default number.")] = 0,
) -> None:
    """Serve the devices of this machine to the scenario `rpc`, on 127.0.0.1 only, until Ctrl-C.

    Example: ggufbench rpc-server --port 50052

    Exit codes: 0 after Ctrl-C; 2 if the port is in use or llama-cpp-python is not installed.
    """
    from ggufbench.launching.rpc_server import serve
    from ggufbench.machine.facts import resolve_threads
    from ggufbench.worker.channel import ProviderError

    def ready() -> None:
        typer.echo(f"Serving on 127.0.0.1:{port}. Press Ctrl-C to stop.")

    try:
        serve(port, threads or resolve_threads("auto"), ready)
    except ModuleNotFoundError:
        raise GgufbenchError(
            "llama-cpp-python is not installed; install it with `pip install llama-cpp-python`"
        ) from None
    except ProviderError as error:  # the sealed worker cannot raise a GgufbenchError
        raise GgufbenchError(str(error)) from None


@app.command()
def show(
    run: RunName = None,
    results: Results = Path("results"),
    match: CaseMatch = None,
    as_json: AsJson = False,
) -> None:
    """Show a stored run with all details: findings, loads, memory by part, machine limits, advice.

    A run with a transformers baseline is also compared with it. Example: ggufbench show --match Q4_K_M

    Exit codes: 0; 2 if there is no such run or case.
    """
    from ggufbench.records.runs import read_run
    from ggufbench.report.text.baselines import answers, baselines_table, findings_list, migration_table
    from ggufbench.report.text.comparison import comparison_report
    from ggufbench.report.text.imported import imported_table
    from ggufbench.report.text.record_details import details, documents
    from ggufbench.report.text.terminal import results_table, stack, width_of

    found = read_run(results, run)
    shown = found.only(match) if match else found
    if not shown.case_ids:
        ids = ", ".join(found.case_ids[:12])
        raise GgufbenchError(
            f"no case in {found.folder} matches --match {', '.join(match or [])}; its cases are {ids}"
        )
    for problem in found.problems:
        print_error(problem)
    answered = answers(shown.records, shown.comparisons, found.records)
    if as_json:
        cases, comparisons = documents(shown.records), shown.comparisons
        document = {"run": found.folder.name, "cases": cases, "comparisons": comparisons}
        print_json({**document, "imported": shown.imported, **answered.document()})
        return
    parts = [findings_list(answered.findings)]
    if shown.records:
        parts += [results_table(shown.records, width=width_of()), details(shown.records)]
        parts += [baselines_table(answered.versus), migration_table(answered.migrations)]
    if shown.comparisons:
        parts.append(comparison_report(shown.comparisons, [], width_of()))
    if shown.imported:
        parts.append(imported_table(shown.imported))
    print_rich(stack(*parts))


@app.command()
def schema() -> None:
    """Print the JSON Schema of a record.

    Example: ggufbench schema > record.schema.json
    """
    from ggufbench.records.schema import json_schema

    typer.echo(json_schema(), nl=False)


for _command in (
    run,
    init,
    quantize,
    convert,
    pull,
    chat,
    pick,
    ab,
    gate,
    history,
    selftest,
    bisect,
    report,
    compare,
    export,
    card,
):
    app.command()(_command)
app.command("import")(import_results)


def _planned(case: Case) -> dict[str, Any]:
    return {
        "case_id": case.id,
        "model": case.model,
        "scenario": case.scenario.name,
        "setting": case.setting,
        "workload": case.workload,
        "estimate": case.estimate,
        "skip": case.skip,
    }
