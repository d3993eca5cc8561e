"""pytest-benchmark's tables at the end of a session: compact for our benchmarks, untouched for all others."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.real

FOREIGN = "def test_foreign(benchmark):\n    benchmark(sum, [1, 2])\n"


def lines_of(done) -> list[str]:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def heading(lines: list[str]) -> str:
    return next(line for line in lines if line.startswith("Name (time in"))


def test_our_table_comes_first_and_the_others_are_compact(run_pytest, llama_folder):
    arguments = ("--models", str(llama_folder), "--scenario", "cpu")
    lines = lines_of(run_pytest(*arguments, env={"COLUMNS": "80"}))
    ours = next(number for number, line in enumerate(lines) if line.startswith("Model"))
    theirs = [number for number, line in enumerate(lines) if " benchmark 'decode" in line]
    assert theirs and ours < theirs[0]
    assert heading(lines).split()[4:] == ["Median", "IQR", "Rounds"]
    assert sum(line.startswith("llama-tiny-Q8_0-cpu ") for line in lines) == 4
    assert max(len(line) for line in lines[theirs[0] : theirs[-1] + 5]) <= 80

    full = lines_of(run_pytest(*arguments, "--benchmark-columns", "min,max"))
    assert heading(full).split()[4:] == ["Min", "Max"]
    assert any(line.startswith("test_decode[llama-tiny-Q8_0-cpu-") for line in full)


def test_the_tables_of_other_benchmarks_are_untouched(tmp_path):
    file = tmp_path / "test_foreign.py"
    file.write_text(FOREIGN)
    command = [sys.executable, "-m", "pytest", str(file), "--disable-plugin-autoload", "-p", "benchmark"]
    done = subprocess.run(
        [*command, "-p", "ggufbench", "-p", "no:cacheprovider"],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    lines = lines_of(done)
    assert heading(lines).split()[4:6] == ["Min", "Max"] and "Outliers" in heading(lines)
    assert any(line.startswith("test_foreign ") for line in lines)
