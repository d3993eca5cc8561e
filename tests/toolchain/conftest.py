"""Real packages made for a test; pip finds only those."""

import csv
import importlib.metadata
import io
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
def plain_pip(plain_pip) -> Path:
    """Every test of this folder uses it."""
    return plain_pip


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
