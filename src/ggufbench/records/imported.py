"""Results of other programs, kept beside records and never taken for them: `RUN/imported/FILE.json`.

They are shown with their caveat. No gate, comparison, report or history reads them: which settings they had,
what else the machine did and which file was measured is known only from what the other program wrote.

History of the format (`schema_version`):
1  first published.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ggufbench.records.store import StoreError, read_each, run_folder, write_document
from ggufbench.values import Amount, Count, Created, Name, Part

FOLDER = "imported"

CAVEAT = (
    "imported from llama-bench: a mean over the repetitions of one process, without a check "
    "for interference, so it is shown and never gated"
)

Value = str | bool | Annotated[int, Field(ge=-(2**63), lt=2**63)] | float
"""Type of a field of llama-bench."""


class ImportedResult(Part):
    """One test of llama-bench."""

    case_id: Name
    """Made from the line, the model and the test: `line1-llama_1B_Q8_0-pp512`."""
    created: Created
    """When it was imported, UTC, ISO 8601."""
    caveat: str = CAVEAT
    model: str
    build: str
    measured: str
    """The time that llama-bench wrote."""
    prompt_tokens: Count
    generated_tokens: Count
    depth: Count
    tokens_per_second: Amount = Field(ge=0)
    """`avg_ts`: llama-bench's mean over its repetitions."""
    deviation: Amount = Field(ge=0)
    """`stddev_ts`."""
    fields: dict[str, Value | list[Value]]
    """Every field of the line, unchanged."""

    @property
    def test(self) -> str:
        """The test as llama-bench writes it: `pp512`, `tg128 @ d1024`, `pp512+tg128`."""
        parts = [("pp", self.prompt_tokens), ("tg", self.generated_tokens)]
        name = "+".join(f"{letters}{count}" for letters, count in parts if count)
        return f"{name} @ d{self.depth}" if self.depth else name


class Imports(Part):
    """The document: every test of one file."""

    schema_version: Literal[1] = 1
    run_id: Name
    tool: Literal["llama-bench"] = "llama-bench"
    source_file: str
    """The name of the imported file, without its folder."""
    results: list[ImportedResult]


def write_imports(results: Path, imports: Imports) -> Path:
    """Keep the results of another program. Raises StoreError."""
    return write_document(run_folder(results, imports.run_id) / FOLDER / "llama-bench.json", imports)


def read_imports(run: Path) -> Iterator[ImportedResult | StoreError]:
    """The imported results of a run's folder; a file that holds none is yielded as its error."""
    for _, found in read_each(run / FOLDER, Imports):
        yield from [found] if isinstance(found, StoreError) else found.results
