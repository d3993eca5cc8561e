"""Line coverage of src, with every process that the tests start.

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
concurrency = thread
patch = _exit
[report]
ignore_errors = true
precision = 1
"""
START = "import os; os.environ.setdefault('COVERAGE_PROCESS_START', {config!r}); import coverage; coverage.process_startup()\n"  # noqa: E501


def main() -> int:
    """Run pytest, combine what all processes recorded, and print the report. Returns pytest's exit code."""
    pth = Path(sysconfig.get_paths()["purelib"]) / "measure_coverage.pth"
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "coverage.ini"
        config.write_text(CONFIG.format(folder=folder, checkout=CHECKOUT))
        pth.write_text(START.format(config=str(config)))
        try:
            tests = subprocess.run([sys.executable, "-m", "pytest", *sys.argv[1:]], cwd=CHECKOUT, check=False)
        finally:
            pth.unlink()
        for command in ("combine", "report"):
            arguments = [sys.executable, "-m", "coverage", command, f"--rcfile={config}"]
            subprocess.run([*arguments, *(["--quiet", folder] if command == "combine" else [])], check=True)
    return tests.returncode


if __name__ == "__main__":
    raise SystemExit(main())
