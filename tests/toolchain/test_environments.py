"""Environments of a requirement: real virtual environments, installed by pip and built once."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from packaging.requirements import Requirement

from ggufbench.calibration.probe import probe
from ggufbench.comparing.arms import ArmError, parse_arm, prepare_arm
from ggufbench.toolchain import environments
from ggufbench.toolchain.builds import BuildError, BuildPlace, build_once, run_logged
from ggufbench.toolchain.environments import cmake_arguments, environment_place, is_exact

CHECKOUT = Path(__file__).resolve().parents[2]

BUILDER = """
import sys
from pathlib import Path
from ggufbench.comparing.arms import parse_arm, prepare_arm
tell = lambda sentence: print(sentence, flush=True)
print("python", prepare_arm(parse_arm(sys.argv[1], Path()), Path(), tell).interpreter.python, flush=True)
"""


@pytest.fixture
def told():
    """Sentences reported during the preparation of arms."""
    return []


@pytest.fixture
def prepare(cache, told):
    """A function that returns the Python of a requirement's environment."""

    def make(text: str, env=os.environ) -> Path:
        return prepare_arm(parse_arm(text, Path()), Path(), told.append, env).interpreter.python

    return make


@pytest.fixture
def start_builder(cache):
    """A function that starts a process which prepares an arm; all are killed at the end."""
    processes = []

    def start(text: str) -> subprocess.Popen:
        command = [sys.executable, "-c", BUILDER, text]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        processes.append(subprocess.Popen(command, **pipes, text=True, cwd=cache.parent))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def value_in(python: Path, expression: str) -> str:
    """Output of an environment's Python for an expression."""
    command = [python, "-I", "-c", f"import importlib.util; print({expression})"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def place_of(text: str, cache: Path) -> BuildPlace:
    return environment_place(Requirement(text), cache, os.environ)


@pytest.mark.real
def test_release_of_the_library_runs_a_real_worker(prepare, told, wheel_of_installed, monkeypatch):
    version = wheel_of_installed("llama-cpp-python")
    for needed in ("numpy", "diskcache", "jinja2", "markupsafe", "typing-extensions"):
        wheel_of_installed(needed)
    monkeypatch.setenv("PIP_NO_COMPILE", "1")  # which takes longer than all other steps
    text = f"llama-cpp-python=={version}"
    python = prepare(text)
    assert len(told) == 1
    assert re.fullmatch(rf"installing {text} into .*, which compiles llama.cpp: some minutes, once", told[0])
    found = probe(prepare_arm(parse_arm(text, Path()), Path(), told.append).interpreter)
    assert found.problem is None
    assert found.versions["llama-cpp-python"] == version
    assert found.lacks("cpu") is None
    assert len(told) == 1  # nothing was rebuilt
    assert python != Path(sys.executable)


@pytest.mark.real
def test_failed_build_is_one_sentence_and_is_repeated(prepare, cache, told, make_sdist):
    make_sdist("broken", "1.0", 'raise RuntimeError("no compiler: \\x1b[31m of C++")')
    with pytest.raises(ArmError) as refused:
        prepare("broken==1.0")
    said, place = str(refused.value), place_of("broken==1.0", cache)
    # The message depends on the version of pip.
    assert re.match(r"broken==1\.0 was not installed: [^(]*(fail|not build)[^(]*broken", said, re.IGNORECASE)
    assert f"(the output is in {place.log})" in said and said.isprintable()
    assert "no compiler" in place.log.read_text()
    assert sorted(path.name for path in place.folder.iterdir()) == ["build.log", "lock"]

    make_sdist("broken", "1.0", "assert Path(os.environ['TMPDIR']).is_dir()")
    python = prepare("broken==1.0", {**os.environ, "PIP_TARGET": "elsewhere", "PYTHONPATH": "/nowhere"})
    assert len(told) == 2 and not told[1].endswith("once")
    assert python == place.path / "bin" / "python"
    assert value_in(python, "importlib.import_module('broken').ARGUMENTS") == cmake_arguments({})
    facts = json.loads((place.folder / "complete").read_text())
    assert (facts["requirement"], facts["installed"]) == ("broken==1.0", "1.0")
    assert sorted(path.name for path in place.folder.iterdir()) == ["build.log", "complete", "lock", "venv"]


@pytest.mark.real
def test_killed_build_leaves_no_process_and_is_repeated_once(
    start_builder, cache, make_sdist, wait_until, tmp_path
):
    pid_file, go = tmp_path / "pid", tmp_path / "go"
    say = f"Path({str(pid_file)!r}).write_text(str(os.getpid()))"
    make_sdist("slow", "1.0", f"{say}\nwhile not Path({str(go)!r}).exists(): time.sleep(0.05)")
    first = start_builder("slow==1.0")
    wait_until(pid_file.exists, "the build to begin")
    backend = wait_until(pid_file.read_text, "its process id")
    place = place_of("slow==1.0", cache)
    assert place.path.is_dir() and not place.is_complete()
    first.kill()
    first.wait()
    wait_until(lambda: not psutil.pid_exists(int(backend)), "the build to end with its harness")

    (place.path / "left by the killed one").touch()
    pid_file.unlink()
    second = start_builder("slow==1.0")
    wait_until(pid_file.exists, "the second build to begin")
    third = start_builder("slow==1.0")
    assert "another run is building" in third.stdout.readline()
    go.touch()
    answers = [process.communicate(timeout=120)[0].splitlines() for process in (second, third)]
    assert [lines[-1] for lines in answers] == [f"python {place.path / 'bin' / 'python'}"] * 2
    assert answers[0][0].startswith("installing slow==1.0 into")
    assert len(answers[1]) == 1  # it used the result of the other one
    assert not (place.path / "left by the killed one").exists()


@pytest.mark.real
def test_ctrl_c_removes_an_incomplete_build(start_builder, cache, make_sdist, wait_until):
    make_sdist("stopped", "1.0")
    builder = start_builder("stopped==1.0")
    place = place_of("stopped==1.0", cache)
    wait_until(place.path.is_dir, "the environment to begin")
    children = psutil.Process(builder.pid).children(recursive=True)
    assert children
    builder.send_signal(signal.SIGINT)
    output, _ = builder.communicate(timeout=60)
    assert output.rstrip().endswith("KeyboardInterrupt")
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    assert sorted(path.name for path in place.folder.iterdir()) == ["build.log", "lock"]


def test_environment_depends_on_requirement_build_and_python(cache, monkeypatch):
    def folder(text: str, **env: str) -> Path:
        return environment_place(Requirement(text), cache, env).folder

    plain = folder("llama-cpp-python==0.3.35")
    assert plain.parent == cache / "environments" and plain.name.startswith("llama-cpp-python-0.3.35-")
    same = [
        folder("Llama_CPP.python == 0.3.35"),
        folder("llama-cpp-python==0.3.35", HOME="/home/me", LANG="C"),
    ]
    same += [folder("llama-cpp-python==0.3.35", CMAKE_BUILD_PARALLEL_LEVEL="2", PIP_DEFAULT_TIMEOUT="9")]
    assert {path.name[-12:] for path in same} == {plain.name[-12:]}
    others = [
        folder("llama-cpp-python==0.3.36"), folder("llama-cpp-python[server]==0.3.35"),
        *(folder("llama-cpp-python==0.3.35", **{key: "x"}) for key in (
            "CMAKE_ARGS", "CMAKE_GENERATOR", "FORCE_CMAKE", "CC", "CXXFLAGS", "SKBUILD_BUILD_DIR",
            "PIP_EXTRA_INDEX_URL", "PIP_NO_BINARY", "PIP_CONSTRAINT",
        )),
    ]  # fmt: skip
    monkeypatch.setattr(environments.platform, "python_version", lambda: "3.99.0")
    others.append(folder("llama-cpp-python==0.3.35"))
    assert len({plain, *others}) == len(others) + 1


def test_hostile_requirement_stays_in_the_cache(cache):
    for text in ("a @ file:///../../etc/passwd", "a @ https://example.org/../..", f"a=={'1.' * 500}0"):
        requirement = Requirement(text)
        if requirement.url is None or "file" not in requirement.url:
            folder = environment_place(requirement, cache, {}).folder
            assert folder.parent == cache / "environments" and len(folder.name) < 80


def test_rebuilt_file_gets_another_environment(make_wheel, cache):
    requirement = Requirement(f"madeup @ {make_wheel('madeup', '1.0').as_uri()}")
    before = environment_place(requirement, cache, {})
    assert environment_place(requirement, cache, {}) == before
    make_wheel("madeup", "1.0").write_bytes(b"another build")
    assert environment_place(requirement, cache, {}) != before


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("a==1.0", True), ("a===1.0", True), ("a==1.*", False), ("a>=1", False), ("a==1,!=2", False),
        ("a @ https://example.org/a-1.0.tar.gz", True), ("a @ file:///a-1.0-py3-none-any.whl#sha256=0", True),
        (f"a @ git+https://example.org/a@{'0' * 40}", True), ("a @ git+https://example.org/a@main", False),
    ],
)  # fmt: skip
def test_pinned_requirements_are_exact(text, exact):
    assert is_exact(Requirement(text)) is exact


