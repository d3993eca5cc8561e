"""Stored runs for the tests of the Python API, made from real ones."""

import json
import shutil
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
FIRST = CHECKOUT / "tests" / "fixtures" / "results" / "first"


@pytest.fixture
def two_builds(tmp_path) -> Path:
    """`before`, the cpu cases of a stored run, and `after`, another build that decodes 5 % slower."""
    results = tmp_path / "results"
    for path in sorted(FIRST.glob("*-cpu.json")):
        (results / "before").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, results / "before")
        (results / "after").mkdir(exist_ok=True)
        (results / "after" / path.name).write_text(json.dumps(slower(json.loads(path.read_text()))))
    return results


def slower(record: dict) -> dict:
    record["run_id"], record["created"] = "after", "2026-11-25T06:00:00+00:00"
    record["provider"]["versions"]["llama-cpp-python"] = "0.3.37"
    for sample in (sample for launch in record["launches"] for sample in launch["samples"]):
        if sample["phase"] == "decode":
            sample["seconds"] /= 0.95
    if decode := record["summary"].get("decode_tokens_per_second"):
        for name in ("median", "minimum", "maximum"):
            decode[name] *= 0.95
        decode["per_launch"] = [0.95 * value for value in decode["per_launch"]]
    return record
