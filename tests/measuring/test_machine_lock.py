"""The lock of the machine: who holds it, how long a run waits, and what is refused as a lock."""

import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from ggufbench.measuring import machine_lock
from ggufbench.measuring.machine_lock import MachineBusyError, MachineLockError, one_at_a_time

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="users and signals")


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """The runtime folder of the user, in which the lock is."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture
def said():
    """The sentences of waiting runs."""
    return []


def fail_to_get(said, seconds=0.0):
    with pytest.raises(MachineBusyError) as caught, one_at_a_time(said.append, seconds):
        raise AssertionError("two runs measure")
    return str(caught.value)


def test_a_waiting_run_names_the_holder_and_ends_with_its_time_budget(runtime, said, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/ggufbench", "ab", "--baseline", "\x1b[31m"])
    with one_at_a_time(said.append):
        reason = fail_to_get(said)
        assert said == [
            f"waiting for process {os.getpid()} (`ggufbench ab --baseline _[31m`), "
            f"which is measuring since {reason.split('since ')[1][:22]}"
        ]
        assert "the time budget ended after 0.0 s of waiting for it" in reason
    with one_at_a_time(said.append, 0.0):
        assert len(said) == 1, "nobody waits for a lock that is free"


def test_a_waiting_run_measures_when_the_lock_is_free(runtime, said):
    waits, got = threading.Event(), threading.Event()

    def wait():
        with one_at_a_time(lambda _sentence: waits.set(), 60):
            got.set()

    thread = threading.Thread(target=wait)
    with one_at_a_time(said.append):
        thread.start()
        assert waits.wait(30) and not got.is_set()
    thread.join(30)
    assert got.is_set() and said == []


@pytest.mark.real
def test_a_stopped_holder_is_named_as_stopped(runtime, said):
    program = (
        "import sys; from ggufbench.measuring.machine_lock import one_at_a_time as lock\n"
        "with lock(print): print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        holder.stdout.readline()
        holder.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, holder.pid, os.WSTOPPED | os.WNOWAIT)
        try:
            assert f"process {holder.pid} (`-c`), which is stopped since 20" in fail_to_get(said)
        finally:
            holder.kill()
    with one_at_a_time(said.append, 0.0):
        assert len(said) == 1, "a killed holder releases the lock"


@pytest.mark.parametrize(
    "note", [b"", b"[]", b'{"pid": "x"}', b'{"pid": 1}', b"[" * 4000, b"x" * 5000, b"\xff"]
)
def test_a_broken_note_does_not_prevent_the_message(runtime, said, note):
    with one_at_a_time(said.append):
        (path,) = (runtime / "ggufbench" / "lock").glob("*.json")
        path.write_bytes(note)
        fail_to_get(said)
    assert said == ["waiting for another run, which is measuring"]


def folder(path):
    path.mkdir()


def link(path):
    path.symlink_to(path.parent / "elsewhere")


def make_fifo(path):
    os.mkfifo(path)


@pytest.mark.parametrize("make", [folder, link, make_fifo])
def test_a_lock_that_is_no_regular_file_is_refused(runtime, make):
    lock = machine_lock._lock_file()
    make(lock)
    with pytest.raises(MachineLockError, match="is not a regular file; remove it, or set GGUFBENCH_CACHE"):
        one_at_a_time(print).__enter__()
    assert not (lock.parent / "elsewhere").exists(), "the link was followed"


def test_a_lock_folder_that_is_a_link_or_a_file_is_refused(runtime, tmp_path):
    (runtime / "ggufbench").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (runtime / "ggufbench" / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineLockError, match="lock is not a folder"):
        one_at_a_time(print).__enter__()
    assert not list((tmp_path / "elsewhere").iterdir())
    (runtime / "ggufbench" / "lock").unlink()
    (runtime / "ggufbench" / "lock").touch()
    with pytest.raises(MachineLockError, match=r"the lock at .* cannot be used"):
        one_at_a_time(print).__enter__()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
def test_a_lock_of_another_user_is_refused(runtime):
    lock = machine_lock._lock_file()
    lock.touch()
    os.chown(lock, 12345, 12345)
    with pytest.raises(MachineLockError, match="belongs to another user"):
        one_at_a_time(print).__enter__()


def test_the_lock_is_in_a_folder_of_the_user_alone(runtime, tmp_path, monkeypatch):
    monkeypatch.setenv("GGUFBENCH_CACHE", str(tmp_path / "cache"))
    with one_at_a_time(print):
        (lock,) = (runtime / "ggufbench").iterdir()
        assert stat.S_IMODE(lock.stat().st_mode) == 0o700
    runtime.chmod(0o777)  # others could put their files there
    with one_at_a_time(print):
        assert (tmp_path / "cache" / "lock").is_dir()
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with one_at_a_time(print):
        assert (tmp_path / "cache" / "lock").is_dir()
