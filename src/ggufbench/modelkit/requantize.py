"""Quantize a file with llama.cpp in a process of its own, so that an abort there ends nothing here."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from ggufbench.modelkit.spec import SynthError


def check_available(quantization: str) -> None:
    """`SynthError` where llama-cpp-python is not installed."""
    if importlib.util.find_spec("llama_cpp") is None:
        raise SynthError(
            f"{quantization} is made by llama.cpp, and llama-cpp-python is not installed here; "
            'install it with: pip install "ggufbench[llamacpp]".'
        )


def run(source: Path, target: Path, quantization: str, report: Callable[[float], None]) -> None:
    """Quantize `source` into `target`; `report` gets the share of tensors done, 0 to 1.

    Raises `SynthError` with llama.cpp's own words. The process is ended on any exception, Ctrl-C included.
    """
    command = [sys.executable, "-P", "-m", "ggufbench.modelkit.quantize"]
    command += [str(source), str(target), quantization, str(_threads())]
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
            _follow(process, report)
            status = process.wait()
        finally:
            process.kill()
            process.wait()
        if status != 0:
            errors.seek(0)
            raise SynthError(_failure(quantization, status, errors.read().decode("utf-8", "replace")))


def _follow(process: subprocess.Popen[str], report: Callable[[float], None]) -> None:
    if process.stdout is None:
        return
    with process.stdout:
        for line in process.stdout:
            done, _, total = line.strip().partition("/")
            if done.isdecimal() and total.isdecimal() and int(total):
                report(min(1.0, int(done) / int(total)))


def _failure(quantization: str, status: int, errors: str) -> str:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    end = f"signal {-status}" if status < 0 else f"exit status {status}"
    return f"llama.cpp could not make {quantization} ({end}): {lines[-1] if lines else 'it said nothing'}."


def _threads() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
