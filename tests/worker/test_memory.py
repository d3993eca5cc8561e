"""Memory from the kernel's accounting: Linux's text, macOS's structure, and the process of a peak."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggufbench.worker.memory import mark, parse_rollup, parse_rusage_info, parse_status

MIB = 2**20
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system has no /proc")

MARKS = "import json; from ggufbench.worker.memory import mark; print(json.dumps(mark()))"
LARGE_PARENT = f"""
import subprocess, sys
held = bytearray(b"x") * (300 * 2**20)
print(subprocess.run([sys.executable, "-c", {MARKS!r}], capture_output=True, text=True, check=True).stdout)
"""

STATUS = """Name:\tpython
Umask:\t0022
VmPeak:\t  263188 kB
VmHWM:\t   10240 kB
VmRSS:\t    8192 kB
RssAnon:\t    4096 kB
RssFile:\t    3072 kB
RssShmem:\t    1024 kB
VmLck:\t     512 kB
Threads:\t1
"""


def test_the_kernel_s_text_is_read_in_bytes():
    assert parse_status(STATUS) == {
        "peak_rss_bytes": 10 * MIB,
        "rss_bytes": 8 * MIB,
        "anonymous_bytes": 4 * MIB,
        "file_bytes": 3 * MIB,
        "shared_bytes": MIB,
        "locked_bytes": MIB // 2,
    }


@linux
def test_real_text_has_every_figure():
    figures = parse_status(Path("/proc/self/status").read_text())
    assert set(figures) == {
        "peak_rss_bytes", "rss_bytes", "anonymous_bytes", "file_bytes", "shared_bytes", "locked_bytes",
    }  # fmt: skip
    parts = figures["anonymous_bytes"] + figures["file_bytes"] + figures["shared_bytes"]
    assert figures["peak_rss_bytes"] >= figures["rss_bytes"] == parts


@pytest.mark.parametrize(
    "text", ["", "VmHWM:", "VmHWM:\t", "VmHWM: many kB", "VmHWM: -1 kB", "VmHWM", "\0:\0\n::"]
)
def test_text_without_a_number_has_no_figure(text):
    assert parse_status(text) == {}


@given(st.text() | st.builds("VmRSS:{}".format, st.text()))
def test_any_text_can_be_parsed(text):
    assert all(figure >= 0 for figure in parse_status(text).values())


def test_macos_s_structure_is_read_at_its_documented_offsets():
    """`struct rusage_info_v4`: a uuid of 16 bytes, then 64-bit fields; the lifetime peak is at byte 240."""
    fields = list(range(1000, 1035))
    buffer = bytearray(os.urandom(16) + struct.pack("<35Q", *fields) + bytes(200))
    struct.pack_into("<Q", buffer, 240, 7 * 2**40)
    assert parse_rusage_info(bytes(buffer)) == {
        "wired_bytes": 1005,
        "rss_bytes": 1006,
        "footprint_bytes": 1007,
        "peak_footprint_bytes": 7 * 2**40,
    }


def test_a_mark_has_memory_and_page_faults():
    figures = mark()
    assert figures["peak_rss_bytes"] >= figures["rss_bytes"] > 5 * MIB
    assert figures["minor_faults"] > 0 and figures["major_faults"] >= 0


@pytest.mark.real
@linux
def test_allocated_and_freed_memory_is_reported():
    code = (
        "import json; from ggufbench.worker.memory import mark\n"
        "before = mark(); held = bytearray(b'x') * 2**26\n"
        "during = mark(); del held; print(json.dumps([before, during, mark()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    before, during, after = json.loads(done.stdout)
    assert 60 * MIB < during["anonymous_bytes"] - before["anonymous_bytes"] < 80 * MIB
    assert after["rss_bytes"] < during["rss_bytes"]
    # The kernel adds its counters up late: a few pages of the peak may be missing.
    assert after["peak_rss_bytes"] > during["rss_bytes"] - MIB


@pytest.mark.real
def test_a_large_parent_does_not_affect_its_child():
    done = subprocess.run(
        [sys.executable, "-c", LARGE_PARENT], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout)["peak_rss_bytes"] < 100 * MIB


@pytest.mark.real
@linux
def test_a_reset_restarts_the_peak():
    code = (
        "import json; from ggufbench.worker.memory import mark, reset_peak\n"
        "held = bytearray(b'x') * 2**26; del held; before = mark()\n"
        "reset_peak(); print(json.dumps([before, mark()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    before, after = json.loads(done.stdout)
    assert before["peak_rss_bytes"] > before["rss_bytes"] + 50 * MIB
    assert after["peak_rss_bytes"] < before["peak_rss_bytes"] - 50 * MIB


def test_the_proportional_share_is_read_from_the_rollup():
    text = "5600-7fff ---p 00000000 00:00 0 [rollup]\nRss: 884 kB\nPss: 385 kB\nPss_Dirty: 68 kB\n"
    assert parse_rollup(text) == {"pss_bytes": 385 * 1024}
    assert parse_rollup("") == {}


LOCKING = """
import sys
from ggufbench.launching.launcher import launch
from ggufbench.worker.job import Job, Setting, Workload
from ggufbench.worker.protocol import Mark
setting = Setting(device="cpu", n_ctx=256, load_mode="mmap+mlock")
ended = launch(Job("engine", sys.argv[1], setting, Workload(8, 2, 0, 1), load_only=True), lambda _phase: 60)
print(max(mark.memory["locked_bytes"] for mark in ended.all(Mark)))
"""


@pytest.mark.real
@pytest.mark.skipif(shutil.which("setpriv") is None or os.name != "posix", reason="needs setpriv of Linux")
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("allowed", [True, False])
def test_locked_memory_is_read_back(model_folder, allowed):
    """llama.cpp reports `mlock` either way; only the kernel knows whether the weights were locked."""
    limit = "ulimit -l unlimited" if allowed else "ulimit -l 0"
    drop = "" if allowed else "setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock"
    done = subprocess.run(
        ["sh", "-c", f'{limit}; exec {drop} "$0" -c "$1" "$2"', sys.executable, LOCKING,
         str(model_folder / "llama-tiny-Q8_0.gguf")],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert (int(done.stdout) > MIB) is allowed
