from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ggufbench.modelkit import SynthSpec, synthesize

Probe = Callable[..., dict[str, Any]]
Make = Callable[..., Path]

PROBE = Path(__file__).with_name("probe.py")


@pytest.fixture(scope="session")
def probe() -> Probe:
    """Load a file with llama.cpp in a fresh process, decode, tokenize `texts`; what it says as a dict."""

    def run(path: Path, texts: tuple[str, ...] = ()) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, str(PROBE), str(path)],
            input=json.dumps(texts),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        )
        assert done.returncode == 0, f"llama.cpp ended with {done.returncode}: {done.stderr[-2000:]}"
        return json.loads(done.stdout)

    return run


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a small model and return its path."""

    def run(
        architecture: str = "llama", parameters: int = 3_000_000, quantization: str = "Q8_0", **fields: Any
    ) -> Path:
        fields = {"vocabulary": 1024, **fields}
        spec = SynthSpec(architecture, parameters, quantization, **fields)
        return synthesize(tmp_path / f"{architecture}-{quantization}-{fields.get('seed', 0)}.gguf", spec)

    return run
