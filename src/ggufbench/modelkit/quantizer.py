"""Quantize a file with llama.cpp in a process of its own, so that an abort there ends nothing here."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ggufbench.modelkit.spec import ModelError


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What llama.cpp says of a quantization."""

    tensors: int
    size_bytes: int
    """The size of all tensors in the new types."""
    fallbacks: int
    """Tensors that have another type than asked, because its blocks do not divide their rows."""
    needs_imatrix: bool
    """Only a dry run can say it; without one the other would have failed."""


def check_available(quantization: str) -> None:
    """`ModelError` where llama-cpp-python is not installed."""
    if importlib.util.find_spec("llama_cpp") is None:
        raise ModelError(
            f"{quantization} is made by llama.cpp, and llama-cpp-python is not installed here; "
            'install it with: pip install "ggufbench[llamacpp]".'
        )


def run(  # noqa: PLR0913 (what one quantization consists of)
    source: Path,
    target: Path,
    quantization: str,
    report: Callable[[float], None],
    *,
    threads: int | None = None,
    imatrix: Path | None = None,
    dry_run: bool = False,
) -> SourceFacts:
    """Quantize `source` into `target`; `report` gets the share of tensors done, 0 to 1.

    `threads` is as many as this process may use where it is None. A dry run writes nothing and knows the
    size.
    Raises `ModelError` with llama.cpp's own words. The process is ended on any exception, Ctrl-C included.
    """
    command = [sys.executable, "-P", "-m", "ggufbench.modelkit.quantizer_process"]
    command += [
        str(source.absolute()),
        str(target.absolute()),
        quantization,
        str(threads or usable_threads()),
    ]
    command += ["--dry-run"] if dry_run else []
    command += ["--imatrix", str(imatrix.absolute())] if imatrix else []
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            # Without it an abort would start a debugger to print the stack.
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
            # Ctrl-C reaches this program, which then ends that one.
            start_new_session=True,
        )
        try:
            facts = _follow(process, report)
            status = process.wait()
        finally:
            process.kill()
            process.wait()
        if status != 0:
            errors.seek(0)
            raise ModelError(_failure(quantization, status, errors.read().decode("utf-8", "replace")))
    return facts


def usable_threads() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _follow(process: subprocess.Popen[str], report: Callable[[float], None]) -> SourceFacts:
    said = {"tensors": 0, "size": 0, "fallbacks": 0, "imatrix": 0}
    if process.stdout is None:
        return SourceFacts(0, 0, 0, needs_imatrix=False)
    with process.stdout:
        for line in process.stdout:
            done, slash, total = line.strip().partition("/")
            if slash and done.isdecimal() and total.isdecimal() and int(total):
                said["tensors"] = int(total)
                report(min(1.0, int(done) / int(total)))
                continue
            word, _, number = line.strip().partition(" ")
            if word in said:
                said[word] = int(number) if number.isdecimal() else 1
    return SourceFacts(said["tensors"], said["size"], said["fallbacks"], needs_imatrix=bool(said["imatrix"]))


def _failure(quantization: str, status: int, errors: str) -> str:
    lines = [line.strip() for line in errors.splitlines() if line.strip(" =\t")]
    if "iostream error" in errors:  # the words of C++ for every failed write
        return f"llama.cpp could not write all of {quantization}: is the disk full, or a quota reached?"
    end = f"signal {-status}" if status < 0 else f"exit status {status}"
    return f"llama.cpp could not make {quantization} ({end}): {lines[-1] if lines else 'it said nothing'}."
