"""Versions between a good and a bad one: releases of a package, or commits of a repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggufbench.comparing.arms import ArmError, ArmSpec, as_arm_errors
from ggufbench.processes import Finished, OutputTooLongError, run_program
from ggufbench.text import printable
from ggufbench.toolchain.repository import RepositoryError, commit_message, first_parents, resolve_commit

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.version import Version

_INDEX_SECONDS = 300.0
"""Timeout of pip, which tries five times if the index does not answer."""
_USAGE = 2
"""Exit code of pip for an unknown option."""
_LONGEST_SUBJECT = 200


def releases_between(good: ArmSpec, bad: ArmSpec) -> list[str]:
    """The releases of a package from `good` to `bad`, both included, as requirements.

    They are those of the index that pip is configured for. Pre-releases and yanked releases are left out,
    except as an end. If `good` is newer, the list is descending. Raises ArmError.
    """
    first, last = _release(good), _release(bad)
    if _package(first) != _package(last):
        raise ArmError(f"{good.name} and {bad.name} are different packages; give two releases of one package")
    ends = {_version(first): good.name, _version(last): bad.name}
    if len(ends) == 1:
        raise ArmError(f"{good.name} and {bad.name} are the same release; give two different ones")
    low, high = sorted(ends)
    names = {version: f"{_package(first)}=={version}" for version in _known(first) if low < version < high}
    return [name for _, name in sorted({**names, **ends}.items(), reverse=_version(first) == high)]


def commits_between(repository: Path, good: str, bad: str) -> list[str]:
    """Full hashes from `good` to `bad` along the first parents of `bad`, both included.

    Raises ArmError if `good` is not an ancestor of `bad`.
    """
    with as_arm_errors():
        ends = [_commit(repository, name) for name in (good, bad)]
        if ends[0] == ends[1]:
            raise ArmError(f"{good} and {bad} are the same commit; give two different ones")
        return first_parents(repository, *ends)


def commit_subject(repository: Path, commit: str) -> str:
    """First line of a commit's message, without control characters. Raises ArmError."""
    with as_arm_errors():
        message = commit_message(repository, _commit(repository, commit))
    line = next(iter(message.strip().splitlines()), "")
    return printable(line, _LONGEST_SUBJECT)


def _commit(repository: Path, name: str) -> str:
    commit = resolve_commit(repository, name)
    if commit is None:
        raise RepositoryError(f"{name} is not a commit of {repository}; `git log` lists its commits")
    return commit


def _release(spec: ArmSpec) -> Requirement:
    """The requirement of an arm that is one release. Raises ArmError."""
    from packaging.requirements import InvalidRequirement, Requirement

    from ggufbench.toolchain.environments import is_exact

    try:
        requirement = Requirement(spec.name)
        if requirement.url is None and is_exact(requirement):
            _version(requirement)
            return requirement
    except (InvalidRequirement, ValueError):
        pass
    raise ArmError(f"{spec.name} is not one release of a package; write NAME==VERSION")


def _version(release: Requirement) -> Version:
    from packaging.version import Version

    return Version(next(iter(release.specifier)).version)


def _package(release: Requirement) -> str:
    from packaging.utils import canonicalize_name

    extras = f"[{','.join(sorted(release.extras))}]" if release.extras else ""
    return canonicalize_name(release.name) + extras


def _known(release: Requirement) -> list[Version]:
    """Releases that pip would install here, without yanked ones and those for another Python."""
    from packaging.utils import canonicalize_name

    package = canonicalize_name(release.name)  # pip does not find files in a folder by another spelling
    done = _ask_pip(package, "--json")
    if done.code == 0:
        return _versions(_from_json(done.output))
    if done.code == _USAGE:  # pip before 25.1
        done = _ask_pip(package)
        if done.code == 0:
            return _versions(_from_text(done.output))
    if "No module named pip" in done.errors:
        raise ArmError(f"{sys.executable} has no pip, which lists releases; run it with `-m ensurepip`")
    raise ArmError(
        f"pip cannot list the releases of {release.name}: {_reason(done)}; check the network and "
        "`pip config list`"
    )


def _ask_pip(package: str, *options: str) -> Finished:
    from ggufbench.toolchain.environments import build_environment

    command = [sys.executable, "-m", "pip", "index", "versions", *options]
    always = ["--no-input", "--disable-pip-version-check", "--no-cache-dir"]
    try:
        env = build_environment(os.environ)
        return run_program([*command, *always, "--", package], _INDEX_SECONDS, env=env)
    except subprocess.TimeoutExpired:
        raise ArmError(
            f"pip did not list the releases of {package} within {_INDEX_SECONDS:.0f} s; check the network"
        ) from None
    except OutputTooLongError as error:
        raise ArmError(f"pip did not list the releases of {package}: {error}; check the index") from None
    except OSError as error:
        raise ArmError(f"{sys.executable} cannot start pip: {error.strerror}") from None


def _from_json(output: str) -> Iterable[Any]:
    try:
        answer = json.loads(output)
    except (ValueError, RecursionError):
        answer = None
    versions = answer.get("versions") if isinstance(answer, dict) else None
    return versions if isinstance(versions, list) else []


def _from_text(output: str) -> Iterable[Any]:
    """Parse the line `Available versions: 1.1, 1.0`."""
    lines = (line.partition("Available versions:") for line in output.splitlines())
    return next((found.split(",") for _, mark, found in lines if mark), [])


def _versions(texts: Iterable[Any]) -> list[Version]:
    from packaging.version import InvalidVersion, Version

    versions = []
    for text in texts:
        try:
            version = Version(str(text))
        except InvalidVersion:
            continue
        if not version.is_prerelease:  # PIP_PRE may have added some
            versions.append(version)
    return versions


def _reason(done: Finished) -> str:
    """Last message of pip; a failed connection takes precedence, because pip reports it as a warning only."""
    lines = [line.strip() for line in done.errors.splitlines() if line.strip()]
    broken = [line for line in lines if line.startswith("WARNING: Retrying") and "connection broken" in line]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if broken:
        return "the index does not answer"
    return printable(next(reversed(errors or lines), "it gives no reason"))
