"""Drop a real file from the page cache and read it back."""

import os
import sys
from pathlib import Path

import pytest

from ggufbench.checks.cache_state import cache_state
from ggufbench.machine import page_cache

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not report its page cache")


@pytest.fixture
def file(tmp_path) -> Path:
    """Eight megabytes on a disk."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(8_000_000))
    return path


def test_a_file_is_dropped_and_read_back(file):
    assert page_cache.resident_fraction([file]) == 1
    page_cache.drop([file])
    assert page_cache.resident_fraction([file]) <= 0.02
    seen = []
    page_cache.read_once([file], seen.append)
    assert page_cache.resident_fraction([file]) >= 0.99
    assert seen[-1] == 8_000_000


def test_a_file_that_became_a_fifo_is_not_waited_for(tmp_path):
    fifo = tmp_path / "model.gguf"
    os.mkfifo(fifo)  # which nobody ever writes to
    assert page_cache.resident_fraction([fifo]) is None
    page_cache.drop([fifo])
    with pytest.raises(OSError, match="not a regular file"):
        page_cache.read_once([fifo])


def test_a_partly_resident_file_is_reported(file):
    page_cache.drop([file])
    with file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead
        opened.read(2_000_000)
    assert 0.2 < page_cache.resident_fraction([file]) < 0.6


def test_two_files_both_count(file, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(os.urandom(8_000_000))
    page_cache.drop([other])
    assert page_cache.resident_fraction([file, other]) == pytest.approx(0.5, abs=0.05)


def test_a_file_in_memory_stays_there():
    memory = Path("/dev/shm")  # noqa: S108 (a tmpfs on every Linux)
    path = memory / f"ggufbench-{os.getpid()}"
    try:
        path.write_bytes(os.urandom(1_000_000))
        page_cache.drop([path])
        assert page_cache.resident_fraction([path]) == 1
    finally:
        path.unlink(missing_ok=True)


def test_unreadable_residency_is_not_reported(tmp_path):
    assert page_cache.resident_fraction([tmp_path / "none"]) is None
    assert page_cache.resident_fraction([]) is None
    (tmp_path / "empty").touch()
    assert page_cache.resident_fraction([tmp_path / "empty"]) is None
    page_cache.drop([tmp_path / "none"])


@pytest.mark.parametrize(
    ("asked", "resident", "state"),
    [
        ("cold", 0.0, "cold"),
        ("cold", 0.02, "cold"),
        ("cold", 0.03, "partial"),
        ("cold", 1.0, "warm"),
        ("cold", None, "unknown"),
        ("warm", 1.0, "warm"),
        ("warm", 0.99, "warm"),
        ("warm", 0.9, "partial"),
        ("warm", 0.0, "cold"),
        ("warm", None, "warm"),
    ],
)
def test_cache_state_of_a_load(asked, resident, state):
    assert cache_state(asked, resident) == state
