"""llama.cpp's converter, taken from the source distribution of the installed llama-cpp-python.

So it writes files that the installed library can read. It is cached under `converters/`, one per version. It
runs in this Python if the requirements below are installed, else in an environment under `environments/`.
Both are created once and atomically.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import re
import shutil
import sys
import sysconfig
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ggufbench.modelkit.spec import ModelError
from ggufbench.toolchain.builds import BuildError, BuildPlace, Tell, build_once, run_step
from ggufbench.toolchain.environments import PIP_OPTIONS, PYTHON, build_environment, make_environment

REQUIREMENTS = (
    # Without gigabytes of CUDA if pip is configured for CPU builds; any 2.x would do.
    "torch==2.13.0",
    "transformers==5.24.0",
    "sentencepiece>=0.2,<0.3",
    "protobuf>=5",
    "numpy>=2",
    "pyyaml>=5.1",
    "tqdm>=4.27",
    "requests>=2.25",
)
"""Imports of the converter and its copy of gguf."""

_DISTRIBUTION = "llama-cpp-python"
_SCRIPT = "convert_hf_to_gguf.py"
_WANTED = re.compile(
    r"[^/]+/vendor/llama\.cpp/(?P<path>convert_hf_to_gguf\.py|LICENSE|(?:conversion|gguf-py/gguf)/.+\.py"
    r"|models/ggml-vocab-(?:gpt-neox|llama-spm)\.gguf|models/templates/[^/]+\.jinja)"
)
_MEMBER_BYTES = 64 << 20
_DOWNLOAD_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Converter:
    """A converter that is ready to run."""

    python: Path
    script: Path
    version: str
    """The version of llama-cpp-python."""


def get_converter(cache: Path, tell: Tell, env: Mapping[str, str]) -> Converter:
    """The converter of the installed llama-cpp-python. `tell` receives a sentence before each long step.

    `env` holds the variables of pip. Raises `ModelError`.
    """
    version = _installed(_DISTRIBUTION)
    if version is None:
        raise ModelError(
            "llama-cpp-python, which llama.cpp's converter comes with, is not installed; "
            'install it with: pip install "ggufbench[llamacpp]".'
        )
    place = BuildPlace(cache / "converters" / f"{_DISTRIBUTION}-{version}", "llama.cpp", proof=_SCRIPT)
    try:
        build_once(place, lambda: _fetch(version, place, tell, env), tell)
        python = _python(cache, tell, env)
    except BuildError as error:
        raise ModelError(f"{error}.") from None
    return Converter(python, place.path / _SCRIPT, version)


def is_satisfied(requirements: Sequence[str]) -> bool:
    """True if this Python's environment satisfies all of these."""
    from packaging.requirements import Requirement

    for text in requirements:
        requirement = Requirement(text)
        version = _installed(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            return False
    return True


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fetch(version: str, place: BuildPlace, tell: Tell, env: Mapping[str, str]) -> str:
    requirement = f"{_DISTRIBUTION}=={version}"
    tell(f"downloading llama.cpp's converter with the source of {requirement}: about 80 MB, once")
    place.log.write_bytes(b"")
    downloads = place.scratch / "download"
    # Only this package from source: pip gets the metadata from its build backend and compiles nothing.
    command = [sys.executable, "-m", "pip", "download", *PIP_OPTIONS, "--no-deps"]
    command += ["--no-binary", _DISTRIBUTION, "--dest", str(downloads), "--", requirement]
    run_step(
        command,
        f"the source of {requirement} could not be downloaded",
        place,
        build_environment(env),
        _DOWNLOAD_SECONDS,
    )
    archive = next(iter(downloads.glob("*.tar.gz")), None)
    if archive is None:
        raise BuildError(f"pip downloaded no .tar.gz of {requirement} (its output is in {place.log})")
    _unpack(archive, place.path)
    return json.dumps({"source": archive.name})


def _unpack(archive: Path, target: Path) -> None:
    """Unpack only the converter's files, and never outside `target`."""
    try:
        with tarfile.open(archive) as packed:
            for member in packed:
                found = _WANTED.fullmatch(member.name)
                if not found or ".." in member.name or not member.isreg() or member.size > _MEMBER_BYTES:
                    continue
                source = packed.extractfile(member)
                path = target / found["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    shutil.copyfileobj(source, file)  # type: ignore[arg-type]  # a regular file has content
    except (tarfile.TarError, EOFError) as error:
        raise BuildError(f"{archive.name} cannot be unpacked: {error}") from None
    if not (target / _SCRIPT).is_file():
        raise BuildError(f"{archive.name} does not contain {_SCRIPT}; upgrade llama-cpp-python")


def _python(cache: Path, tell: Tell, env: Mapping[str, str]) -> Path:
    if is_satisfied(REQUIREMENTS):
        return Path(sys.executable)
    place = environment_place(cache, env)
    build_once(place, lambda: _install(place, tell, env), tell)
    return place.path / PYTHON


def environment_place(cache: Path, env: Mapping[str, str]) -> BuildPlace:
    """Place of the converter's environment; its name depends on everything that affects its content."""
    pip = {key: value for key, value in env.items() if key.startswith("PIP_")}
    key = [REQUIREMENTS, platform.python_version(), sys.base_prefix, sysconfig.get_platform(), pip]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    return BuildPlace(cache / "environments" / f"converter-{digest}", "venv", proof=PYTHON)


def _install(place: BuildPlace, tell: Tell, env: Mapping[str, str]) -> str:
    tell(f"installing {REQUIREMENTS[0]}, {REQUIREMENTS[1]} and others into {place.path}: some minutes, once")
    make_environment(place, "what the converter needs", REQUIREMENTS, build_environment(env))
    return json.dumps({"requirements": REQUIREMENTS, "python": platform.python_version()})
