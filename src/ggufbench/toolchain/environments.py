"""Environments of a requirement: a virtual environment with the package installed, made once and kept.

They lie in the cache folder under `environments/`, one for each requirement and each set of variables that
changes what is built or found. Nothing here removes one: delete its folder to have it made again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggufbench.paths import open_regular
from ggufbench.processes import run_program
from ggufbench.toolchain.builds import BuildError, BuildPlace, Tell, build_once, run_step

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_BUILD_SECONDS = 3 * 3600.0
"""More than llama.cpp with every GPU backend takes to compile on two cores."""
_QUESTION_SECONDS = 60.0

_BUILD_VARIABLES = (
    "ARCHFLAGS", "AR", "AS", "CC", "CFLAGS", "CPPFLAGS", "CUDACXX", "CUDAARCHS", "CUDA_HOME", "CUDA_PATH",
    "CXX", "CXXFLAGS", "FORCE_CMAKE", "GGUFBENCH_AMX", "HIPCXX", "HIPFLAGS", "LD", "LDFLAGS",
    "MACOSX_DEPLOYMENT_TARGET", "ROCM_PATH", "SDKROOT", "VULKAN_SDK",
)  # fmt: skip
_BUILD_PREFIXES = ("CMAKE_", "SKBUILD_")
# Of pip's variables, those that choose which file is installed: an extra index may have another build of it.
_PIP_VARIABLES = (
    "PIP_BUILD_CONSTRAINT", "PIP_CONFIG_FILE", "PIP_CONFIG_SETTINGS", "PIP_CONSTRAINT", "PIP_EXTRA_INDEX_URL",
    "PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_NO_BINARY", "PIP_NO_BUILD_ISOLATION", "PIP_NO_DEPS",
    "PIP_NO_INDEX", "PIP_ONLY_BINARY", "PIP_PLATFORM", "PIP_PRE", "PIP_PREFER_BINARY",
)  # fmt: skip
_NO_BUILD = ("CMAKE_BUILD_PARALLEL_LEVEL", "CMAKE_COLOR_DIAGNOSTICS")
"""Variables that affect a build but not its result."""

# They would make Python or pip use another environment than the new one.
_LEADS_ELSEWHERE = (
    "PIP_DRY_RUN", "PIP_PREFIX", "PIP_PYTHON", "PIP_ROOT", "PIP_TARGET", "PIP_USER", "PYTHONHOME",
    "PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__",
)  # fmt: skip
PIP_OPTIONS = ("--no-input", "--disable-pip-version-check", "--progress-bar", "off")
PYTHON = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
_FIXED_URL = re.compile(r"(\.whl|\.zip|\.tar\.gz|@[0-9a-f]{40})(#.*)?$")
_INSTALLED_VERSION = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"


def requirement_environment(
    requirement: Requirement, cache: Path, tell: Tell, env: Mapping[str, str]
) -> Path:
    """The Python of an environment with this package, created if necessary. Raises BuildError.

    `env` holds the variables of the build. `tell` receives a sentence before each long step.
    """
    place = environment_place(requirement, cache, env)
    if place.is_complete() and not is_exact(requirement):
        tell(f"{requirement}: as it was installed earlier; remove {place.folder} to install it anew")
    build_once(place, lambda: _install(requirement, place, tell, env), tell)
    return place.path / PYTHON


def environment_place(requirement: Requirement, cache: Path, env: Mapping[str, str]) -> BuildPlace:
    """The place of a requirement's environment; it differs wherever something else would be installed."""
    key = {
        "requirement": _canonical(requirement),
        "arguments": cmake_arguments(env),
        "variables": _deciding_variables(env),
        "python": [platform.python_implementation(), platform.python_version(), sys.base_prefix],
        "platform": [sysconfig.get_platform(), platform.machine()],
        "file": _content(requirement),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    readable = re.sub(r"[^A-Za-z0-9._]+", "-", str(requirement)).strip("-.")[:60]
    # Its Python is a link, and the target may be removed from the machine.
    return BuildPlace(cache / "environments" / f"{readable}-{digest}", "venv", proof=PYTHON)


def cmake_arguments(env: Mapping[str, str]) -> str:
    """CMAKE_ARGS of a build here: those of tools/install_llama_cpp.sh, then the caller's, which win."""
    arguments = ["-DGGML_RPC=ON"]
    if _has_amx() and not env.get("GGUFBENCH_AMX"):
        # llama.cpp's AMX code can crash in the first prompt (ggml-org/llama.cpp#20824, open as of 0.3.36).
        without = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
        arguments += [f"-DCMAKE_C_FLAGS='{without}'", f"-DCMAKE_CXX_FLAGS='{without}'"]
    return " ".join([*arguments, env.get("CMAKE_ARGS", "")]).strip()


def build_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The caller's variables for Python or pip, without those that select another environment."""
    return {key: value for key, value in env.items() if key not in _LEADS_ELSEWHERE}


def is_exact(requirement: Requirement) -> bool:
    """True if the requirement is pinned: one release, one file, one commit."""
    if requirement.url is not None:
        return _FIXED_URL.search(requirement.url) is not None
    specifiers = list(requirement.specifier)
    return (
        len(specifiers) == 1
        and specifiers[0].operator in ("==", "===")
        and not specifiers[0].version.endswith("*")
    )


def _install(requirement: Requirement, place: BuildPlace, tell: Tell, env: Mapping[str, str]) -> str:
    compiles = ", which compiles llama.cpp: some minutes, once" if _is_llama_cpp(requirement) else ""
    tell(f"installing {requirement} into {place.path}{compiles}")
    variables = build_environment(env) | {"CMAKE_ARGS": cmake_arguments(env)}
    # Without its cache: pip keeps one wheel for all build options, and would install one built with others.
    python = make_environment(place, str(requirement), [str(requirement)], variables, "--no-cache-dir")
    return json.dumps(
        {
            "requirement": str(requirement),
            "installed": _installed_version(python, requirement, place),
            "cmake_arguments": cmake_arguments(env),
            "variables": sorted(_deciding_variables(env)),  # their values may hold credentials
            "python": platform.python_version(),
            "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        indent=1,
    )


def make_environment(
    place: BuildPlace, subject: str, requirements: Sequence[str], env: Mapping[str, str], *options: str
) -> Path:
    """Create a virtual environment, install the requirements and return its Python. Raises BuildError.

    `subject` names in messages what is installed; `options` are for pip.
    """
    place.log.write_bytes(b"")
    python = place.path / PYTHON
    without = ["--without-pip"] if _pip_here_serves_others() else []
    venv = [sys.executable, "-m", "venv", *without, str(place.path)]
    run_step(venv, f"no environment for {subject}", place, env, _BUILD_SECONDS)
    pip = [sys.executable, "-m", "pip", "--python", str(python)] if without else [str(python), "-m", "pip"]
    install = [*pip, "install", *PIP_OPTIONS, *options, "--", *requirements]
    run_step(install, f"{subject} was not installed", place, env, _BUILD_SECONDS)
    return python


def _pip_here_serves_others() -> bool:
    """True if the pip of this environment can install into another one; then those are made without pip."""
    from packaging.version import InvalidVersion, Version

    try:
        return Version(importlib.metadata.version("pip")) >= Version("22.3")
    except (importlib.metadata.PackageNotFoundError, InvalidVersion):
        return False


def _installed_version(python: Path, requirement: Requirement, place: BuildPlace) -> str:
    """Version in the new environment. Raises BuildError if pip installed the package elsewhere."""
    try:
        done = run_program([python, "-I", "-c", _INSTALLED_VERSION, requirement.name], _QUESTION_SECONDS)
    except (OSError, subprocess.SubprocessError):
        done = None
    if done is None or done.code != 0:
        raise BuildError(
            f"pip succeeded, but {requirement} is not in {place.path}; look for target, prefix or user "
            f"in `pip config list` (the output is in {place.log})"
        )
    return done.output.strip()


def _deciding_variables(env: Mapping[str, str]) -> dict[str, str]:
    """The variables that change what is built, or which file pip chooses, without CMAKE_ARGS."""
    return {
        key: value
        for key, value in env.items()
        if key in (*_BUILD_VARIABLES, *_PIP_VARIABLES)
        or (key.startswith(_BUILD_PREFIXES) and key not in ("CMAKE_ARGS", *_NO_BUILD))
    }


def _canonical(requirement: Requirement) -> list[Any]:
    from packaging.utils import canonicalize_name

    name, extras = canonicalize_name(requirement.name), sorted(requirement.extras)
    return [name, extras, str(requirement.specifier), requirement.url]


def _content(requirement: Requirement) -> str | None:
    """Hash of a local file, whose name stays the same if it is built again. Raises BuildError."""
    path = local_file(requirement)
    if path is None:
        return None
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BuildError(
            f"{path} cannot be read: {error.strerror}; give a wheel or a source archive"
        ) from None


def local_file(requirement: Requirement) -> Path | None:
    """The path of `name @ file:///...`."""
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    parts = urlsplit(requirement.url or "")
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def _is_llama_cpp(requirement: Requirement) -> bool:
    from packaging.utils import canonicalize_name

    return canonicalize_name(requirement.name) == "llama-cpp-python"


def _has_amx() -> bool:
    try:
        return "amx_tile" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
