"""The line of progress on a terminal, and what is printed where there is none."""

import io
import os
import pty
import subprocess
import sys
import threading

import pytest

from ggufbench.cli.progress import ProgressLine

pytestmark = pytest.mark.real

PROGRAM = """
import sys, time
from ggufbench.cli.progress import ProgressLine, tell

with ProgressLine() as line:
    for step in ("first", "second [red]", "third " * 40):
        line.show(step)
    print("a message", file=sys.stderr)
    line.show_bytes(0.5, 2**20)
    {last}
print("the result")
"""


def on_a_terminal(last: str = "pass", **env: str) -> tuple[int, str, str]:
    """The exit code of the program, its standard output, and what its terminal got as standard error."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(last=last)],
        stdout=subprocess.PIPE, stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", **env},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # Linux ends a terminal in this way
        pass
    os.close(ours)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output.decode(), shown.decode()


def rows(shown: str) -> list[str]:
    """The rows of a terminal after that text, without those that are empty."""
    screen, row, column = [""], 0, 0
    rest = shown
    while rest:
        if rest.startswith("\x1b["):
            end = next(i for i, c in enumerate(rest[2:], 2) if c.isalpha())
            command, number, rest = rest[end], rest[2:end], rest[end + 1 :]
            if command == "A":
                row -= int(number or 1)
            elif command == "K":
                screen[row] = "" if number == "2" else screen[row][:column]
            continue
        character, rest = rest[0], rest[1:]
        if character == "\r":
            column = 0
        elif character == "\n":
            row += 1
            screen += [""] * (row + 1 - len(screen))
        else:
            screen[row] = screen[row][:column].ljust(column) + character + screen[row][column + 1 :]
            column += 1
    return [line for line in screen if line.strip()]


def test_the_line_is_replaced_kept_apart_from_messages_and_removed():
    code, output, shown = on_a_terminal()
    assert (code, output) == (0, "the result\n")
    assert all(words in shown for words in ("first", "second [red]", "third third", "50 % of 1.0 MiB"))
    assert rows(shown) == ["a message"]
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")


def test_the_cursor_is_never_left_hidden():
    _, _, shown = on_a_terminal("import os; os._exit(3)")
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")


def test_ctrl_c_leaves_the_terminal_clean():
    code, _, shown = on_a_terminal("import os, signal; os.kill(os.getpid(), signal.SIGINT); time.sleep(9)")
    assert code != 0
    before, _, traceback = shown.partition("Traceback")
    assert rows(before) == ["a message"] and "KeyboardInterrupt" in traceback


@pytest.mark.parametrize("env", [{}, {"FORCE_COLOR": "1", "TTY_INTERACTIVE": "1", "TERM": "xterm"}])
def test_only_messages_are_printed_without_a_terminal(env):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(last="tell('a step')")],
        capture_output=True, text=True, timeout=60, check=True, env={**os.environ, **env},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("the result\n", "a message\n")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_no_thread_draws_beside_a_worker_s_clock():
    stream, before = Terminal(), threading.active_count()
    with ProgressLine(stream) as line:
        line.show("a launch")
        drawn = stream.getvalue()
        assert threading.active_count() == before
        line.show("a launch")
        assert stream.getvalue() == drawn, "the same sentence is not drawn again"
    assert "a launch" in drawn


def test_a_log_gets_a_line_every_half_minute(monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr("ggufbench.cli.progress.time.monotonic", lambda: float(next(clock)))
    stream = io.StringIO()
    with ProgressLine(stream) as line:
        for number in range(7):
            line.show(f"launch {number}")
    assert stream.getvalue().splitlines() == ["launch 2", "launch 5"]


def test_the_remaining_time_of_a_file_is_estimated(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("ggufbench.cli.progress.time.monotonic", lambda: now[0])
    line = ProgressLine(Terminal())
    line.show_bytes(0.0, 2**30)
    assert "left" not in line.sentence, "nothing is known yet"
    now[0] = 30.0
    line.show_bytes(0.25, 2**30)
    assert line.sentence == " 25 % of 1.0 GiB, about 2 min left"
    line.show_bytes(0.0, 2**20)
    assert "left" not in line.sentence, "another file has another clock"
