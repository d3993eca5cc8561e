"""Arms of a comparison: the meaning of the text of an arm, and the Python of its workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ggufbench.errors import GgufbenchError
from ggufbench.launching.launcher import Interpreter
from ggufbench.measuring.case import Bench, MeasuredLaunch, measure_launch
from ggufbench.paths import expanded
from ggufbench.planning.plan import Case
from ggufbench.toolchain.builds import BuildError
from ggufbench.toolchain.exports import exported
from ggufbench.toolchain.interpreters import check_python
from ggufbench.toolchain.repository import RepositoryError, folder_in_checkout, nearest_ref, resolve_commit

if TYPE_CHECKING:
    from packaging.requirements import Requirement

ArmKind = Literal["current", "interpreter", "requirement", "commit", "scenario"]

_LONGEST_TEXT = 4096
_PYTHONS = ("bin/python", "bin/python3", "Scripts/python.exe", "python.exe")
_PACKAGES = (".whl", ".tar.gz", ".zip")


class ArmError(GgufbenchError):
    """An arm cannot be used; the message is one sentence with its text and the remedy."""


@dataclass(frozen=True, slots=True)
class ArmSpec:
    """Meaning of the text of an arm."""

    name: str
    """The text as given by the user."""
    kind: ArmKind
    path: Path | None = None
    """Path of the interpreter or of the scenario file."""
    commit: str | None = None
    """Full hash of the commit."""


@dataclass(frozen=True, slots=True)
class PreparedArm:
    """An arm with the Python of its workers."""

    spec: ArmSpec
    interpreter: Interpreter

    def measure(self, case: Case, bench: Bench, variables: Mapping[str, str]) -> MeasuredLaunch:
        """Measure one launch in this environment, with `variables` added to it."""
        return measure_launch(case, replace(bench, interpreter=self.interpreter), variables)


def parse_arm(text: str, repository: Path) -> ArmSpec:
    """Resolve a text: `.`, a path, a requirement with its version, or a commit of the repository.

    The first kind that matches is used, in this order. Only files and git are read. Raises ArmError.
    """
    _refuse_hostile(text)
    if text == ".":
        return ArmSpec(text, "current")
    path = _existing(text)
    if path is not None:
        return _of_path(text, path, repository)
    requirement = _requirement(text)
    if requirement is not None and (requirement.specifier or requirement.url):
        _refuse_unfit(text, requirement)
        return ArmSpec(text, "requirement")
    try:
        commit = resolve_commit(repository, text)
    except RepositoryError as error:
        raise ArmError(f"{_nothing(text)} ({error}); {_remedy(text, repository, requirement)}") from None
    if commit is None:
        raise ArmError(f"{_nothing(text)} of {repository}; {_remedy(text, repository, requirement)}")
    return ArmSpec(text, "commit", commit=commit)


def prepare_arm(
    spec: ArmSpec,
    repository: Path,
    tell: Callable[[str], None],
    build_environment: Mapping[str, str] = os.environ,
) -> PreparedArm:
    """Prepare the Python of an arm; a missing environment is built. Raises ArmError.

    `tell` is called before slow steps; compiling a release takes minutes, once. `build_environment` has
    the environment variables of a build, such as CMAKE_ARGS, the compilers and those of pip.
    """
    with as_arm_errors():
        return PreparedArm(spec, _interpreter(spec, repository, tell, build_environment))


def import_path(folder: Path) -> tuple[Path, ...]:
    """Folders from which a checkout's code is imported: `src`, if it exists, and the checkout itself."""
    source = folder.absolute() / "src"
    return (*([source] if source.is_dir() else []), folder.absolute())


def _interpreter(
    spec: ArmSpec, repository: Path, tell: Callable[[str], None], env: Mapping[str, str]
) -> Interpreter:
    from ggufbench.paths import cache_folder

    if spec.kind == "interpreter" and spec.path is not None:
        check_python(spec.path)
        return Interpreter(python=spec.path)
    if spec.kind == "commit" and spec.commit is not None:
        tree = exported(repository, spec.commit, cache_folder(), tell)
        folder = tree / folder_in_checkout(repository)
        if not folder.is_dir():
            below = folder_in_checkout(repository)
            raise ArmError(f"{spec.name} has no folder {below}; run ggufbench from a folder of that commit")
        return Interpreter(import_path=import_path(folder))
    if spec.kind == "requirement":
        from packaging.requirements import Requirement

        from ggufbench.toolchain.environments import requirement_environment

        return Interpreter(python=requirement_environment(Requirement(spec.name), cache_folder(), tell, env))
    return Interpreter()


