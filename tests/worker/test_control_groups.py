"""Limits of control groups, from composed trees in the kernel's format and from a real group."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ggufbench.worker import control_groups

GIB, MIB = 2**30, 2**20
NO_LIMIT = 9223372036854771712
"""Value of a version 1 group without a memory limit."""
HERE = Path("/sys/fs/cgroup")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A function that writes the kernel's files; `{}` in the text of mountinfo is the folder of the tree."""

    def make(cgroup, mountinfo, files):
        proc = tmp_path / "proc"
        proc.mkdir()
        (proc / "cgroup").write_text(cgroup)
        (proc / "mountinfo").write_text(mountinfo.replace("{}", str(tmp_path).replace(" ", "\\040")))
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")
        monkeypatch.setattr(control_groups, "_PROC", proc)

    return make


V1 = (
    "32 31 0:29 / {}/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / {}/memory rw,relatime - cgroup cgroup rw,memory\n"
)
V2 = "30 23 0:26 / {} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_version_1_limits_of_the_own_group(tree):
    files = {
        "cpu,cpuacct/job/cpu.cfs_quota_us": "50000",
        "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
        "cpu,cpuacct/job/cpu.stat": "nr_periods 9\nnr_throttled 3\nthrottled_time 1500000000",
        "memory/job/memory.limit_in_bytes": 512 * MIB,
        "memory/job/memory.usage_in_bytes": 400 * MIB,
        "memory/job/memory.stat": f"inactive_file 1\ntotal_inactive_file {MIB}\ntotal_active_file {MIB}",
        "memory/memory.limit_in_bytes": NO_LIMIT,
    }
    tree("4:memory:/job\n1:cpu,cpuacct:/job\n", V1, files)
    assert control_groups.cpu_quota() == 0.5
    assert control_groups.throttled_seconds() == pytest.approx(1.5)
    assert control_groups.memory_limit_bytes() == 512 * MIB
    assert control_groups.memory_left_bytes() == 114 * MIB


def test_a_parent_in_version_2_is_stricter_than_the_own_group(tree):
    files = {
        "a/b/cpu.max": "max 100000",
        "a/b/cpu.stat": "usage_usec 5\nthrottled_usec 250000",
        "a/cpu.max": "150000 100000",
        "a/cpu.stat": "usage_usec 9\nthrottled_usec 500000",
        "a/b/memory.max": 2 * GIB,
        "a/b/memory.high": "max",
        "a/b/memory.current": 100 * MIB,
        "a/memory.max": "max",
        "a/memory.high": GIB,
        "a/memory.current": 900 * MIB,
        "a/memory.stat": f"anon 5\ninactive_file {MIB}\nactive_file {MIB}",
    }
    tree("0::/a/b\n", V2, files)
    assert control_groups.cpu_quota() == 1.5
    assert control_groups.throttled_seconds() == pytest.approx(0.75)
    assert control_groups.memory_limit_bytes() == GIB
    assert control_groups.memory_left_bytes() == 126 * MIB


def test_a_container_sees_its_own_group_as_the_mount(tree):
    """Without a group namespace the paths are those of the host, and only the mount exists."""
    mount = "35 31 0:32 /docker/1f {}/memory ro - cgroup cgroup rw,memory\n"
    tree("4:memory:/docker/1f\n", mount, {"memory/memory.limit_in_bytes": GIB})
    assert control_groups.memory_limit_bytes() == GIB


@pytest.mark.parametrize("path", ["/host/elsewhere", "/../..", ""])
def test_a_group_that_is_not_visible_falls_back_to_the_mount(tree, path):
    tree(f"0::{path}\n", V2, {"memory.max": GIB})
    assert control_groups.memory_limit_bytes() == GIB


def test_both_versions_mounted(tree):
    """systemd's hybrid layout: version 2 without controllers next to version 1."""
    hybrid = V1 + "42 32 0:26 / {}/unified rw - cgroup2 cgroup2 rw\n"
    files = {"memory/job/memory.limit_in_bytes": GIB, "unified/job/cpu.stat": "usage_usec 1"}
    tree("4:memory:/job\n1:cpu,cpuacct:/job\n0::/job\n", hybrid, files)
    assert control_groups.memory_limit_bytes() == GIB
    assert control_groups.cpu_quota() is None


@pytest.mark.parametrize(
    ("cgroup", "mountinfo"), [("", ""), ("nonsense", "1 2 3"), ("0::/a", "- cgroup2"), ("0::/", V2)]
)
def test_without_limits_everything_is_none(tree, cgroup, mountinfo):
    tree(cgroup, mountinfo, {"cpu.max": "max 100000", "memory.max": "max", "cpu.stat": "\0 x y"})
    limits = (control_groups.cpu_quota(), control_groups.memory_limit_bytes())
    assert (*limits, control_groups.memory_left_bytes(), control_groups.throttled_seconds()) == (None,) * 4


WORK = """
import json, time
from ggufbench.machine.facts import available_memory_bytes, memory_limit_bytes, resolve_threads, usable_cores
from ggufbench.worker.evidence import Watch
watch = Watch()
watch.start()
end = time.monotonic() + 0.5
while time.monotonic() < end: pass
evidence = watch.stop()
print(json.dumps([usable_cores(), resolve_threads("physical"), memory_limit_bytes(),
                  available_memory_bytes(), evidence["throttled_seconds"]]))
"""


@pytest.mark.real
@pytest.mark.skipif(
    not os.access(HERE / "cpu/cpu.cfs_quota_us", os.W_OK) or not os.access(HERE / "memory", os.W_OK),
    reason="needs root and control groups of version 1",
)
def test_a_real_group_with_half_a_core_and_512_mib():
    folders = [HERE / kind / f"ggufbench-test-{os.getpid()}" for kind in ("cpu", "memory")]
    try:
        for folder in folders:
            folder.mkdir()
        (folders[0] / "cpu.cfs_quota_us").write_text("50000")
        (folders[0] / "cpu.shares").write_text("65536")  # other work must not leave it less than its quota
        (folders[1] / "memory.limit_in_bytes").write_text(str(512 * MIB))
        join = "; ".join(f"echo $$ > {folder}/cgroup.procs" for folder in folders)
        done = subprocess.run(
            ["sh", "-c", f'{join}; exec "$0" -c "$1"', sys.executable, WORK],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    finally:
        for folder in folders:
            folder.rmdir()
    cores, threads, limit, available, throttled = json.loads(done.stdout)
    assert (cores, threads, limit) == (1, 1, 512 * MIB)
    assert 0 < available < 512 * MIB
    assert throttled > 0.01
