"""Read the JSON Lines of llama-bench as imported results."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ggufbench.errors import GgufbenchError
from ggufbench.paths import read_regular
from ggufbench.records.imported import ImportedResult, Imports
from ggufbench.records.store import IMPORT_PREFIX, MOST_BYTES, new_run_id
from ggufbench.values import first_complaint

_NEEDED = ("build_commit", "model_type", "n_prompt", "n_gen", "test_time", "avg_ts", "stddev_ts")


def read_llama_bench(path: Path) -> Imports:
    """Every test of the file. Raises GgufbenchError for the first line that is not one."""
    try:
        text = read_regular(path, MOST_BYTES).decode("utf-8")
    except OSError as error:
        raise GgufbenchError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise GgufbenchError(
            f"{path} is not UTF-8 at byte {error.start}; give the file of -o jsonl"
        ) from None
    created = datetime.now(UTC).isoformat(timespec="seconds")
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise GgufbenchError(f"{path} holds no test; make one with `llama-bench -o jsonl`")
    results = [_result(path, number, _fields(path, number, line), created) for number, line in lines]
    return Imports(run_id=f"{IMPORT_PREFIX}{new_run_id()}", source_file=_storable(path.name), results=results)


def _fields(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
        json.dumps(fields, ensure_ascii=False).encode()  # a lone surrogate cannot be stored
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise GgufbenchError(
            f"{path}, line {number}: this is not a usable JSON object; "
            "give the output of `llama-bench -o jsonl`"
        )
    missing = [name for name in _NEEDED if name not in fields]
    if missing:
        raise GgufbenchError(
            f"{path}, line {number}: the field {missing[0]} of llama-bench is missing; "
            "give the output of `llama-bench -o jsonl`"
        )
    return fields


def _result(path: Path, number: int, fields: dict[str, Any], created: str) -> ImportedResult:
    try:
        result = ImportedResult(
            case_id="",
            created=created,
            model=fields["model_type"],
            build=fields["build_commit"],
            measured=fields["test_time"],
            prompt_tokens=fields["n_prompt"],
            generated_tokens=fields["n_gen"],
            depth=fields.get("n_depth", 0),
            tokens_per_second=fields["avg_ts"],
            deviation=fields["stddev_ts"],
            fields=fields,
        )
    except ValidationError as error:
        raise GgufbenchError(f"{path}, line {number}: {first_complaint(error)}") from None
    name = re.sub(r"[^A-Za-z0-9._+-]+", "_", f"{result.model}-{result.test}")
    return result.model_copy(update={"case_id": f"line{number}-{name}"})


def _storable(name: str) -> str:
    """A file name as text that JSON can hold."""
    return name.encode("utf-8", errors="backslashreplace").decode()
