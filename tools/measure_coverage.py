"""Measure line coverage of src, including every process that the tests start.

Run as `.venv/bin/python tools/measure_coverage.py PYTEST-ARGUMENTS`. A worker has a clean environment, so a
`.pth` file in this Python's site-packages starts the measurement in each process. It is removed at the end.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
CONFIG = """
[run]
data_file = {folder}/data
parallel = true
source = {checkout}/src/ggufbench
sigterm = true
patch = _exit
"""
START = (
    "import os, coverage; os.environ.setdefault('COVERAGE_PROCESS_START', {!r}); coverage.process_startup()\n"
)


def main() -> int:
    """Run pytest, combine the data of all processes, and print the report. Returns pytest's exit code."""
    pth = Path(sysconfig.get_paths()["purelib"]) / "measure_coverage.pth"
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "coverage.ini"
        config.write_text(CONFIG.format(folder=folder, checkout=CHECKOUT))
        pth.write_text(START.format(str(config)))
        try:
            tests = python("-m", "pytest", *sys.argv[1:])
        finally:
            pth.unlink()
        python("-m", "coverage", "combine", "--quiet", f"--rcfile={config}")
        python("-m", "coverage", "report", f"--rcfile={config}")
    return tests


def python(*arguments: str) -> int:
    """Run this Python with these arguments and return its exit code."""
    return subprocess.run([sys.executable, *arguments], cwd=CHECKOUT, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
