"""Export of a commit without changing the user's checkout, also from hostile repositories."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ggufbench.comparing.arms import ArmError, parse_arm, prepare_arm
from ggufbench.launching.launcher import launch
from ggufbench.worker.protocol import ProbeJob

WORKER = """
import json, pathlib
import provider
found = {"version": provider.VERSION, "file": provider.__file__}
pathlib.Path(__file__).with_name("imported.json").write_text(json.dumps(found))
"""


@pytest.fixture
def told():
    """Sentences reported during the preparation of arms."""
    return []


@pytest.fixture
def prepare(repository, cache, told):
    """A function that prepares the arm of a text."""
    return lambda text, folder=repository.path: prepare_arm(parse_arm(text, folder), folder, told.append)


@pytest.fixture
def imported(tmp_path):
    """A function that returns facts on the `provider` that a real worker process of an arm imports."""
    entry = tmp_path / "worker.py"
    entry.write_text(WORKER)

    def ask(arm) -> dict:
        ended = launch(ProbeJob(), lambda _phase: 60, interpreter=replace(arm.interpreter, entry=entry))
        assert ended.reason == "it ended in start with exit code 0", ended.stderr
        return json.loads((tmp_path / "imported.json").read_text())

    return ask


@pytest.mark.real
def test_commits_are_imported_and_the_checkout_is_unchanged(repository, prepare, imported, told):
    first = repository.commit("first", provider="VERSION = 1")
    repository.commit("second", provider="VERSION = 2")
    (repository.path / "provider.py").write_text("VERSION = 'not committed'")
    before = _state(repository)
    assert imported(prepare("HEAD~1"))["version"] == 1
    assert imported(prepare("main"))["version"] == 2
    assert len(told) == 2 and first[:12] in told[0]
    assert imported(prepare(first))["version"] == 1
    assert len(told) == 2  # it was already exported
    assert _state(repository) == before


@pytest.mark.real
def test_src_folder_precedes_the_repository_folder(repository, prepare, imported):
    repository.commit("first", provider="VERSION = 'top'", src__provider="VERSION = 'src'")
    arm = prepare("main")
    assert imported(arm)["version"] == "src"
    assert [path.name for path in arm.interpreter.import_path] == ["src", "tree"]


@pytest.mark.real
def test_arm_of_a_subfolder_uses_that_folder_of_the_commit(repository, prepare, imported):
    repository.commit("first", other="VERSION = 0")
    repository.commit("second", tools__provider="VERSION = 3")
    below = repository.path / "tools"
    assert imported(prepare("main", below))["version"] == 3
    with pytest.raises(ArmError, match="HEAD~1 has no folder tools"):
        prepare("HEAD~1", below)


def test_files_are_exactly_those_of_the_commit(repository, prepare, tmp_path):
    (repository.path / "run.sh").write_text("#!/bin/sh\n")
    (repository.path / "run.sh").chmod(0o755)
    (repository.path / "link").symlink_to("run.sh")
    (repository.path / "dangling").symlink_to("/nowhere/at/all")
    (repository.path / "odd \t ünïcode\nname").write_text("x")
    (repository.path / "large").write_bytes(os.urandom(3_000_001))
    (repository.path / "crlf.txt").write_bytes(b"a\r\nb\n")
    (repository.path / "empty").touch()
    repository.commit("first", deep__er__provider="VERSION = 1")
    tree = prepare("main").interpreter.import_path[-1]
    shutil.move(repository.path / ".git", tmp_path / "aside")
    compared = subprocess.run(
        ["diff", "-r", "--no-dereference", repository.path, tree], check=False, timeout=60
    )
    assert compared.returncode == 0
    assert os.access(tree / "run.sh", os.X_OK) and (tree / "dangling").is_symlink()


def test_submodule_is_an_empty_folder(repository, prepare):
    commit = repository.tree(f"160000 commit {'1' * 40}\tvendor", f"100644 blob {repository.blob('x')}\ta.py")
    tree = prepare(commit).interpreter.import_path[-1]
    assert sorted(path.name for path in tree.iterdir()) == ["a.py", "vendor"]
    assert list((tree / "vendor").iterdir()) == []


def test_programs_of_the_git_configuration_are_not_run(repository, prepare, tmp_path):
    trap = tmp_path / "trap.sh"
    trap.write_text(f'#!/bin/sh\necho "$0 $*" >> "{tmp_path}/sprung"\ncat\n')
    trap.chmod(0o755)
    (repository.path / ".gitattributes").write_text("*.py filter=evil\n*.py export-ignore\n")
    commit = repository.commit("first", provider="VERSION = 1")
    hooks = repository.path / ".git" / "hooks"
    for hook in ("post-checkout", "pre-commit", "reference-transaction", "post-index-change"):
        shutil.copy(trap, hooks / hook)
    for key in (
        "filter.evil.smudge", "filter.evil.process", "core.fsmonitor", "core.sshCommand", "core.pager",
        "core.editor", "diff.external", "gpg.program", "core.askPass", "alias.cat-file", "alias.ls-tree",
    ):  # fmt: skip
        repository.git("config", key, str(trap))
    repository.git("config", "core.hooksPath", str(hooks))
    repository.git("config", "filter.evil.required", "true")
    repository.git("config", "log.showSignature", "true")
    (tmp_path / "sprung").unlink(missing_ok=True)
    tree = prepare(commit).interpreter.import_path[-1]
    assert (tree / "provider.py").read_text() == "VERSION = 1"  # despite `export-ignore`
    assert not (tmp_path / "sprung").exists()


def test_missing_objects_of_a_partial_clone_are_not_fetched(repository, tmp_path, cache, told):
    repository.commit("first", provider="VERSION = 1")
    repository.git("config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "clone"
    subprocess.run(
        ["git", "clone", "--quiet", "--no-checkout", "--filter=blob:none", repository.path.as_uri(), clone],
        check=True,
        timeout=60,
    )
    with pytest.raises(ArmError, match=r"lacks the object .*git fetch --refetch --no-filter"):
        prepare_arm(parse_arm("main", clone), clone, told.append)
    assert not list(cache.rglob("tree"))
    remedy = [
        "git",
        "-C",
        clone,
        "-c",
        "protocol.file.allow=always",
        "fetch",
        "--quiet",
        "--refetch",
        "--no-filter",
    ]
    subprocess.run(remedy, check=True, timeout=60)
    arm = prepare_arm(parse_arm("main", clone), clone, told.append)
    assert (arm.interpreter.import_path[0] / "provider.py").exists()


@pytest.mark.parametrize("name", ["..", ".", ".git", ".GIT"])
def test_unsafe_path_in_a_tree_is_an_error(repository, prepare, cache, name):
    inner = repository.git("mktree", text=f"100644 blob {repository.blob('x')}\tescaped\n")
    commit = repository.tree(f"040000 tree {inner}\t{name}")
    with pytest.raises(ArmError, match="git itself would not write"):
        prepare(commit)
    assert not list(cache.rglob("escaped")) and not list(cache.rglob("tree"))


def test_nothing_is_written_through_a_link(repository, prepare, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    inner = repository.git("mktree", text=f"100644 blob {repository.blob('x')}\tescaped\n")
    link = repository.blob(str(outside))
    links = repository.git("mktree", text=f"120000 blob {link}\tescaped\n")
    for below in (inner, links):
        commit = repository.tree(f"120000 blob {link}\ta", f"040000 tree {below}\ta")
        with pytest.raises(ArmError, match="two paths that are both a on this disk"):
            prepare(commit)
    assert list(outside.iterdir()) == []


def test_message_for_a_damaged_repository(repository, prepare, cache):
    blob = repository.blob("x" * 5000)
    commit = repository.tree(f"100644 blob {blob}\ta.py")
    file = repository.path / ".git" / "objects" / blob[:2] / blob[2:]
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ArmError) as refused:
        prepare(commit)
    assert len(str(refused.value).splitlines()) == 1
    missing = repository.tree(f"100644 blob {'1' * 40}\ta.py")
    with pytest.raises(ArmError, match="lacks the object 111111111111"):
        prepare(missing)
    assert not list(cache.rglob("tree"))


def test_git_variables_of_a_hook_are_ignored(repository, prepare, tmp_path, monkeypatch):
    repository.commit("first", provider="VERSION = 1")
    other = tmp_path / "other"
    subprocess.run(["git", "init", "--quiet", other], check=True, timeout=60)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert (prepare("main").interpreter.import_path[0] / "provider.py").exists()


def test_repositories_of_the_same_name_have_separate_folders(repository, prepare, tmp_path):
    repository.commit("first", provider="VERSION = 1")
    copy = tmp_path / "copies" / repository.path.name
    shutil.copytree(repository.path, copy)
    places = {prepare("main", folder).interpreter.import_path[0] for folder in (repository.path, copy)}
    assert len(places) == 2
    assert all(repository.path.name in str(place) for place in places)


def test_message_if_the_cache_cannot_be_written(repository, prepare, cache):
    repository.commit("first", provider="VERSION = 1")
    cache.write_text("a file")
    with pytest.raises(ArmError, match=r"cannot be used: Not a directory; .* set GGUFBENCH_CACHE"):
        prepare("main")


def _state(repository) -> dict:
    files = {
        str(path.relative_to(repository.path)): path.read_bytes() if path.is_file() else None
        for path in Path(repository.path).rglob("*")
    }
    # The index contains the times of files, which `git status` updates.
    del files[".git/index"]
    return files
