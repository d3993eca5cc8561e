"""Storage of comparisons: `RUN/comparisons/CASE.json`, with the blocks in a folder of the same name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ggufbench.records.comparison import Block, Comparison
from ggufbench.records.store import StoreError, file_name, once, read_each, run_folder, write_document

FOLDER = "comparisons"


def write_block(results: Path, block: Block) -> Path:
    """Store a block as soon as it was measured. Raises StoreError."""
    return write_document(_blocks_folder(results, block) / f"block-{block.number:02d}.json", block)


def write_comparison(results: Path, comparison: Comparison) -> Path:
    """Store a comparison at its end. Raises StoreError."""
    name = file_name(comparison.case_id)
    return write_document(run_folder(results, comparison.run_id) / FOLDER / name, comparison)


def read_comparisons(run: Path) -> Iterator[Comparison | StoreError]:
    """Read the comparisons of a run's folder; any other file, and a copy, is returned as its error."""
    return once(read_each(run / FOLDER, Comparison))


def read_all_comparisons(results: Path) -> list[Comparison]:
    """Every comparison that can be read, the oldest run first."""
    runs = sorted(path.parent for path in results.glob(f"*/{FOLDER}") if path.is_dir())
    return [found for run in runs for found in read_comparisons(run) if isinstance(found, Comparison)]


def _blocks_folder(results: Path, block: Block) -> Path:
    stem = file_name(block.case_id).removesuffix(".json")
    return run_folder(results, block.run_id) / FOLDER / stem
