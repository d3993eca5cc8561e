"""`ggufbench pick` in a real terminal: tmux displays it, types keys, and resizes the window."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import uuid

import pytest

from ggufbench.chat import LlamaCppModelConfig

pytestmark = pytest.mark.real

PICK = f"{shlex.quote(sys.executable)} -m ggufbench.cli pick"
LLAMA = "llama-tiny-Q8_0.gguf"


class Terminal:
    """A shell in a window of tmux."""

    def __init__(self, folder, hub_cache, wait_until) -> None:
        self.folder = folder
        self._wait = wait_until
        self._socket = f"ggufbench-{uuid.uuid4().hex[:12]}"
        self._env = {
            **{name: value for name, value in os.environ.items() if name not in {"TMUX", "NO_COLOR"}},
            "HOME": str(folder), "HF_HUB_CACHE": str(hub_cache), "LC_ALL": "C.UTF-8",
        }  # fmt: skip
        shell = "bash --norc --noprofile -i"
        self.tmux("-f", "/dev/null", "new-session", "-d", "-s", "shell", "-x", "120", "-y", "30", shell)

    def tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._socket, *arguments],
            env=self._env, cwd=self.folder, capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        return done.stdout

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        self.tmux("resize-window", "-x", str(width), "-y", str(height))

    def screen(self, *options: str) -> str:
        return self.tmux("capture-pane", "-p", *options)

    def wait(self, pattern: str) -> str:
        def found() -> str | None:
            screen = self.screen()
            return screen if re.search(pattern, screen, re.MULTILINE) else None

        try:
            return self._wait(found, pattern)
        except AssertionError as error:
            raise AssertionError(f"{error}; the screen is:\n{self.screen()}") from None

    def start(self, command: str) -> str:
        """Run a command whose exit code `ended()` returns, and wait for the picker."""
        self.run(command)
        return self.wait(r"\d of \d(.*\n)*.* Choose ")

    def run(self, command: str) -> None:
        self.type(f"clear; {command}; echo $? > code")
        self.press("Enter")

    def ended(self) -> int:
        """Return its exit code; the terminal is restored."""
        code = int(self.content("code"))
        assert self.tmux("display-message", "-p", "#{alternate_on} #{cursor_flag}").strip() == "0 1"
        self.type("stty -a > stty")
        self.press("Enter")
        settings = self.content("stty")
        assert {"icanon", "echo", "isig", "ixon"} <= set(settings.split())
        return code

    def content(self, name: str) -> str:
        """Content of a file that the shell writes last."""
        file = self.folder / name
        self._wait(lambda: file.is_file() and file.read_text().endswith("\n"), f"the file {name}")
        return file.read_text()


@pytest.fixture
def terminal(tmp_path, hub_cache, wait_until):
    if shutil.which("tmux") is None or shutil.which("bash") is None:
        pytest.skip("needs tmux and bash: apt-get install tmux")
    terminal = Terminal(tmp_path, hub_cache, wait_until)
    yield terminal
    terminal.tmux("kill-server")


def chosen(terminal) -> str:
    return (terminal.folder / "out").read_text()


def test_shell_variable_gets_the_chosen_model(terminal):
    shown = terminal.start(f'MODEL=$({PICK}); echo "$?, $MODEL" > out')
    assert re.search(r"Model ↑ +Quant +Size +Context +Cost +Speed +Memory +Load", shown)
    assert shown.startswith(" Filter ")
    terminal.type("TINY someone")
    terminal.wait("2 of 3")
    terminal.press("Down")
    terminal.wait(r"^ llama-tiny-Q8_0 ~ synthetic")
    terminal.press("Enter")
    assert terminal.ended() == 0
    code, _, path = chosen(terminal).rstrip("\n").partition(", ")
    assert code == "0" and path.endswith(f"/{LLAMA}") and os.path.isfile(path)  # noqa: PTH113


def test_config_output_with_redirected_streams(terminal):
    terminal.start(f"echo qqq | {PICK} --match qwen3 --output config 2> errors > out")
    terminal.press("Enter")
    assert terminal.ended() == 0
    config = LlamaCppModelConfig(**json.loads(chosen(terminal)))
    assert config.model == "another/Qwen3-tiny-GGUF" and config.model_path.endswith("Qwen3-tiny-Q8_0.gguf")
    assert (terminal.folder / "errors").read_text() == ""


@pytest.mark.parametrize("keys", [("C-c",), ("Escape",), ("Tab", "q")])
def test_leaving_prints_nothing_and_exits_130(terminal, keys):
    terminal.start(f"{PICK} > out")
    terminal.press(*keys)
    assert (terminal.ended(), chosen(terminal)) == (130, "")


def test_signal_leaves_the_terminal_usable(terminal):
    terminal.start(f"(echo $BASHPID > process; exec {PICK} > out)")
    os.kill(int(terminal.content("process")), signal.SIGTERM)
    assert (terminal.ended(), chosen(terminal)) == (130, "")


def test_the_table_follows_the_size_of_the_window(terminal):
    terminal.start(f"{PICK} > out")
    terminal.resize(40, 12)
    narrow = terminal.wait(r"Model ↑ +Quant +Size *$")
    assert re.search(r"^ llama-tiny ~ +Q8_0 +\d\.\d MiB", narrow, re.MULTILINE)
    terminal.resize(150, 40)
    terminal.wait(r"Context +Cost +Speed +Memory +Load")
    terminal.press("Down", "C-s", "C-s", "C-r", "Enter")
    assert terminal.ended() == 0 and chosen(terminal).endswith(f"/{LLAMA}\n"), "the highlighted one stayed"


def test_fast_keys_are_handled_in_order(terminal):
    terminal.start(f"{PICK} > out")
    terminal.press("Tab", "/", *"someone q8", "Enter")
    assert terminal.ended() == 0 and chosen(terminal).endswith(f"/{LLAMA}\n")


def test_without_colour_it_is_drawn_in_greys(terminal):
    terminal.tmux("set-option", "-sa", "terminal-features", ",*:RGB")
    terminal.start(f"NO_COLOR=1 COLORTERM=truecolor {PICK} > out")
    colours = re.findall(r"[34]8;2;(\d+);(\d+);(\d+)", terminal.screen("-e"))
    assert colours and all(red == green == blue for red, green, blue in colours)
    terminal.press("Escape")
    assert terminal.ended() == 130


def test_background_process_message(terminal):
    terminal.run(f"{PICK} > out & wait $!")
    assert "this process runs in the background" in terminal.wait("ggufbench: ")
    assert terminal.ended() == 2


def test_no_models_message(terminal):
    (terminal.folder / "empty").mkdir()
    terminal.run(f"{PICK} --models empty")
    assert "no GGUF model was found; name a folder with --models" in terminal.wait("ggufbench: ")
    assert terminal.ended() == 2


def test_hostile_name_is_escaped_only_on_a_terminal(terminal, model_folder, wait_until):
    name = "a\x1b[31m\x1b]0;owned\x07\n[red].gguf"
    shutil.copy(model_folder / "llama-tiny-Q8_0.gguf", terminal.folder / name)
    terminal.run(f"{PICK} --models . --match a > out; {PICK} --models .")
    for _ in range(2):
        shown = terminal.wait("1 of 1")
        assert r"\x1b[31m\x1b]0;owned" in shown
        terminal.press("Enter")
        wait_until(lambda: "1 of 1" not in terminal.screen(), "the picker to end")
    assert terminal.ended() == 0 and chosen(terminal) == f"{terminal.folder}/{name}\n"
    screen = "".join(terminal.screen().splitlines())  # a long path takes two lines
    assert "/a\\x1b[31m\\x1b]0;owned\\x07\\x0a[red].gguf'" in screen
    assert terminal.tmux("display-message", "-p", "#{pane_title}").strip() != "owned"
