"""Facts about this machine. A container's limits are read from an imitation of the kernel's cgroup files."""

import os
import subprocess
import sys

import psutil
import pytest

from ggufbench.machine import facts
from ggufbench.machine.facts import (
    available_memory_bytes,
    memory_limit_bytes,
    read_machine,
    resolve_threads,
    source_state,
    usable_cores,
)
from ggufbench.worker import control_groups

GIB = 2**30


@pytest.fixture
def fake_cgroup(tmp_path, monkeypatch):
    """A function that writes files like the kernel's in a cgroup (version 2); the real ones are hidden."""
    folder, proc = tmp_path / "cgroup", tmp_path / "proc"
    for made in (folder, proc):
        made.mkdir()
    (proc / "cgroup").write_text("0::/\n")
    (proc / "mountinfo").write_text(f"30 23 0:26 / {folder} rw - cgroup2 cgroup2 rw\n")
    monkeypatch.setattr(control_groups, "_PROC", proc)

    def write(**files):
        for name, content in files.items():
            (folder / name.replace("_", ".", 1)).write_text(f"{content}\n")

    return write


@pytest.fixture
def cores(monkeypatch):
    """A function that sets the numbers of physical and usable cores."""

    def set_cores(physical, usable):
        monkeypatch.setattr(facts, "physical_cores", lambda: physical)
        monkeypatch.setattr(facts, "usable_cores", lambda: usable)

    return set_cores


@pytest.mark.parametrize(
    ("physical", "usable", "auto", "all_physical", "less_one"),
    [
        (1, 1, 1, 1, 1),
        (2, 2, 1, 2, 1),
        (4, 4, 3, 4, 3),
        (5, 5, 4, 5, 4),
        (5, 10, 5, 5, 4),
        (8, 16, 8, 8, 7),
        (8, 2, 1, 2, 1),
        (64, 6, 5, 6, 5),
    ],
)
def test_words_for_threads(cores, physical, usable, auto, all_physical, less_one):
    cores(physical, usable)
    assert resolve_threads("auto") == auto
    assert resolve_threads("physical") == all_physical
    assert resolve_threads("physical-1") == less_one
    assert resolve_threads(99) == 99


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system does not bind processes to cores"
)
@pytest.mark.real
def test_usable_cores_follow_the_affinity():
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from ggufbench.machine.facts import usable_cores, resolve_threads\n"
        "print(usable_cores(), resolve_threads('auto'), resolve_threads('physical'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["1", "1", "1"]


@pytest.mark.parametrize(("quota", "most"), [("100000 100000", 1), ("50000 100000", 1), ("150000 100000", 1)])
def test_a_container_s_quota_limits_the_cores(fake_cgroup, quota, most):
    fake_cgroup(cpu_max=quota)
    assert usable_cores() == most


@pytest.mark.parametrize("quota", ["max 100000", "", "nonsense"])
def test_without_a_quota_every_core_counts(fake_cgroup, quota):
    everything = usable_cores()
    fake_cgroup(cpu_max=quota)
    assert usable_cores() == everything


def test_a_container_s_memory_limit_counts(fake_cgroup):
    total = psutil.virtual_memory().total
    assert memory_limit_bytes() == total
    fake_cgroup(memory_max="max")
    assert memory_limit_bytes() == total
    fake_cgroup(memory_max=GIB)
    assert memory_limit_bytes() == GIB
    assert read_machine().memory_gib == 1
    fake_cgroup(memory_max=2**60)
    assert memory_limit_bytes() == total


def test_file_cache_of_a_container_counts_as_free(fake_cgroup):
    fake_cgroup(memory_max=256 * 2**20, memory_current=200 * 2**20)
    assert available_memory_bytes() == 56 * 2**20
    fake_cgroup(memory_stat=f"anon 5\nactive_file {2**20}\n\ninactive_file {3 * 2**20}\ninactive_anon 7")
    assert available_memory_bytes() == 60 * 2**20
    fake_cgroup(memory_current=400 * 2**20)
    assert available_memory_bytes() == 0


def test_the_fingerprint_is_stable_and_includes_devices():
    first = read_machine()
    assert read_machine() == first
    assert len(first.fingerprint) == 16
    gpu = read_machine(["MTL0: Apple M4", "CUDA0: something"])
    assert gpu.fingerprint != first.fingerprint
    assert read_machine(["CUDA0: something", "MTL0: Apple M4"]).fingerprint == gpu.fingerprint


@pytest.mark.real
def test_the_fingerprint_is_the_same_in_another_process():
    code = "from ggufbench.machine.facts import read_machine; print(read_machine().fingerprint)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == read_machine().fingerprint


def test_another_processor_or_memory_is_another_machine(monkeypatch, fake_cgroup, tmp_path):
    here = read_machine()
    fake_cgroup(memory_max=GIB)
    assert read_machine().fingerprint != here.fingerprint
    monkeypatch.setattr(facts, "_cpu_info", dict)
    monkeypatch.setattr(facts, "_CPUS", tmp_path)
    unknown = read_machine()
    assert unknown.fingerprint != here.fingerprint
    assert unknown.l3_cache_bytes == 0


def test_the_last_cache_is_all_of_its_parts(tmp_path):
    def cache(cpu, index, level, size, shared):
        folder = tmp_path / f"cpu{cpu}" / "cache" / f"index{index}"
        folder.mkdir(parents=True)
        for name, value in (("level", level), ("size", size), ("shared_cpu_list", shared)):
            (folder / name).write_text(f"{value}\n")

    for cpu in range(4):
        cache(cpu, 2, 2, "512K", str(cpu))
        cache(cpu, 3, 3, "32768K", "0-1" if cpu < 2 else "2-3")
    assert facts.linux_last_cache_bytes(tmp_path) == 2 * 32 * 2**20
    assert facts.linux_last_cache_bytes(tmp_path / "none") == 0


@pytest.fixture
def git(tmp_path):
    """A function that runs git in `tmp_path` with a fixed identity."""
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a"}
    env = {**os.environ, **who, "GIT_COMMITTER_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": os.devnull}

    def run(*arguments):
        command = ["git", "-C", str(tmp_path), *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.strip()

    return run


def test_a_repository_has_a_commit_and_may_be_dirty(git, tmp_path):
    assert source_state(tmp_path).commit is None
    assert source_state(tmp_path).dirty is None
    git("init", "-q")
    assert source_state(tmp_path).commit is None, "nothing is committed yet"
    (tmp_path / "file").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    state = source_state(tmp_path)
    assert (state.commit, state.dirty) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "file").write_text("2")
    assert source_state(tmp_path).dirty is True
    (tmp_path / "inside").mkdir()
    assert source_state(tmp_path / "inside").commit == state.commit


def test_source_state_is_unknown_without_git(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    state = source_state(tmp_path)
    assert (state.commit, state.dirty) == (None, None)


def test_a_git_that_fails_halfway_does_not_make_a_clean_tree(monkeypatch, tmp_path):
    answers = {"rev-parse": "abc", "status": None}
    monkeypatch.setattr(facts, "_git", lambda _folder, command, *_more: answers[command])
    state = source_state(tmp_path)
    assert (state.commit, state.dirty) == ("abc", None)
