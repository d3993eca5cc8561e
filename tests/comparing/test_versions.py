"""Releases from the real pip, and commits from the real git."""

import html
import subprocess
import sys

import pytest

from ggufbench.comparing import versions
from ggufbench.comparing.arms import ArmError, ArmSpec
from ggufbench.comparing.versions import commit_subject, commits_between, releases_between

pytestmark = pytest.mark.usefixtures("plain_pip")


def between(good: str, bad: str) -> list[str]:
    return releases_between(ArmSpec(good, "requirement"), ArmSpec(bad, "requirement"))


def numbers(found: list[str]) -> list[str]:
    return [name.partition("==")[2] for name in found]


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A function that writes the page of a package with these files to a package index in a folder."""
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())

    def write(package: str, **attributes: str) -> None:
        """Each keyword is a version, written as `v1_0`, and each value the attributes of its link."""
        page = tmp_path / "simple" / package / "index.html"
        page.parent.mkdir(parents=True)
        links = [
            f'<a href="{html.escape(file)}" {attribute}>{file}</a>'
            for version, attribute in attributes.items()
            for file in [f"{package}-{version[1:].replace('_', '.')}-py3-none-any.whl"]
        ]
        page.write_text(f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>")

    return write


@pytest.mark.real
def test_releases_are_sorted_by_version(make_wheel):
    for version in ("0.9", "0.10", "0.10.1", "0.11", "1.0", "0.8"):
        make_wheel("madeup", version)
    upwards = between("madeup==0.9", "madeup==0.11")
    assert upwards == ["madeup==0.9", "madeup==0.10", "madeup==0.10.1", "madeup==0.11"]
    assert between("madeup==0.11", "madeup==0.9") == upwards[::-1]
    assert between("madeup==0.9", "madeup==0.10") == ["madeup==0.9", "madeup==0.10"]


@pytest.mark.real
def test_ends_are_kept_even_if_not_listed(make_wheel):
    for version in ("1.0", "1.1", "1.2rc1", "1.2", "1.3"):
        make_wheel("madeup", version)
    assert numbers(between("madeup==1.0", "madeup==1.2rc1")) == ["1.0", "1.1", "1.2rc1"]
    assert numbers(between("madeup==0.1", "madeup == 1.2.0")) == ["0.1", "1.0", "1.1", " 1.2.0"]
    assert between("MadeUp[fast]==1.0", "madeup[fast]==1.2") == [
        "MadeUp[fast]==1.0",
        "madeup[fast]==1.1",
        "madeup[fast]==1.2",
    ]


@pytest.mark.real
def test_pre_releases_are_left_out_despite_pip_settings(make_wheel, monkeypatch):
    for version in ("1.0", "1.1a1", "1.1.dev3", "1.1", "1.1.post1", "1.2"):
        make_wheel("madeup", version)
    monkeypatch.setenv("PIP_PRE", "1")
    assert numbers(between("madeup==1.0", "madeup==1.2")) == ["1.0", "1.1", "1.1.post1", "1.2"]


@pytest.mark.real
def test_yanked_and_incompatible_releases_are_left_out(index):
    index(
        "madeup",
        v1_0="",
        v1_1='data-yanked="it is broken"',
        v1_2='data-requires-python="&lt;3"',
        v1_3="",
        v1_4='data-yanked=""',
    )
    assert numbers(between("madeup==1.0", "madeup==1.4")) == ["1.0", "1.3", "1.4"]
    assert numbers(between("madeup==1.1", "madeup==1.3")) == ["1.1", "1.3"]


@pytest.mark.real
def test_message_if_the_index_does_not_answer(monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(
        ArmError, match="cannot list the releases of madeup: the index does not answer; check the"
    ):
        between("madeup==1", "madeup==2")


@pytest.mark.real
def test_message_for_an_unknown_package():
    with pytest.raises(ArmError, match="No matching distribution found for madeup; check the network"):
        between("madeup==1", "madeup==2")


@pytest.mark.real
def test_message_without_pip(tmp_path, monkeypatch):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True, timeout=60)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(ArmError, match=r"has no pip, which lists releases; run it with `-m ensurepip`"):
        between("madeup==1", "madeup==2")


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        ("madeup==1", "other==2", "are different packages"),
        ("madeup[a]==1", "madeup==2", "are different packages"),
        ("madeup==1", "madeup==1.0", "the same release"),
        ("madeup>=1", "madeup==2", "madeup>=1 is not one release"),
        ("madeup==1", "madeup==2.*", "madeup==2.* is not one release"),
        ("madeup==1", "madeup===nonsense", "madeup===nonsense is not one release"),
        ("madeup @ file:///madeup-1-py3-none-any.whl", "madeup==2", "is not one release"),
        (".", "madeup==2", ". is not one release"),
        ("main", "madeup==2", "main is not one release"),
    ],
)
def test_invalid_ends_are_refused(good, bad, words):
    with pytest.raises(ArmError) as refused:
        between(good, bad)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ('{"name": "x", "versions": ["1.1", "1.0"], "latest": "1.1"}', ["1.1", "1.0"]),
        ('{"versions": ["1.0", "one", null, 2]}', ["1.0", "2"]),
        ('{"versions": {"1.0": 1}}', []),
        ('["1.0"]', []),
        ("[" * 100_000, []),
        ("", []),
    ],
)
def test_versions_are_read_from_the_json_of_pip(output, found):
    assert [str(version) for version in versions._versions(versions._from_json(output))] == found


def test_commits_are_those_of_the_first_parents(repository):
    good = repository.commit("good", a="1")
    second = repository.commit("second", a="2")
    repository.git("checkout", "--quiet", "-b", "side")
    side = repository.commit("on the side", b="1")
    repository.git("checkout", "--quiet", "main")
    third = repository.commit("third", a="3")
    repository.git("merge", "--quiet", "--no-ff", "--message", "merge", "side")
    merge = repository.git("rev-parse", "HEAD")
    bad = repository.commit("bad", a="4")
    assert commits_between(repository.path, "HEAD~4", "main") == [good, second, third, merge, bad]
    assert commits_between(repository.path, second, third) == [second, third]
    # `third` is not on the side branch: it is neither before nor after `side`.
    assert commits_between(repository.path, side, bad) == [side, merge, bad]


def test_good_must_be_an_ancestor_of_bad(repository, tmp_path):
    first, second = repository.commit("first"), repository.commit("second")
    with pytest.raises(ArmError, match=r"is not an ancestor of .*; give the earlier one as good"):
        commits_between(repository.path, second, first)
    with pytest.raises(ArmError, match="are the same commit"):
        commits_between(repository.path, "HEAD", second)
    with pytest.raises(ArmError, match="gone is not a commit of"):
        commits_between(repository.path, "gone", second)
    with pytest.raises(ArmError, match="--output=x is not a commit of"):
        commits_between(repository.path, first, "--output=x")
    with pytest.raises(ArmError, match="is not in a git repository"):
        commits_between(tmp_path, first, second)


def test_shallow_clone_message_names_the_remedy(repository, tmp_path):
    for message in ("first", "second", "third"):
        repository.commit(message)
    clone = tmp_path / "clone"
    source = repository.path.as_uri()
    subprocess.run(["git", "clone", "--quiet", "--depth=1", source, clone], check=True, timeout=60)
    repository.git("tag", "old", "HEAD~2")
    subprocess.run(["git", "-C", clone, "fetch", "--quiet", "--depth=1", "origin", "tag", "old"], check=True)
    with pytest.raises(ArmError, match="git fetch --unshallow"):
        commits_between(clone, "old", "HEAD")


def test_subject_is_one_line_without_control_characters(repository):
    commit = repository.commit("Faster \x1b[31mdecode\x07, naïvely\n\nAnd more.")
    assert commit_subject(repository.path, commit) == "Faster _[31mdecode_, naïvely"
    repository.git("commit", "--quiet", "--allow-empty", "--allow-empty-message", "--message", "")
    assert commit_subject(repository.path, "HEAD") == ""
    with pytest.raises(ArmError, match="gone is not a commit"):
        commit_subject(repository.path, "gone")


def test_configured_signature_program_is_not_started(repository, tmp_path):
    commit = repository.commit("signed")
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    raw = repository.git("cat-file", "commit", commit).replace(
        "\n\n", "\ngpgsig -----BEGIN PGP SIGNATURE-----\n\n", 1
    )
    signed = repository.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", text=raw + "\n")
    repository.git("config", "log.showSignature", "true")
    repository.git("config", "gpg.program", str(trap))
    assert commit_subject(repository.path, signed) == "signed"
    assert commits_between(repository.path, *_grown(repository, signed)) != []
    assert not (tmp_path / "sprung").exists()


def _grown(repository, commit: str) -> tuple[str, str]:
    repository.git("reset", "--quiet", "--hard", commit)
    return commit, repository.commit("after")
