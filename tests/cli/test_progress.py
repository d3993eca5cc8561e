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


def test_no_thread_draws_beside_a_worker_s_clock():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream, before = Terminal(), threading.active_count()
    with ProgressLine(stream) as line:
        line.show("a launch")
        drawn = stream.getvalue()
        assert threading.active_count() == before
        line.show("a launch")
        assert stream.getvalue() == drawn, "the same sentence is not drawn again"
    assert "a launch" in drawn
