"""`ggufbench convert`: convert a safetensors checkpoint to GGUF with llama.cpp's own converter."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ggufbench.modelkit.converter_environment import Converter, get_converter
from ggufbench.modelkit.output import check_space, check_target, orderly_end, write_model
from ggufbench.modelkit.spec import ModelError
from ggufbench.modelkit.staged_checkpoint import Source, find_source, stage
from ggufbench.paths import cache_folder
from ggufbench.text import printable
from ggufbench.toolchain.builds import Tell, log_tail, run_logged

TYPES = ("auto", "bf16", "f16", "f32", "q8_0")

_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_MINIMUM_SECONDS = 1800.0
_SLOWEST_BYTES_PER_SECOND = 5e6
_LOOK_SECONDS = 0.3
_PERCENT = re.compile(r"Writing: +(\d{1,3})%")
_ERROR_LINE = re.compile(r"(?:ERROR:[\w-]+:(?P<logged>.+)|(?P<raised>(?:\w+\.)*\w*(?:Error|Exception)\b.*))")
_KILLED = 128 + 9

Progress = Callable[[float, int], None]
"""Called with the share written, 0 to 1, and the approximate size of the file in bytes."""


@dataclass(frozen=True, slots=True)
class Converted:
    """Result of a conversion."""

    path: Path
    type: str
    source: str
    """The source as the user wrote it."""
    source_bytes: int
    file_size_bytes: int
    converter: str
    """Version of the llama-cpp-python that the converter belongs to."""
    seconds: float
    notes: tuple[str, ...]
    """Notes for the user, one sentence each."""


def convert(  # noqa: PLR0913 (one parameter for each option of the command)
    text: str,
    out: Path | None,
    kind: str,
    tell: Tell = lambda _sentence: None,
    progress: Progress = lambda _share, _total: None,
    *,
    overwrite: bool = False,
    env: Mapping[str, str] = os.environ,
) -> Converted:
    """Convert the checkpoint `text` (a folder, or `owner/name` in the Hugging Face cache) to a GGUF.

    `out` is the file, a folder, or None for the working directory. Raises `ModelError` if it cannot be made.
    A failure or interruption leaves no files.
    """
    if kind.lower() not in TYPES:
        raise ModelError(
            f"Unknown type {kind!r} for a conversion; known types: {', '.join(TYPES)}. `ggufbench quantize` "
            "makes the other types from these."
        )
    source = find_source(text)
    chosen = source.automatic_type() if kind.lower() == "auto" else kind.lower()
    target = _target(out, source, chosen)
    check_target(target, overwrite)
    needed = source.estimated_bytes(chosen)
    check_space(target, needed)
    started = time.monotonic()
    with orderly_end():
        converter = get_converter(cache_folder(env), tell, env)
        with write_model(target, needed) as whole:
            with tempfile.TemporaryDirectory(prefix="ggufbench-") as folder:
                _run(source, whole, chosen, converter, Path(folder), lambda share: progress(share, needed))
            if not whole.is_file():
                raise ModelError(
                    "llama.cpp's converter reported success but wrote no file; upgrade llama-cpp-python."
                )
    return Converted(
        path=target,
        type=chosen.upper(),
        source=text,
        source_bytes=source.checkpoint.file_size_bytes,
        file_size_bytes=target.stat().st_size,
        converter=converter.version,
        seconds=time.monotonic() - started,
        notes=tuple(_notes(source)),
    )


def _target(out: Path | None, source: Source, kind: str) -> Path:
    if out is not None and not out.is_dir():
        return out
    return (out or Path()) / f"{source.name}-{kind.upper()}.gguf"


def _run(  # noqa: PLR0913, PLR0917 (what one run consists of)
    source: Source,
    whole: Path,
    kind: str,
    converter: Converter,
    folder: Path,
    report: Callable[[float], None],
) -> None:
    staged, log = stage(source, folder), folder / "log"
    command = [str(converter.python), "-s", str(converter.script), str(staged)]
    command += ["--outfile", str(whole.absolute()), "--outtype", kind]
    seconds = _MINIMUM_SECONDS + source.checkpoint.file_size_bytes / _SLOWEST_BYTES_PER_SECOND
    log.touch()
    try:
        with _watched(log, report):
            code = run_logged(command, _variables(folder), log, seconds)
    except subprocess.TimeoutExpired:
        raise ModelError(f"llama.cpp's converter did not finish within {seconds / 60:.0f} minutes.") from None
    if code != 0:
        raise ModelError(_failure(source, code, log_tail(log), converter))


def _variables(folder: Path, env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment variables of the converter: no network, no cache with foreign code, no token."""
    kept = {key: env[key] for key in _KEPT_VARIABLES if key in env}
    own = dict.fromkeys(("HOME", "HF_HOME", "HF_MODULES_CACHE", "TMPDIR", "XDG_CACHE_HOME"), str(folder))
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"), "1")
    return {**kept, **own, **offline, "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}


@contextmanager
def _watched(log: Path, report: Callable[[float], None]) -> Iterator[None]:
    """Report the progress from the log, in a thread that ends with the body."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_LOOK_SECONDS):
            found = _PERCENT.findall(log_tail(log))
            if found:
                report(min(100, int(found[-1])) / 100)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _failure(source: Source, code: int, output: str, converter: Converter) -> str:
    if "BPE pre-tokenizer was not recognized" in output:
        return (
            f"{source.name} cannot be converted: llama-cpp-python {converter.version} does not know its BPE "
            "pre-tokenizer, so the tokenizer would split text wrongly; upgrade llama-cpp-python."
        )
    lines = [printable(line) for line in re.split(r"[\r\n]+", output) if line.strip()]
    found = [match for line in lines if (match := _ERROR_LINE.fullmatch(line))]
    if found:
        reason = (found[-1]["logged"] or found[-1]["raised"]).strip().rstrip(".")
    elif code == _KILLED:
        reason = "it was killed, probably because the machine ran out of memory"
    else:
        reason = lines[-1] if lines else f"it ended with exit code {code} and no output"
    return f"llama.cpp's converter could not convert {source.name}: {reason}."


def _notes(source: Source) -> list[str]:
    if source.multimodal:
        return ["only the language model was converted, not its vision or audio part (the mmproj)"]
    return []
