"""llama-bench's SQL, as `llama-bench -o sql` writes it: for sqlite3, and scripts/compare-llama-bench.py."""

from __future__ import annotations

from ggufbench.export.exporter import Wanted
from ggufbench.export.llama_bench_rows import FIELDS, LlamaBenchExporter, Row
from ggufbench.records.imported import Value
from ggufbench.records.runs import StoredRun
from ggufbench.text import escaped

_HEADER = (
    "-- Written by ggufbench. avg_ts and avg_ns are medians over the samples of all launches,\n"
    "-- where llama-bench has means over the repetitions of one process.\n"
)


class LlamaBenchSqlExporter(LlamaBenchExporter):
    """A table `llama_bench`, to which further exports can be added."""

    name = "llama-bench-sql"

    def content(self, run: StoredRun, wanted: Wanted) -> bytes:
        """The statements."""
        columns = ",\n".join(f"  {name} {kind}" for name, kind in FIELDS.items())
        table = f"CREATE TABLE IF NOT EXISTS llama_bench (\n{columns}\n);\n\n"
        return (_HEADER + table + "".join(map(_insert, self.rows(run)))).encode()


def _insert(row: Row) -> str:
    known = {name: value for name in FIELDS if isinstance(value := row.get(name), str | int | float)}
    values = ", ".join(map(_literal, known.values()))
    return f"INSERT INTO llama_bench ({', '.join(known)}) VALUES ({values});\n"  # noqa: S608  # text of a file


def _literal(value: Value) -> str:
    if isinstance(value, str):
        return "'" + escaped(value).replace("'", "''") + "'"
    return str(int(value)) if isinstance(value, bool) else repr(value)


EXPORTER = LlamaBenchSqlExporter()