def _refuse_hostile(text: str) -> None:
    """Refuse texts that cannot name a path, package or commit, or that a program would read as an option."""
    if not text.strip():
        raise ArmError("the text of an arm is empty; give `.` for this environment")
    if len(text) > _LONGEST_TEXT:
        raise ArmError(f"{text[:40]}... has {len(text)} characters; an arm can have at most {_LONGEST_TEXT}")
    if not text.isprintable():  # it is printed and stored
        raise ArmError(f"{text!r} has a character that cannot be printed; rename the file, branch or tag")
    if text.startswith("-"):
        raise ArmError(f"{text} begins with a dash, like an option; for a file, write ./{text}")


def _existing(text: str) -> Path | None:
    try:
        path = expanded(text).absolute()
        return path if path.exists() else None
    except (OSError, RuntimeError):  # unreadable, too long, or the home of an unknown user
        return None


def _of_path(text: str, path: Path, repository: Path) -> ArmSpec:
    if path.is_dir():
        # Links are not resolved: a virtual environment is the folder that contains the link to its Python.
        python = next((path / name for name in _PYTHONS if _is_program(path / name)), None)
        if python is not None:
            return ArmSpec(text, "interpreter", python)
    elif path.suffix == ".toml" and path.is_file():
        return ArmSpec(text, "scenario", path)
    elif _is_program(path):
        return ArmSpec(text, "interpreter", path)
    elif path.name.endswith(_PACKAGES):
        raise ArmError(f"{text} is a package file; to install it, write `NAME @ {path.as_uri()}`")
    what = "a folder, but no virtual environment" if path.is_dir() else "neither a Python nor a scenario file"
    branch = f"refs/heads/{text}"
    also = f", or {branch} for the branch" if _is_commit(branch, repository) else ""
    raise ArmError(
        f"{text} is {what}; give a Python, the folder of a virtual environment or a scenario's .toml{also}"
    )


def _is_commit(name: str, repository: Path) -> bool:
    try:
        return resolve_commit(repository, name) is not None
    except RepositoryError:
        return False


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _requirement(text: str) -> Requirement | None:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(text)
    except InvalidRequirement:
        return None


def _refuse_unfit(text: str, requirement: Requirement) -> None:
    from urllib.parse import urlsplit

    from ggufbench.toolchain.environments import local_file

    if requirement.marker is not None:
        raise ArmError(f"{text} has a condition after `;`, which may exclude it; remove the condition")
    try:
        address = urlsplit(requirement.url or "")
    except ValueError as error:
        raise ArmError(f"{text} has an invalid URL ({error}); correct the URL") from None
    if address.password or (address.username and address.scheme.endswith(("http", "https"))):
        # The address is not shown, because a log would keep it.
        raise ArmError(
            f"the address of {requirement.name} contains credentials, which records would store; "
            "put them into pip's configuration or .netrc"
        )
    file = local_file(requirement)
    if file is not None and not file.is_file():
        raise ArmError(f"{text} does not name a file; give a wheel, a source archive or a commit")


def _nothing(text: str) -> str:
    return f"{text} is neither a file, a requirement with a version, nor a commit"


def _remedy(text: str, repository: Path, requirement: Requirement | None) -> str:
    near = nearest_ref(repository, text)
    if near is not None:
        return f"did you mean {near}?"
    if text.endswith(".toml") or os.sep in text:
        return "check the path"
    if requirement is not None:
        return f"for a package, add its version: {text}==VERSION"
    return "give `.`, a path, NAME==VERSION or a commit"


@contextmanager
def as_arm_errors() -> Iterator[None]:
    """Convert errors of git and of builds to ArmError."""
    try:
        yield
    except (BuildError, RepositoryError) as error:
        raise ArmError(str(error)) from None