def test_unpinned_environment_is_reported_as_reused(prepare, told, cache, make_wheel):
    place = place_of("madeup>=1", cache)
    build_once(place, lambda: _fake_environment(place), told.append)
    assert prepare("madeup>=1") == place.path / "bin" / "python"
    assert told == [f"madeup>=1: as it was installed earlier; remove {place.folder} to install it anew"]


@pytest.mark.real
def test_environment_without_its_python_is_rebuilt(prepare, told, cache):
    place = place_of("nowhere==1", cache)
    build_once(place, lambda: _fake_environment(place), told.append)
    assert prepare("nowhere==1") and not told
    (place.path / "bin" / "python").unlink()
    (place.path / "bin" / "python").symlink_to("/usr/bin/python that was removed")
    with pytest.raises(ArmError, match="No matching distribution found for nowhere==1"):
        prepare("nowhere==1")
    assert len(told) == 1 and not place.is_complete()


@pytest.mark.real
def test_environment_has_a_pip_if_there_is_none_here(prepare, make_wheel, monkeypatch):
    make_wheel("madeup", "1.0")
    monkeypatch.setattr(environments, "_pip_here_serves_others", lambda: False)
    python = prepare("madeup==1.0")
    assert value_in(python, "importlib.import_module('madeup').VERSION") == "1.0"
    assert value_in(python, "importlib.util.find_spec('pip') is not None") == "True"


