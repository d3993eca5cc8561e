"""Locations of the user's files, and how they are written."""

import os
import socket
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from ggufbench.paths import (
    atomic_write,
    cache_folder,
    open_regular,
    read_regular,
    remove_leftovers,
    temporary_file,
)


@pytest.fixture
def irregular(tmp_path):
    """A folder, a FIFO without a writer, a link to it, an endless device and a socket."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        yield sorted(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_only_a_regular_file_is_opened_and_nothing_waits(irregular):
    assert len(irregular) == 5
    for path in irregular:
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(path)


def test_a_file_that_becomes_a_fifo_after_the_first_check_does_not_block(tmp_path, monkeypatch):
    regular, fifo = (tmp_path / "regular"), tmp_path / "fifo"
    regular.touch()
    status = regular.stat()
    os.mkfifo(fifo)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: status)
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(fifo)


def test_reading_is_bounded(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(OSError, match="it has 5 bytes, and the limit is 4"):
        read_regular(path, 4)


def test_the_cache_folder_is_the_one_given_or_the_platform_s(tmp_path):
    assert cache_folder({"GGUFBENCH_CACHE": str(tmp_path)}) == tmp_path
    assert cache_folder({}) == user_cache_path("ggufbench", appauthor=False)


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "a {b}.json"
    for content in (b"first", b"second"):
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
            assert temporary.parent == path.parent and "{" not in temporary.name
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(type(error)), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_an_existing_file_is_kept_without_overwrite(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(FileExistsError), atomic_write(path, overwrite=False) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_only_files_of_ended_processes_are_leftovers(tmp_path):
    path, ended = tmp_path / "a.gguf", 2**22 + 1  # above Linux's largest process id
    left = tmp_path / f".a.gguf.{ended}.0123abcd.part"
    others = [tmp_path / f".b.gguf.{ended}.0123abcd.part", tmp_path / ".a.gguf.notes.part"]
    with temporary_file(path) as mine:
        for file in (left, *others, mine):
            file.touch()
        remove_leftovers(path)
        assert sorted(tmp_path.iterdir()) == sorted([mine, *others])
        assert f".{os.getpid()}." in mine.name
