"""The commands that exchange results with people and other programs: export, import, card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ggufbench.cli.options import AsJson, CaseMatch, Results, RunName, print_error, print_json, print_rich
from ggufbench.errors import GgufbenchError
from ggufbench.text import did_you_mean, listed

if TYPE_CHECKING:
    from ggufbench.export.exporter import Exporter
    from ggufbench.records.runs import StoredRun

_FORMATS = "csv, parquet, markdown, llama-bench-jsonl, llama-bench-sql, github-action-benchmark or bencher"


def export(
    run: RunName = None,
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help=f"{_FORMATS}.")] = "csv",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write this file instead of printing.")
    ] = None,
    results: Results = Path("results"),
    match: CaseMatch = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="Only this metric (repeatable); not for llama-bench's formats.")
    ] = None,
    summaries: Annotated[
        bool,
        typer.Option("--summaries", help="csv, parquet: a row for each metric, not each sample."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
) -> None:
    """Write a stored run in the format of another program.

    Example: ggufbench export RUN --to csv --out run.csv

    csv and parquet hold one row for each sample (columns: docs/api.md). llama-bench-sql is for sqlite3 and
    llama.cpp's scripts/compare-llama-bench.py; its avg_ts is our median over launches. One file for
    github-action-benchmark has one direction: the rates, or what --metric names.
    """
    from ggufbench.export.exporter import Wanted

    exporter = _exporter(to)
    if exporter.is_binary and out is None:
        raise GgufbenchError(f"--to {to} is not text, so it cannot be printed; give a file with --out")
    wanted = Wanted(_metrics(metric or [], exporter), summaries)
    found = _run(results, run, match)
    _name_left_out(found, exporter)
    content = exporter.content(found, wanted)
    if out is None:
        typer.echo(content, nl=False)
        return
    _write(out, content, overwrite=overwrite)
    typer.echo(out)


def import_results(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The output of `llama-bench -o jsonl`.")],
    results: Results = Path("results"),
    as_json: AsJson = False,
) -> None:
    """Store results of llama-bench, to show them beside those of ggufbench.

    Example: llama-bench -m model.gguf -o jsonl > a.jsonl; ggufbench import a.jsonl

    They are stored as a run of their own, which `ggufbench show` prints with a caveat. They are not records:
    no gate, comparison, report or history reads them.
    """
    from ggufbench.export.llama_bench_import import read_llama_bench
    from ggufbench.records.imported import write_imports
    from ggufbench.report.text.imported import imported_table

    imports = read_llama_bench(file)
    write_imports(results, imports)
    if as_json:
        print_json({"run": imports.run_id, "imported": imports.results})
        return
    print_rich(imported_table(imports.results))
    typer.echo(f"{results / imports.run_id}; show it again: ggufbench show {imports.run_id}")


def card(run: RunName = None, results: Results = Path("results"), match: CaseMatch = None) -> None:
    """Print a run in about ten lines of plain text, to paste into an issue.

    Example: ggufbench card --match qwen3

    It names the processor, memory, system, build, model and the measured values, and no host, user, path or
    process. A run with several cases has one line for each.
    """
    from ggufbench.export.card import card as make_card

    typer.echo(make_card(_run(results, run, match)))


def _exporter(name: str) -> Exporter:
    from ggufbench.export import EXPORTERS

    if name not in EXPORTERS:
        hint = did_you_mean(name, EXPORTERS) or f"; the formats are {', '.join(EXPORTERS)}"
        raise GgufbenchError(f"--to {name!r} is not a format{hint}")
    return EXPORTERS[name]


def _run(results: Path, name: str | None, match: list[str] | None) -> StoredRun:
    """The run with the matching cases. Raises GgufbenchError if there is none."""
    from ggufbench.records.runs import read_run

    found = read_run(results, name)
    for problem in found.problems:
        print_error(problem)
    shown = found.only(match) if match else found
    if not shown.case_ids:
        ids = ", ".join(found.case_ids[:12])
        raise GgufbenchError(
            f"{found.folder} has no case that matches {', '.join(match or [])}; it holds {ids}"
        )
    return shown


def _name_left_out(run: StoredRun, exporter: Exporter) -> None:
    """Print what the format cannot hold. Raises GgufbenchError if that is everything."""
    left = [document.case_id for document in run.documents if not exporter.takes(document)]
    if not left:
        return
    sentence = f"{exporter.name} cannot hold {listed(left)} of {run.name}"
    if len(left) == len(run.documents):
        raise GgufbenchError(f"{sentence}, so there is nothing to export; choose another run or format")
    print_error(f"{sentence}; the other cases are exported")


def _metrics(names: list[str], exporter: Exporter) -> list[str]:
    from ggufbench.metrics import METRICS

    if names and not exporter.takes_metrics:
        raise GgufbenchError(
            f"--metric has no effect with --to {exporter.name}, which has the rates alone; leave it out"
        )
    for name in names:
        if name not in METRICS:
            hint = did_you_mean(name, METRICS) or f"; the metrics are {', '.join(METRICS)}"
            raise GgufbenchError(f"--metric {name!r} is not a metric{hint}")
    return list(dict.fromkeys(names))


def _write(path: Path, content: bytes, *, overwrite: bool) -> None:
    from ggufbench.paths import atomic_write

    try:
        with atomic_write(path, overwrite=overwrite) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        if isinstance(error, FileExistsError) and path.exists():
            raise GgufbenchError(f"{path} exists; replace it with --overwrite") from None
        raise GgufbenchError(f"{path} cannot be written: {error.strerror}; give another --out") from None
