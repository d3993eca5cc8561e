"""Meaning of the text of an arm, refused texts, and programs that are not interpreters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ggufbench.comparing.arms import ArmError, ArmSpec, import_path, parse_arm, prepare_arm
from ggufbench.launching.launcher import Interpreter
from ggufbench.toolchain import interpreters


@pytest.fixture
def here(repository, monkeypatch):
    """A repository with one commit, whose folder is the current folder."""
    repository.commit("first", provider="VERSION = 1")
    monkeypatch.chdir(repository.path)
    return repository


@pytest.fixture
def program(tmp_path):
    """A function that writes an executable script, for this Python or another interpreter."""

    def make(text: str, interpreter: str = sys.executable) -> Path:
        path = tmp_path / "program"
        path.write_text(f"#!{interpreter}\n{text}\n")
        path.chmod(0o755)
        return path

    return make


def prepare(text, folder=Path()):
    return prepare_arm(parse_arm(str(text), folder), folder, lambda _sentence: None)


def refusal(text, folder=Path()) -> str:
    with pytest.raises(ArmError) as refused:
        prepare(text, folder)
    return str(refused.value)


def test_a_dot_is_this_environment(here):
    assert parse_arm(".", here.path) == ArmSpec(".", "current")
    assert prepare(".").interpreter == Interpreter()


def test_scenario_file_runs_in_this_environment(here):
    (here.path / "fast.toml").write_text("")
    spec = parse_arm("fast.toml", here.path)
    assert (spec.name, spec.kind, spec.path) == ("fast.toml", "scenario", here.path / "fast.toml")
    assert prepare("fast.toml").interpreter == Interpreter()


@pytest.mark.real
def test_interpreter_path_is_not_resolved(tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, timeout=60)
    python = tmp_path / "venv" / "bin" / "python"
    assert python.is_symlink()
    for text in (tmp_path / "venv", python):
        assert prepare(text).interpreter == Interpreter(python=python)


def test_virtual_environment_of_windows_is_an_interpreter(tmp_path):
    python = tmp_path / "venv" / "Scripts" / "python.exe"
    python.parent.mkdir(parents=True)
    python.write_bytes(b"MZ")
    python.chmod(0o755)
    spec = parse_arm(str(tmp_path / "venv"), tmp_path)
    assert (spec.kind, spec.path) == ("interpreter", python)


@pytest.mark.parametrize(
    "text",
    [
        "llama-cpp-python==0.3.35",
        "llama-cpp-python[server] == 0.3.35",
        "provider>=1.0,<2",
        "provider @ https://example.org/provider-1.0-py3-none-any.whl",
        "provider @ git+ssh://git@example.org/provider.git@v1",
    ],
)
def test_a_package_with_its_version_is_a_requirement(text, here):
    assert parse_arm(text, here.path) == ArmSpec(text, "requirement")


def test_branches_tags_and_hashes_are_commits(here):
    first = here.git("rev-parse", "HEAD")
    here.git("tag", "--annotate", "v1", "--message", "one")
    second = here.commit("second", provider="VERSION = 2")
    for text, commit in (
        ("main", second),
        ("v1", first),
        (first, first),
        (second[:8], second),
        ("HEAD~1", first),
    ):
        assert parse_arm(text, here.path) == ArmSpec(text, "commit", commit=commit)


def test_git_trees_and_files_are_not_commits(here):
    assert "nor a commit" in refusal("HEAD:provider.py")
    assert "nor a commit" in refusal("HEAD^{tree}")
    assert "nor a commit" in refusal("^HEAD")
    assert "nor a commit" in refusal("0" * 40)


def test_path_takes_precedence_over_branch(here):
    here.git("branch", "fast")
    assert parse_arm("fast", here.path).kind == "commit"
    (here.path / "fast").mkdir()
    assert "refs/heads/fast for the branch" in refusal("fast")
    assert parse_arm("refs/heads/fast", here.path).kind == "commit"
    assert "refs/heads" not in refusal(here.path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "give `.`"),
        ("  ", "give `.`"),
        ("--upload-pack=touch x", "begins with a dash"),
        ("-rrequirements.txt", "begins with a dash"),
        ("main\nother", "cannot be printed"),
        ("\x1b[31mmain", "cannot be printed"),
        ("\udcff", "cannot be printed"),
        ("a\0b", "cannot be printed"),
        ("x" * 5000, "at most 4096"),
        ("x" * 4000, "nor a commit"),
        ("~nobody-of-that-name/venv", "check the path"),
        ("missing.toml", "check the path"),
        ("venv/bin/python", "check the path"),
        ("llama-cpp-python", "add its version: llama-cpp-python==VERSION"),
        ("mian", "did you mean main?"),
        ("!", "give `.`, a path, NAME==VERSION or a commit"),
        ("provider==1.0; python_version < '3'", "condition after `;`"),
        ("provider @ https://me:secret@example.org/x.whl", "credentials"),
        ("provider @ git+https://token@example.org/x.git", "credentials"),
        ("provider @ file:///", "does not name a file"),
        ("provider @ https://[", "invalid URL"),
    ],
)
def test_invalid_arm_messages(text, words, here):
    said = refusal(text)
    assert words in said
    assert said.isprintable()
    assert "secret" not in said and "token" not in said


def test_message_without_a_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    folder = tmp_path / "plain"
    folder.mkdir()
    said = refusal("main", folder)
    assert "nor a commit" in said and "is not in a git repository" in said


def test_message_without_git(here, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert "git is not installed" in refusal("main")


def test_other_files_are_refused(here):
    (here.path / "model.gguf").write_bytes(b"GGUF")
    assert "neither a Python nor a scenario file" in refusal("model.gguf")
    (here.path / "provider-1.0-py3-none-any.whl").write_bytes(b"")
    assert "NAME @ file://" in refusal("provider-1.0-py3-none-any.whl")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it printed nothing"),
        ("print('Welcome to Python 3.11.')", "it printed 'Welcome"),
        ("import os\nwhile True: os.write(1, b'y' * 4096)", "it printed 'yyyy"),
        ("import os; os.write(1, b'\\x1b[31m\\xff')", "it printed '\\x1b[31m\\xff'"),
        ("import os; os.write(1, b'Python 3.9.')", "is Python 3.9, and a worker needs 3.10"),
        ("import os; os.write(1, b'Python 2.7.')", "is Python 2.7, and a worker needs 3.10"),
    ],
)
def test_unusable_interpreter_messages(program, text, words):
    said = refusal(program(text))
    assert words in said
    assert said.isprintable()


@pytest.mark.real
def test_message_if_the_system_cannot_start_the_file(tmp_path):
    path = tmp_path / "python"
    path.write_bytes(b"\x7fELF nonsense")
    path.chmod(0o755)
    assert "cannot be started: Exec format error" in refusal(path)


def test_hanging_program_is_terminated_at_the_timeout(program, monkeypatch, wait_until):
    monkeypatch.setattr(interpreters, "_ANSWER_SECONDS", 2.0)
    path = program(
        "import os, pathlib, time\n"
        "pathlib.Path(__file__ + '.pid').write_text(str(os.getpid()))\n"
        "time.sleep(600)"
    )
    assert "it printed nothing" in refusal(path)
    pid = int(path.with_name("program.pid").read_text())
    wait_until(lambda: not _runs(pid), "the program to end")


def test_inherited_pipe_does_not_block(program, monkeypatch):
    monkeypatch.setattr(interpreters, "_ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(interpreters, "_ANSWER_GRACE_SECONDS", 0.1)
    path = program(
        "import os, pathlib, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    pathlib.Path(__file__ + '.pid').write_text(str(os.getpid()))\n"
        "    time.sleep(600)"
    )
    try:
        assert "it printed nothing" in refusal(path)
    finally:
        os.kill(int(path.with_name("program.pid").read_text()), 9)


def test_import_path_is_src_and_the_folder(tmp_path):
    assert import_path(tmp_path) == (tmp_path,)
    (tmp_path / "src").mkdir()
    assert import_path(tmp_path) == (tmp_path / "src", tmp_path)
    assert all(folder.is_absolute() for folder in import_path(Path()))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
