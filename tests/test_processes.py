"""Programs that are run, waited for and terminated, and the signals that end a run."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time

import pytest

from ggufbench import processes
from ggufbench.processes import (
    OutputTooLongError,
    Terminated,
    cause,
    run_program,
    termination_as_interrupt,
    wait_awake,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and process groups")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_an_interrupt_once_and_restored_afterwards(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as caught, termination_as_interrupt():
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # the second one does not end the clean-up
    assert cause(caught.value) == number.name and signal.getsignal(number) == before


def test_an_ignored_signal_stays_ignored():
    """As `nohup` requires."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with termination_as_interrupt():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_only_the_main_thread_handles_signals():
    seen = []
    before = signal.getsignal(signal.SIGTERM)

    def enter():
        with termination_as_interrupt():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


def test_the_cause_of_an_interrupt_is_named():
    assert cause(KeyboardInterrupt()) == "Ctrl-C"
    assert cause(Terminated("SIGTERM")) == "SIGTERM"


def test_a_program_that_prints_without_end_is_terminated():
    started = time.monotonic()
    with pytest.raises(OutputTooLongError, match="more than 1000 bytes"):
        run_program(["yes"], 60, most_bytes=1000)
    assert time.monotonic() - started < 30


def test_errors_without_end_are_read_with_a_bound():
    with pytest.raises(subprocess.TimeoutExpired):
        run_program(["sh", "-c", "exec yes >&2"], 0.2)


def test_output_errors_and_code_of_a_program():
    done = run_program(["sh", "-c", "echo out; seq 100000 >&2; exit 3"], 60)
    assert (done.code, done.output) == (3, "out\n")
    assert done.errors.endswith("99999\n100000\n") and len(done.errors) == 2**16


def test_an_answer_that_arrived_while_this_process_was_stopped_is_taken(monkeypatch):
    """A clock that jumps, as after SIGSTOP or the suspension of a machine, which a test cannot make."""
    answers, clock = queue.SimpleQueue(), [0.0]
    monkeypatch.setattr(processes.time, "monotonic", lambda: clock[0])
    waits = []

    def attempt(seconds):
        waits.append(seconds)
        if len(waits) == 1:  # it is stopped for an hour, and the answer arrives meanwhile
            clock[0] += 3600
            answers.put("the answer")
            return None
        return answers.get_nowait()

    assert wait_awake(attempt, 5) == "the answer"
    assert waits == [5, 5], "the whole timeout begins again"


def test_a_timeout_counts_after_a_last_look_into_the_pipe():
    waits = []
    assert wait_awake(waits.append, 0.01) is None
    assert waits == [0.01, processes._LATE_SECONDS]