@pytest.mark.real
def test_package_installed_elsewhere_by_pip_is_an_error(prepare, make_wheel, tmp_path, monkeypatch, cache):
    make_wheel("madeup", "1.0")
    (tmp_path / "pip.conf").write_text(f"[install]\ntarget = {tmp_path / 'elsewhere'}\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    with pytest.raises(ArmError, match=r"madeup==1\.0 is not in .*; look for target, prefix or user"):
        prepare("madeup==1.0")
    assert (tmp_path / "elsewhere" / "madeup.py").exists()
    assert not place_of("madeup==1.0", cache).is_complete()


def test_build_flags_equal_those_of_the_installer(monkeypatch):
    installer = (CHECKOUT / "tools" / "install_llama_cpp.sh").read_text()
    monkeypatch.setattr(environments, "_has_amx", lambda: False)
    assert cmake_arguments({}) == re.search(r'arguments="(\S+) \$', installer)[1]
    assert cmake_arguments({"CMAKE_ARGS": "-DGGML_CUDA=on"}) == "-DGGML_RPC=ON -DGGML_CUDA=on"
    monkeypatch.setattr(environments, "_has_amx", lambda: True)
    without = re.search(r"without='(.*)'", installer)[1]
    flags = f"-DCMAKE_C_FLAGS='{without}' -DCMAKE_CXX_FLAGS='{without}'"
    assert cmake_arguments({"CMAKE_ARGS": "-DX=1"}) == f"-DGGML_RPC=ON {flags} -DX=1"
    assert cmake_arguments({"GGUFBENCH_AMX": "1"}) == "-DGGML_RPC=ON"


def test_failed_build_is_removed(tmp_path):
    place = BuildPlace(tmp_path / "place", "content")

    def fail() -> str:
        place.path.mkdir()
        (place.path / "half").touch()
        raise OSError(28, "No space left on device")

    with pytest.raises(BuildError, match="cannot be used: No space left on device; free some space there"):
        build_once(place, fail, lambda _sentence: None)
    assert [path.name for path in place.folder.iterdir()] == ["lock"]


def test_remains_of_a_killed_build_are_removed(tmp_path):
    place = BuildPlace(tmp_path / "place", "content")
    for left in (place.path, place.scratch):
        left.mkdir(parents=True)
        (left / "half").touch()
    build_once(place, lambda: _make(place), lambda _sentence: None)
    assert [path.name for path in place.path.iterdir()] == ["whole"] and not place.scratch.exists()
    build_once(place, pytest.fail, lambda _sentence: None)


def test_only_one_of_several_builders_builds(tmp_path):
    place, built, told = BuildPlace(tmp_path / "place", "content"), [], []
    begun = threading.Event()

    def build() -> str:
        built.append(1)
        assert begun.wait(60)
        return _make(place)

    builders = [threading.Thread(target=build_once, args=(place, build, told.append)) for _ in range(4)]
    for builder in builders:
        builder.start()
    while len(told) < 3:
        builders[0].join(0.01)
    begun.set()
    for builder in builders:
        builder.join()
    assert built == [1] and place.is_complete()
    assert told == [f"another run is building {place.path}; waiting for it"] * 3


@pytest.mark.real
def test_timeout_terminates_the_process_group(tmp_path, wait_until):
    pids = tmp_path / "pids"
    text = (
        "import os, subprocess, sys, time\n"
        f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\n"
        "if len(sys.argv) < 2: subprocess.Popen([sys.executable, __file__, 'child'])\n"
        "time.sleep(600)\n"
    )
    (tmp_path / "program.py").write_text(text)
    command = [sys.executable, str(tmp_path / "program.py")]
    with pytest.raises(subprocess.TimeoutExpired):
        run_logged(command, os.environ, tmp_path / "log", 1.5)
    started = [int(line) for line in pids.read_text().split()]
    assert len(started) == 2
    wait_until(lambda: not any(map(psutil.pid_exists, started)), "both to end")


@pytest.mark.real
@pytest.mark.parametrize(
    ("text", "code"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_exit_code_is_returned_and_output_is_logged(tmp_path, text, code):
    command = [
        sys.executable,
        "-c",
        f"print('hello', flush=True)\nimport sys; print(sys.stdin.read())\n{text}",
    ]
    assert run_logged(command, os.environ, tmp_path / "log", 60) == code
    assert (tmp_path / "log").read_text().startswith("hello\n")


def _make(place: BuildPlace) -> str:
    place.path.mkdir()
    (place.path / "whole").touch()
    return "facts"


def _fake_environment(place: BuildPlace) -> str:
    (place.path / "bin").mkdir(parents=True)
    (place.path / "bin" / "python").symlink_to(sys.executable)
    return "facts"
