"""Run the programs of docs/provider.md as written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "provider.md"
PROGRAMS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_page_has_programs():
    assert len(PROGRAMS) == 5


@pytest.mark.real
@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_documented_program_runs(hub, quantized, checkpoint, number):
    hub.add("owner/name-GGUF", {"name-Q4_0.gguf": quantized("Q4_0")})
    hub.add("owner/name", {path.name: path for path in checkpoint.iterdir()})
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", PROGRAMS[number]],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
