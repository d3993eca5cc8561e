"""Quantize a file with llama.cpp in a separate process, so that an abort there does not end this one."""

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

_TAIL_BYTES = 2**16
"""Part of llama.cpp's messages that is read to explain a failure: its end."""


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """Facts that llama.cpp reports about a quantization."""

    tensors: int
    size_bytes: int
    """Total size of all tensors in the new types."""
    fallbacks: int
    """Tensors that got another type, because the requested type's blocks do not divide their rows."""
    needs_imatrix: bool
    """True only in a dry run; a real run without the matrix fails."""


def check_available(quantization: str) -> None:
    """Raise `ModelError` if llama-cpp-python is not installed."""
    if importlib.util.find_spec("llama_cpp") is None:
        raise ModelError(
            f"{quantization} is made by llama.cpp, but llama-cpp-python is not installed; "
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

    The default of `threads` is every processor that this process may use. A dry run writes nothing and
    returns the size. Raises `ModelError` with llama.cpp's message. The child process is terminated on any
    exception, including Ctrl-C.
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
            # Otherwise an abort would start a debugger to print the stack.
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
            # Ctrl-C reaches only this process, which then terminates the child.
            start_new_session=True,
        )
        try:
            facts = _follow(process, report)
            status = process.wait()
        finally:
            process.kill()
            process.wait()
        if status != 0:
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - _TAIL_BYTES))
            raise ModelError(_failure(quantization, status, errors.read().decode("utf-8", "replace")))
    return facts


def usable_threads() -> int:
    """Number of processors that this process may use."""
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
    if "iostream error" in errors:  # C++'s message for every failed write
        return f"llama.cpp could not write all of {quantization}; check free disk space and quotas."
    end = f"signal {-status}" if status < 0 else f"exit status {status}"
    return f"llama.cpp could not make {quantization} ({end}): {lines[-1] if lines else 'no output'}."
