"""The wheel, installed in an environment without a checkout."""

import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

pytestmark = pytest.mark.build

CHECKOUT = Path(__file__).parents[2]
_FOREIGN_CONFTEST = """
import pytest

def pytest_addoption(parser):
    for name in ("--report", "--models", "--results"):
        parser.addoption(name)

@pytest.fixture
def models(request):
    return request.config.getoption("--models")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout."""
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(out), str(CHECKOUT)],
        check=True, capture_output=True, timeout=110,
    )  # fmt: skip
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed_python(wheel, tmp_path_factory):
    """The Python of an environment with the wheel; its dependencies are the ones of this environment."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    shared = {str(Path(str(each.locate_file("")))) for each in distributions(name="pytest")}
    (site / "shared.pth").write_text("\n".join(shared))
    return folder / "bin" / "python"


def run(python, folder, *words):
    return subprocess.run(
        [python, *words], cwd=folder, capture_output=True, text=True, timeout=110, check=False
    )


def test_the_installed_package_is_not_the_checkout(installed_python, tmp_path):
    shown = run(installed_python, tmp_path, "-c", "import ggufbench; print(ggufbench.__file__)")
    assert str(CHECKOUT) not in shown.stdout
    assert str(installed_python.parents[1]) in shown.stdout


def test_run_measures_in_an_empty_folder(
    installed_python, llama_folder, tmp_path, scenario_folder, known_limits
):
    done = run(
        installed_python, tmp_path, "-m", "ggufbench.cli", "run", "--models", str(llama_folder),
        "--scenarios", str(scenario_folder), "--scenario", "cpu", "--", "-k", "prompt",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert list((tmp_path / "results").glob("*/*.json"))


def test_pyargs_measures_in_an_empty_folder(
    installed_python, llama_folder, tmp_path, scenario_folder, known_limits
):
    done = run(
        installed_python, tmp_path, "-m", "pytest", "--pyargs", "ggufbench.bench", "--benchmark-only",
        "--gguf-models", str(llama_folder), "--gguf-scenarios", str(scenario_folder),
        "--gguf-scenario", "cpu", "-k", "prompt",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_a_project_keeps_its_own_options(installed_python, llama_folder, tmp_path):
    (tmp_path / "conftest.py").write_text(_FOREIGN_CONFTEST)
    (tmp_path / "test_own.py").write_text("def test_own(models):\n    assert models == 'mine'\n")
    made = run(installed_python, tmp_path, "-m", "ggufbench.cli", "init")
    assert made.returncode == 0, made.stdout + made.stderr
    own = run(
        installed_python, tmp_path, "-m", "pytest", "--models", "mine", "--report", "x", "--results", "y"
    )
    assert own.returncode == 0, own.stdout + own.stderr
    assert "1 passed" in own.stdout, "the benchmarks are not collected by a plain pytest"
    listed = run(
        installed_python, tmp_path, "-m", "pytest", "bench", "--collect-only", "-q",
        "--gguf-models", str(llama_folder), "--scenario", "cpu",
    )  # fmt: skip
    assert listed.returncode == 0, listed.stdout + listed.stderr
    assert "bench/bench_load.py::test_load[" in listed.stdout


def test_init_keeps_files_that_exist(installed_python, tmp_path):
    own = tmp_path / "scenarios" / "cpu.toml"
    own.parent.mkdir()
    own.write_text("mine")
    made = run(installed_python, tmp_path, "-m", "ggufbench.cli", "init")
    assert made.returncode == 0, made.stdout + made.stderr
    assert "kept scenarios/cpu.toml" in made.stdout
    assert own.read_text() == "mine"
    again = run(installed_python, tmp_path, "-m", "ggufbench.cli", "init")
    assert "nothing was written" in again.stdout


def test_run_forwards_every_option(installed_python, tmp_path):
    """A wrong value of the last option is refused by the session, which proves that it arrives there."""
    done = run(installed_python, tmp_path, "-m", "ggufbench.cli", "run", "--deadline-scale", "0")
    assert done.returncode == 4
    assert "--deadline-scale 0" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
