"""Real git repositories and real packages made for a test; pip finds only those."""

import csv
import importlib.metadata
import io
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

BACKEND = """
import os, time, zipfile
from pathlib import Path

NAME, VERSION = {name!r}, {version!r}

def files():
    info = f"{{NAME}}-{{VERSION}}.dist-info"
    return {{
        f"{{NAME}}.py": f"ARGUMENTS = {{os.environ.get('CMAKE_ARGS')!r}}",
        f"{{info}}/METADATA": f"Metadata-Version: 2.1\\nName: {{NAME}}\\nVersion: {{VERSION}}\\n",
        f"{{info}}/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        f"{{info}}/RECORD": "",
    }}

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    for path, text in files().items():
        if "/" in path:
            (Path(folder) / path).parent.mkdir(exist_ok=True)
            (Path(folder) / path).write_text(text)
    return f"{{NAME}}-{{VERSION}}.dist-info"

def build_wheel(folder, config_settings=None, metadata_directory=None):
{body}
    name = f"{{NAME}}-{{VERSION}}-py3-none-any.whl"
    with zipfile.ZipFile(Path(folder) / name, "w") as wheel:
        for path, text in files().items():
            wheel.writestr(path, text)
    return name
"""


@pytest.fixture(autouse=True)
def plain_pip(monkeypatch, tmp_path):
    """pip without this machine's configuration and network; returns the folder where it finds files."""
    for key in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(key)
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache folder for this test only."""
    monkeypatch.setenv("GGUFBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def make_sdist(plain_pip):
    """A function that makes a source archive whose build needs no package and runs the lines of `body`."""

    def make(name: str, version: str, body: str = "pass") -> Path:
        indented = "\n".join(f"    {line}" for line in body.splitlines())
        project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        path = plain_pip / f"{name}-{version}.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for file, text in (
                ("pyproject.toml", project),
                ("backend.py", BACKEND.format(name=name, version=version, body=indented)),
                ("PKG-INFO", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"),
            ):
                facts = tarfile.TarInfo(f"{name}-{version}/{file}")
                facts.size = len(text.encode())
                archive.addfile(facts, io.BytesIO(text.encode()))
        return path

    return make


@pytest.fixture
def make_wheel(plain_pip):
    """A function that makes a wheel of one module with a VERSION."""

    def make(name: str, version: str, folder: Path = plain_pip) -> Path:
        info = f"{name}-{version}.dist-info"
        path = folder / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(f"{name}.py", f"VERSION = {version!r}\n")
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
        return path

    return make


@pytest.fixture
def wheel_of_installed(plain_pip):
    """A function that makes a wheel of a package installed here, and returns its version."""

    def make(name: str) -> str:
        package = importlib.metadata.distribution(name)
        facts = package.read_text("WHEEL")
        tag = next(line.removeprefix("Tag: ") for line in facts.splitlines() if line.startswith("Tag: "))
        stem = f"{name.replace('-', '_')}-{package.version}"
        record = io.StringIO()
        rows = csv.writer(record)
        with zipfile.ZipFile(plain_pip / f"{stem}-{tag}.whl", "w") as wheel:
            for file in package.files:
                if file.parts[0] == ".." or file.name in ("RECORD", "INSTALLER", "REQUESTED"):
                    continue
                if file.suffix == ".pyc" or file.name == "direct_url.json":
                    continue
                wheel.write(file.locate(), str(file))
                rows.writerow(
                    [str(file), f"{file.hash.mode}={file.hash.value}" if file.hash else "", file.size]
                )
            info = next(file.parent for file in package.files if file.name == "WHEEL")
            rows.writerow([f"{info}/RECORD", "", ""])
            wheel.writestr(f"{info}/RECORD", record.getvalue())
        return package.version

    return make


class Repository:
    """A git repository that a test changes with git commands."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, text: str | None = None) -> str:
        """Output of git without surrounding white space."""
        done = subprocess.run(
            ["git", "-C", self.path, "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments],
            input=text, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        return done.stdout.strip()

    def commit(self, message: str, **files: str) -> str:
        """Write the files (`__` is a slash, and each name gets `.py`), commit everything, return the hash."""
        for name, text in files.items():
            path = self.path / (name.replace("__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def tree(self, *entries: str) -> str:
        """Commit a tree that `git add` would not make; entries are `mode type hash\\tname`."""
        tree = self.git("mktree", "--missing", text="\n".join(entries) + "\n")
        return self.git("commit-tree", tree, "-m", "hostile")

    def blob(self, content: str) -> str:
        """Write a blob and return its hash."""
        return self.git("hash-object", "-w", "--stdin", text=content)


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Repository:
    """An empty repository, without the variables of a git process that may run these tests."""
    for key in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(key, raising=False)
    return Repository(tmp_path / "provider")
